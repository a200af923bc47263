"""The curve of quality against time: variants are trained, sampled and assessed by the stages themselves."""

from __future__ import annotations

import csv
from pathlib import Path

import yaml

from benchmarks import quality_for_time


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_figures_are_those_of_the_whole_set(tmp_path):
    scores = write(
        tmp_path / "scores.csv", [{"class": name, "auc_generated": auc} for name, auc in (("a", 0.9), ("b", 0.6))]
    )
    measures = [("agreement", "generated", 0.8), ("frechet", "generated", 0.2), ("frechet", "floor", 0.01)]
    measures += [("precision", "generated", 0.7), ("recall", "generated", 0.5), ("recall", "floor", 0.9)]
    rows = [
        {
            "encoder": encoder,
            "scope": scope,
            "measure": measure,
            "contender": contender,
            "value": value if (encoder, scope) == ("the baseline", "all") else -1,
        }
        for encoder in ("the baseline", "another")
        for scope in ("class", "all")
        for measure, contender, value in measures
    ]
    found = quality_for_time.quality(scores, write(tmp_path / "fidelity.csv", rows))
    assert found == {
        "agreement": 0.8, "lowest_auc": 0.6, "low_auc_classes": 1, "frechet": 0.2, "frechet_floor": 0.01,
        "precision": 0.7, "recall": 0.5, "recall_floor": 0.9,
    }  # fmt: skip


def test_steps_and_listed_variants_are_measured(tmp_path):
    listed = tmp_path / "variants.yaml"
    listed.write_text(yaml.safe_dump([{"name": "wide", "generator": {"widths": [96, 192]}}]))
    args = quality_for_time.parse_args(["--steps", "100", "200", "--variants", str(listed)])
    assert [(entry["name"], entry["generator"]) for entry in quality_for_time.variants(args)] == [
        ("100 steps", {"steps": 100}),
        ("200 steps", {"steps": 200}),
        ("wide", {"widths": [96, 192]}),
    ]
