"""lib.images.label_maps: merging, renaming and selecting classes, and the built-in lists of locations."""

import json

import numpy as np
import pytest

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.images import label_maps
from workflow_scripts.lib.images.label_maps import BUILT_IN, KAGGLE_2018, KAGGLE_2021, NUMBERINGS

CLASSES = ["Nucleoplasm", "Nucleoli", "Cytosol", "Rods & rings"]
LABELS = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=np.uint8)


def hot(target: str, classes: tuple[str, ...] = KAGGLE_2018) -> np.ndarray:
    out = np.zeros((1, len(classes)), dtype=np.uint8)
    out[0, [int(number) for number in target.split()]] = 1
    return out


def test_lists_have_their_published_length_and_order():
    lengths = {"hpa_public": 35, "hpa_31": 31, "kaggle_2018": 28, "kaggle_2021": 19}
    assert {name: len(names) for name, names in NUMBERINGS.items()} == lengths
    for names in NUMBERINGS.values():
        assert len({name.casefold() for name in names}) == len(names)
    numbers = {0: "Nucleoplasm", 2: "Nucleoli", 15: "Microtubule ends", 21: "Plasma membrane", 23: "Mitochondria"}
    assert {k: KAGGLE_2018[k] for k in (*numbers, 25, 27)} == numbers | {25: "Cytosol", 27: "Rods & rings"}
    assert [KAGGLE_2021[k] for k in (8, 12, 16, 18)] == ["Intermediate filaments", "Centrosome", "Cytosol", "Negative"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_maps_put_an_old_class_into_one_new_class_at_most(name):
    known = {old.casefold() for names in NUMBERINGS.values() for old in names}
    old = [part.casefold() for new, parts in BUILT_IN[name].items() for part in dict.fromkeys(parts)]
    assert len(old) == len(set(old))
    # The new names of the coarse list are no locations of any other list.
    assert set(old) - known <= {"nucleus", "cytoplasm", "cytoskeleton", "endomembrane system"}


@pytest.mark.parametrize("numbering", NUMBERINGS)
def test_coarse_takes_every_location_but_negative(numbering):
    classes = NUMBERINGS[numbering]
    found = label_maps.apply(np.eye(len(classes), dtype=np.uint8), classes, "coarse", "drop")
    assert set(found.unmapped) <= {"Negative"}
    assert found.labels.sum(axis=1).max() == 1


def test_a_numbering_maps_to_itself():
    for name in ("hpa_31", "kaggle_2018", "kaggle_2021"):
        classes = NUMBERINGS[name]
        found = label_maps.apply(np.eye(len(classes), dtype=np.uint8), classes, name)
        np.testing.assert_array_equal(found.labels, np.eye(len(classes)))
        assert found.classes == list(classes)


def test_2018_to_2021_merges_and_keeps_numbers():
    # Peroxisomes and endosomes are one class; plasma membrane and junctions too.
    found = label_maps.apply(hot("8 9 21 22 0"), KAGGLE_2018, "kaggle_2021")
    assert [KAGGLE_2021[k] for k in np.flatnonzero(found.labels[0])] == [
        "Nucleoplasm", "Plasma membrane", "Vesicles and punctate cytosolic patterns",
    ]  # fmt: skip
    assert found.classes == list(KAGGLE_2021)


def test_public_names_to_2018():
    public = NUMBERINGS["hpa_public"]
    labels = np.zeros((1, len(public)), dtype=np.uint8)
    labels[0, [public.index(name) for name in ("Cell Junctions", "Rods & Rings", "Midbody ring")]] = 1
    found = label_maps.apply(labels, public, "kaggle_2018")
    assert set(np.flatnonzero(found.labels[0])) == {16, 22, 27}
    labels[0, public.index("Vesicles")] = 1
    with pytest.raises(UserError, match=r"no new class for: Vesicles \(1 images\).*data.unmapped: drop"):
        label_maps.apply(labels, public, "kaggle_2018")


def test_own_map_merges_renames_and_selects():
    own = {"nucleus": ["nucleoplasm", "Nucleoli"], "other": ["Cytosol"]}
    with pytest.raises(UserError, match=r"Rods & rings \(2 images\)"):
        label_maps.apply(LABELS, CLASSES, own)
    found = label_maps.apply(LABELS, CLASSES, own, "drop")
    assert found.classes == ["nucleus", "other"]
    assert found.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 0], [0, 0]]
    assert found.unmapped == {"Rods & rings": 2}
    # The last image had no label before.
    assert found.emptied.tolist() == [3]
    dropped = label_maps.apply(LABELS, CLASSES, own, "drop", "drop")
    assert dropped.kept.tolist() == [0, 1, 2, 4]
    assert dropped.labels.tolist() == [[1, 0], [1, 0], [0, 1], [0, 0]]


def test_an_old_class_may_serve_several_new_ones():
    found = label_maps.apply(LABELS[:2], CLASSES, {"Nucleoli": ["Nucleoli"], "Nucleus": CLASSES[:2]})
    assert found.labels.tolist() == [[0, 1], [1, 1]]


def test_classes_stand_in_the_order_of_the_map_even_where_settings_travel_with_sorted_keys():
    own = {"Nucleus": CLASSES[:2], "Cytosol": CLASSES[2:3], "Centre": CLASSES[3:]}
    travelled = json.loads(json.dumps({"label_map": label_maps.ordered(own)}, sort_keys=True))["label_map"]
    found, direct = label_maps.apply(LABELS, CLASSES, travelled), label_maps.apply(LABELS, CLASSES, own)
    assert found.classes == direct.classes == list(own)
    np.testing.assert_array_equal(found.labels, direct.labels)
    assert label_maps.ordered("coarse") == "coarse"
    assert label_maps.ordered(None) is None


def test_no_map_changes_nothing():
    found = label_maps.apply(LABELS, CLASSES, None)
    np.testing.assert_array_equal(found.labels, LABELS)
    assert (found.classes, found.unmapped, len(found.emptied)) == (CLASSES, {}, 0)


@pytest.mark.parametrize(
    ("label_map", "classes", "said"),
    [
        ("kaggle_2019", CLASSES, "'kaggle_2019' is not known; built in: hpa_31, kaggle_2018, kaggle_2021, coarse"),
        ({"a": ["Nucleolus"]}, CLASSES, r"data.label_map \(a\) names 'Nucleolus', which is no class"),
        ("coarse", ["a", "b", "c", "d"], "'coarse' has none of the classes of the images: a, b, c, d"),
    ],
)
def test_what_a_map_cannot_do_is_told(label_map, classes, said):
    with pytest.raises(UserError, match=said):
        label_maps.apply(LABELS, classes, label_map)
