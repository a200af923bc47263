"""The first screen's answer to whether generated images look like real ones, from the figures of fidelity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from workflow_scripts.lib.judge.wording import likeness
from workflow_scripts.lib.judge.wording.likeness import Eye
from workflow_scripts.lib.page.sections import look_section

COUNTS = "images_real,groups_real,images,asked,dimensions,of_dimensions"
HEADER = "encoder,scope,name,measure,contender,value,low,high," + COUNTS + ",too_small"


def eye(generated: float, low: float, name: str = "the power spectrum") -> Eye:
    """An eye that sees degraded images at 10, and real ones from 0 to 1."""
    return Eye(name, generated, low, 0.0, 1.0, 10.0)


@pytest.mark.parametrize(
    ("eyes", "kind", "said"),
    [
        ([eye(0.8, 0.5)], likeness.ALIKE, "look like the real ones: they cannot be told apart by the power spectrum"),
        ([eye(3, 2)], likeness.NEAR, "by the power spectrum they lie 30 % of the way from real images"),
        ([eye(6, 5)], likeness.FAR, "do not look like the real ones: by the power spectrum they lie 60 %"),
        ([eye(12, 9)], likeness.FAR, "they are farther from real images than degraded ones are"),
        ([eye(0.8, 0.5), eye(7, 6, "the features of x")], likeness.FAR, "by the features of x they lie 70 %"),
        ([eye(math.nan, 1)], likeness.UNKNOWN, "too few images"),
        ([], likeness.UNKNOWN, "too few images"),
        ([eye(6, 0.5)], likeness.UNKNOWN, "too few images"),  # far by the estimate, and by nothing else
    ],
)
def test_the_eye_that_tells_them_apart_best_decides(eyes: list[Eye], kind: str, said: str) -> None:
    assert likeness.kind(eyes) == kind
    assert said in likeness.sentence(eyes, "mine")


def test_a_second_encoder_agrees_or_not() -> None:
    same = likeness.second_opinion(eye(3, 2, "a"), eye(2, 1.5, "b"), [])
    assert same.startswith("Both encoders agree by the Fréchet distance: generated images resemble the real ones, but")
    said = likeness.second_opinion(eye(0.8, 0.5, "a"), eye(7, 6, "b"), ["recall"])
    assert "in the features of a, generated images look like" in said and said.endswith("real ones by: recall.")


def figures(path: Path, generated: float, fold: int, too_small: bool = False) -> Path:
    lines = [HEADER]
    for measure in ("spectrum", "links", "frechet", "agreement"):
        # Correlations of channels do not see random phases.
        places = {"generated": generated, "floor": 0.0, "noise": 9.0, "blurred": 8.0, "phase": 0.5}
        places["phase"] = 0.1 if measure == "links" else 6.0
        for contender, value in places.items():
            own = f"{value + fold},{value + fold - 0.4},{value + fold + 0.4}"
            lines.append(f"x,all,all images,{measure},{contender},{own},90,40,90,90,8,8,{too_small}")
    target = path / f"fold{fold}.csv"
    target.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target


def test_eyes_are_means_over_folds_and_scales_are_what_they_see(tmp_path: Path) -> None:
    seen = look_section.eyes([figures(tmp_path, 3.0, fold) for fold in (0, 1)], "the baseline")
    assert [eye.name for eye in seen] == [
        "the power spectrum", "the correlation of channels", "the features of the baseline",
    ]  # fmt: skip
    assert [eye.degraded for eye in seen] == [6.5, 8.5, 6.5]
    assert seen[0].way == pytest.approx(0.5) and seen[0].tells_apart
    assert likeness.kind(seen) == likeness.FAR


def test_too_few_images_say_nothing(tmp_path: Path) -> None:
    assert not look_section.eyes([figures(tmp_path, 3.0, 0, too_small=True)], "the baseline")


def test_each_class_is_shown_before_any_is_shown_twice() -> None:
    labels = np.eye(3, dtype=np.uint8)[[0, 0, 0, 0, 1, 1, 2]]
    rows = look_section._one_a_class(labels, np.arange(7), np.arange(7))
    assert rows.tolist() == [0, 4, 6, 1, 5, 2, 3]


def test_images_of_a_trained_generator_are_looked_at() -> None:
    """New simulated cells, as a perfect generator would make, look real by construction."""
    config = {
        "arms": [{"name": "a", "synthetic_set": "s"}, {"name": "b", "synthetic_set": "u"}, {"name": "c"}],
        "synthetic_sets": [
            {"name": "s", "generator": "simulator"},
            {"name": "t", "generator": "unet"},
            {"name": "u", "generator": "unet"},
        ],
    }
    assert look_section.shown_set(["s", "t", "u"], "b", config) == "u"
    assert look_section.shown_set(["s", "t", "u"], "a", config) == "t"
    assert look_section.shown_set(["s", "t", "u"], "c", config) == "t"
    assert look_section.shown_set(["s"], "a", config) == "s"
