"""Generators from elsewhere: what fits, what they have read of the images here, and what is refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers.generating import SYNTHETIC_SET, UNET, role_of, sample_line, train_line
from workflow_scripts import sample_ddpm, train_ddpm
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import from_elsewhere, generator_file, generator_header
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.images import fingerprints
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.split import role_table

torch.set_num_threads(1)
SHORT = UNET | {"steps": 2, "name": "theirs"}
CHANNELS = ["ch0", "ch1"]
CPU = torch.device("cpu")


def make(
    folder: Path,
    seed: int,
    classes: str = "abc",
    groups: str = "im",
    shift: int = 0,
    images: np.ndarray | None = None,
    channels: list[str] = CHANNELS,
    turned: bool = False,
    **attrs: str,
) -> np.ndarray:
    """An image set of 40 images with its folds; `shift` turns the roles, `turned` the order of the genes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 200, (40, len(channels), 16, 16)).astype(np.uint8) if images is None else images
    labels = np.eye(len(classes), dtype=np.uint8)[np.arange(40) % len(classes)]
    ids = np.array([f"im{number}" for number in range(40)])
    names = [f"{groups}{number}" for number in (range(39, -1, -1) if turned else range(40))]
    with write_images(folder / "images.h5", channels, list(classes), 16, {"grouped_by": "gene"} | attrs) as writer:
        # Groups are called as preprocess_images calls them: by a gene and the row of the first image.
        writer.append(pixels, labels, list(ids), [f"{name}|{row}" for row, name in enumerate(names)], {"gene": names})
    roles = np.array([[role_of(number + shift)] for number in range(40)], dtype=object)
    role_table.write(folder / "folds.csv", ids, np.array(names), roles)
    return pixels


def trained(folder: Path, **settings: object) -> Path:
    """A generator trained in that folder."""
    assert train_ddpm.main(train_line(folder, SHORT | settings)) == 0
    return folder / "g.safetensors"


def taken(folder: Path, origin: Path, **settings: object) -> generator_file.Generator:
    """The generator that the stage makes of a file."""
    line = [*train_line(folder, SHORT | {"name": "ours", "steps": 0} | settings, "ours.safetensors"), "--origin"]
    assert train_ddpm.main([*line, str(origin)]) == 0
    return generator_file.read(folder / "ours.safetensors")


def refused(folder: Path, origin: Path, capfd: pytest.CaptureFixture[str], **settings: object) -> str:
    """The line with which the stage refuses a file."""
    line = train_line(folder, SHORT | {"name": "ours", "steps": 0} | settings, "ours.safetensors")
    capfd.readouterr()
    assert train_ddpm.main([*line, "--origin", str(origin)]) == 1
    assert not (folder / "ours.safetensors").exists()
    return capfd.readouterr().err.split("train_ddpm failed: ")[1].splitlines()[0]


def test_a_generator_of_the_same_images_and_roles_is_taken_as_it_is(tmp_path: Path) -> None:
    make(tmp_path, 0)
    origin = trained(tmp_path)
    theirs, ours = generator_file.read(origin), taken(tmp_path, origin)
    assert ours.access_record.to_json() == theirs.access_record.to_json()
    assert all(torch.equal(ours.weights[name], value) for name, value in theirs.weights.items())
    assert ours.settings["name"] == "ours" and ours.settings["steps"] == 0 and "label_places" not in ours.settings
    assert (tmp_path / "ours.safetensors.csv").read_text().splitlines() == ["step,images,loss,learning_rate,seconds"]
    line = sample_line(tmp_path, SYNTHETIC_SET | {"generator": "ours", "count": 4}, "ours.safetensors")
    assert sample_ddpm.main(line) == 0
    with ImageSet(tmp_path / "s.h5") as made:
        assert made.inherited().unknown == frozenset()


def test_training_goes_on_from_its_weights_and_adds_what_is_read_here(tmp_path: Path) -> None:
    make(tmp_path / "there", 1, groups="other")
    make(tmp_path / "here", 0)
    origin = trained(tmp_path / "there")
    theirs = generator_file.read(origin)
    slow = taken(tmp_path / "here", origin, steps=1, learning_rate=1e-9, ema_width=0)
    for name, value in theirs.weights.items():
        if value.ndim > 1:  # filters have their norm restored, which changes nothing that they compute
            value = torch.nn.functional.normalize(value.flatten(1), dim=1)
            found = torch.nn.functional.normalize(slow.weights[name].flatten(1), dim=1)
            assert torch.allclose(found, value, atol=1e-5), name
    assert torch.equal(slow.pixels.shift, theirs.pixels.shift)
    assert slow.access_record.of("fit").tolist() == [row for row in range(40) if row % 4]
    assert slow.access_record.unknown == {"ours"}
    # What it tells a third laboratory is what both have read.
    assert len(slow.trained_on.images) == 60 and len(slow.trained_on.groups) == 60
    fast = taken(tmp_path / "here", origin, steps=2)
    assert any(not torch.equal(fast.weights[name], value) for name, value in theirs.weights.items())


