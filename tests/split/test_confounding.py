"""lib.split.confounding: a column that goes with the labels is found, one that does not is left in peace."""

import numpy as np
import pytest
from scipy.stats.contingency import association

from workflow_scripts.lib.split import confounding

GROUPS = np.array([f"g{number // 4}" for number in range(400)])
MEMBER = np.arange(400) // 4
LABELS = np.eye(4, dtype=np.uint8)[MEMBER % 4]


def found(**columns: np.ndarray) -> dict[str, confounding.Association]:
    told = {name: values.astype(str).astype(object) for name, values in columns.items()}
    return {each.column: each for each in confounding.associations(LABELS, GROUPS, told, ["gene"])}


def test_a_plate_for_each_class_is_confounded_and_a_random_one_is_not():
    rng = np.random.default_rng(0)
    out = found(plate=MEMBER % 4, other=rng.integers(0, 4, 100)[MEMBER], gene=MEMBER % 4)
    assert out["plate"].v == pytest.approx(1) and out["plate"].confounded
    assert out["other"].v < 0.25 and not out["other"].confounded
    assert "gene" not in out, "it names groups"


def test_images_of_a_group_do_not_count_as_many():
    # Eight groups of fifty images: by images, chance alone would look like proof.
    member = np.arange(400) // 50
    labels = np.eye(2, dtype=np.uint8)[member % 2]
    plate = np.array([0, 0, 1, 1, 0, 1, 1, 0])[member].astype(str).astype(object)
    [out] = confounding.associations(labels, member.astype(str), {"plate": plate})
    assert not out.confounded


def test_names_and_constants_say_nothing():
    assert not found(one=np.zeros(400, int), name=np.arange(400), half=MEMBER // 2)


def test_cramers_v_is_scipys_but_for_the_correction():
    counts = np.array([[900, 300, 100], [200, 700, 400]])
    v, p = confounding.cramers_v(counts)
    assert v == pytest.approx(association(counts, method="cramer", correction=False), abs=0.005)
    assert p < 1e-9
    assert confounding.cramers_v(np.array([[5, 5], [0, 0]])) == (0.0, 1.0)