def test_labels_go_by_name_where_it_knows_more_classes_in_another_order(tmp_path: Path) -> None:
    make(tmp_path / "there", 1, classes="xcaby", groups="other")
    make(tmp_path / "here", 0, classes="abc")
    origin = trained(tmp_path / "there")
    theirs, ours = generator_file.read(origin), taken(tmp_path / "here", origin)
    assert ours.classes == ["a", "b", "c"] and ours.settings["label_places"] == {"of": 5, "places": [2, 3, 1]}
    x, said = torch.randn(3, 2, 16, 16), torch.zeros(3, dtype=torch.bool)
    first = ours.network(CPU, torch.float32)(x, torch.zeros(3), Condition(torch.eye(3), said))
    second = theirs.network(CPU, torch.float32)(x, torch.zeros(3), Condition(torch.eye(5)[[2, 3, 1]], said))
    assert torch.equal(first, second)
    # And on to a third one, which has two of these classes.
    make(tmp_path / "third", 2, classes="cb", groups="third")
    third = taken(tmp_path / "third", tmp_path / "here" / "ours.safetensors", steps=1)
    assert third.settings["label_places"] == {"of": 5, "places": [1, 3]}
    assert third.access_record.unknown == {"ours"}


def test_what_it_has_read_here_is_found_by_pixels_and_by_names(tmp_path: Path, capfd) -> None:
    pixels = make(tmp_path / "here", 0)
    other = make(tmp_path / "there", 1, groups="other")
    assert taken(tmp_path / "here", trained(tmp_path / "there")).access_record.of("fit").tolist() == []
    # An image that is trained on there is a train image here, and is counted as read.
    other[1] = pixels[2]
    make(tmp_path / "shares", 1, groups="other", images=other)
    shared = trained(tmp_path / "shares")
    assert taken(tmp_path / "here", shared).access_record.of("fit").tolist() == [2]
    (tmp_path / "here" / "ours.safetensors").unlink()
    # Or a test image, under another name.
    other[1] = pixels[4]
    make(tmp_path / "leaks", 1, groups="other", images=other)
    assert "1 group that may not be trained on in fold 0 here: im4|4." in refused(
        tmp_path / "here", trained(tmp_path / "leaks"), capfd
    )
    # Or a test protein of the same name, in other images.
    make(tmp_path / "names", 1, shift=1)
    told = refused(tmp_path / "here", trained(tmp_path / "names"), capfd)
    assert "10 groups that may not be trained on in fold 0 here: im0|0, im12|12, im16|16, im20|20, im24|24 and" in told
    # Their images stand in other rows there, so their groups have other names.
    make(tmp_path / "rows", 1, shift=2, turned=True)
    assert "10 groups that may not be trained on" in refused(tmp_path / "here", trained(tmp_path / "rows"), capfd)
    # A protein that is trained on in both is no leak, and none of its images here was read there.
    make(tmp_path / "alike", 1)
    assert taken(tmp_path / "here", trained(tmp_path / "alike")).access_record.of("fit").tolist() == []
    (tmp_path / "here" / "ours.safetensors").unlink()
    # Simulated proteins of two runs have the same names by counting.
    for folder, seed in (("simulated", 0), ("others", 1)):
        make(tmp_path / folder, seed, shift=seed, source="simulated cells (MixLoc)")
    assert taken(tmp_path / "simulated", trained(tmp_path / "others")).access_record.of("fit").tolist() == []


def test_one_of_the_same_images_and_other_roles_is_refused_with_the_names(tmp_path: Path, capfd) -> None:
    pixels = make(tmp_path / "there", 0, shift=1)
    make(tmp_path / "here", 0, images=pixels)
    told = refused(tmp_path / "here", trained(tmp_path / "there"), capfd)
    assert "generator ours comes from a file that was trained on 10 groups" in told and "im0|0, im12|12" in told
    assert "{repeat} and {fold}" in told


def test_one_that_does_not_tell_what_it_has_read_is_unknown(tmp_path: Path) -> None:
    make(tmp_path / "there", 1)
    make(tmp_path / "here", 0)
    origin = trained(tmp_path / "there")
    generator_file.write(origin, replace(generator_file.read(origin), trained_on=None))
    ours = taken(tmp_path / "here", origin)
    assert ours.access_record.unknown == {"ours"} and ours.trained_on is None
    line = sample_line(tmp_path / "here", SYNTHETIC_SET | {"generator": "ours", "count": 4}, "ours.safetensors")
    assert sample_ddpm.main(line) == 0
    with ImageSet(tmp_path / "here" / "s.h5") as made:
        assert made.inherited().unknown == {"ours"}


@pytest.mark.parametrize(
    ("there", "settings", "words"),
    [
        ({"classes": "ab"}, {}, "does not know the class 'c'; it knows a, b: leave the class out or rename it"),
        ({"channels": ["ch1", "ch0"]}, {}, "of the channels ch1, ch0, and preprocess_images.channels are ch0, ch1"),
        ({}, {"widths": [16, 32]}, "widths is [16, 32], and [16, 16] in the file that it comes from"),
        ({}, {"attention": True}, "attention is true, and false in the file"),
        ({}, {"labels": "single"}, 'labels is "single", and "multi_hot" in the file'),
        ({}, {"reference_fraction": 0.5}, "reference_fraction must be 0"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, capfd, there: dict, settings: dict, words: str) -> None:
    make(tmp_path / "there", 1, groups="other", **there)
    make(tmp_path / "here", 0)
    assert words in refused(tmp_path / "here", trained(tmp_path / "there"), capfd, **settings)


def test_weights_that_are_not_those_of_the_network_are_refused(tmp_path: Path, capfd) -> None:
    make(tmp_path, 0)
    origin = trained(tmp_path)
    made = generator_file.read(origin)
    generator_file.write(origin, replace(made, weights=made.weights | {"stem.weight": torch.zeros(3, 3)}))
    assert "its weights are not those of its network" in refused(tmp_path, origin, capfd)
    generator_file.write(origin, replace(made, weights=made.weights | {"head_gain": torch.tensor(np.nan)}))
    assert "hold values that are no numbers" in refused(tmp_path, origin, capfd)
    generator_file.write(origin, replace(made, settings=made.settings | {"label_places": {"of": 10**9, "places": [0]}}))
    assert "does not tell which classes its network knows" in refused(tmp_path, origin, capfd)


def test_the_header_is_read_without_the_weights_and_within_bounds(tmp_path: Path) -> None:
    make(tmp_path, 0)
    origin = trained(tmp_path)
    found = generator_header.read(origin)
    assert (found.channels, found.classes, found.size) == (CHANNELS, ["a", "b", "c"], 16)
    assert found.digest == generator_file.read(origin).digest
    whole, other = origin.read_bytes(), tmp_path / "other.safetensors"
    for content, words in (
        (b"", "no safetensors file"),
        (b"\xff" * 8 + whole[8:], "no safetensors file"),
        ((10**9).to_bytes(8, "little") + whole[8:], "no safetensors file"),
        (b"\x80\x04" + whole, "no"),
        ((4).to_bytes(8, "little") + b"null", "no generator"),
        ((2).to_bytes(8, "little") + b"{}", "no generator"),
        ((40_000).to_bytes(8, "little") + b"[" * 40_000, "no generator"),
    ):
        other.write_bytes(content)
        with pytest.raises(ValueError, match=words):
            generator_header.read(other)


def test_fingerprints_tell_images_and_names_apart(tmp_path: Path) -> None:
    make(tmp_path, 0)
    with ImageSet(tmp_path / "images.h5") as source:
        some, all_of_them = (fingerprints.of_rows(source, np.arange(count)) for count in (5, 40))
        assert some.images.shape == (5, 8) and fingerprints.contained(some.images, all_of_them.images).all()
        assert fingerprints.contained(all_of_them.groups, some.groups).sum() == 5
        source.attrs["grouped_by"] = ""
        assert fingerprints.of_rows(source, np.arange(5)).groups.shape == (0, 8)
    assert some.joined(all_of_them).images.tolist() == all_of_them.images.tolist()
    assert not fingerprints.contained(fingerprints.of_names(["a"]), fingerprints.of_names(["b"]))[0]


def test_validation_images_may_have_been_selected_on_and_not_fitted_on(tmp_path: Path) -> None:
    make(tmp_path, 0)
    with ImageSet(tmp_path / "images.h5") as source:
        record = source.access_record()
        record.record("select", [0, 8])
        made = replace(generator_file.read(trained(tmp_path)), access_record=record)
        from_elsewhere.check_roles(made, source, tmp_path / "folds.csv", 0)
        record.record("fit", [8])
        with pytest.raises(UserError, match="1 group that may not be trained on in fold 0 here: im8"):
            from_elsewhere.check_roles(made, source, tmp_path / "folds.csv", 0)
