"""A finished run in miniature, made of random numbers in seconds: every file that the figures and the page read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.shared import once
from workflow_scripts import (
    aggregate_metrics,
    declare_analysis,
    plot_arms,
    plot_data,
    plot_images,
    plot_training,
    report,
)
from workflow_scripts.lib.fidelity import distances
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.page import run_files
from workflow_scripts.lib.page.sections import fidelity_section
from workflow_scripts.lib.scores.prediction_file import Predictions, Scored, write_predictions
from workflow_scripts.lib.split import role_table

TEMPLATE = Path(report.__file__).parent / "lib" / "page" / "report.html"
CHANNELS = ["red", "green", "blue", "yellow"]
CLASSES = ["Nucleoplasm", "Golgi & <script>alert(1)</script>", 'Quote " $x_1$ = NA', "Rare"]
PREVALENCE = [0.55, 0.35, 0.25, 0.01]
# name, control, how much better than the baseline its logits are
ARMS = [
    ("real_only", None, 0.0),
    ("pool", "resample_real", 0.9),
    ("mix_loss", "mix_loss_real", -0.5),
    ("synthetic_only", None, -0.9),
    ("resample_real", None, 0.2),
    ("mix_loss_real", None, 0.05),
]
SET_OF = {"pool": "as_train", "resample_real": "as_train", "mix_loss": "balanced", "synthetic_only": "balanced"}
HARD = 1.0  # how hard the task is: spread of the logits
SYNTHETIC_SETS = ["as_train", "balanced"]
ANALYSIS = {
    "primary_arm": "pool",
    "metric": "macro_f1",
    "level": "image",
    "baseline": "real_only",
    "family": "all",
    "smallest_effect": 0.02,
    "confidence": 0.95,
    "draws": 200,
    "threshold_rule": "calibrated",
    "minimum_calibration_groups": 10,
    "minimum_positive_groups": 5,
    "refit_thresholds": True,
}
CONFIG = {
    "run": "tiny",
    "data": {"source": "simulated"},
    "note": "<img src=x onerror=alert(2)>",
    "make_folds": {"folds": 2, "repeats": 1},
    "analysis": {"minimum_positive_groups": 5},
    "train_classifier": {"ratio": 0.5},
    "synthetic_sets": [
        {"name": synthetic_set, "generator": "unet", "labels": synthetic_set} for synthetic_set in SYNTHETIC_SETS
    ],
    "arms": [
        {"name": name, "method": name, "control": control} | ({"synthetic_set": SET_OF[name]} if name in SET_OF else {})
        for name, control, _ in ARMS
    ],
}


class FakeRun:
    """Paths of the run's files below one folder, as the workflow lays them.

    With `copy_of`, the files are those in the folder of another run of the same size."""

    def __init__(self, folder: Path, groups: int = 120, size: int = 16, copy_of: Path | None = None) -> None:
        self.folder, self.size = folder, size
        rng = np.random.default_rng(5)
        self.ids = np.array([f"cell{index:04d}" for index in range(groups * 3)])
        self.groups = np.array([f"GENE{index // 3:03d}" for index in range(groups * 3)])
        self.labels = np.repeat((rng.random((groups, len(CLASSES))) < PREVALENCE).astype(np.uint8), 3, axis=0)
        self.labels[self.labels.sum(axis=1) == 0, 0] = 1
        self.arms = [self.path(f"repeat0/fold{fold}/arms/job0.json") for fold in range(2)]
        self.roles = self._roles(groups)
        if copy_of is not None:
            shutil.copytree(copy_of, folder, dirs_exist_ok=True)
            return
        self._images(rng)
        role_table.write(self.path("repeat0/folds.csv"), self.ids, self.groups, self.roles)
        self._arms(rng)
        self._tables()
        self._around()

    def path(self, name: str) -> Path:
        """A file of the run."""
        return self.folder / name

    def _images(self, rng: np.random.Generator) -> None:
        pairs = {"least": 0.95, "pairs": 1, "examples": [["cell0001", "<u>cell0005</u>", 0.97]]}
        attrs = {"source": "<b>made</b> by a test", "licence": "none", "credit": "nobody"}
        attrs |= {"duplicates": json.dumps(pairs), "grouped_by": "gene, antibody"}
        attrs |= {
            "label_map": json.dumps({"Rare": ["Rods & <rings>"]}),
            "notes": json.dumps(["two rows were <merged>"]),
        }
        shape = (len(CHANNELS), self.size, self.size)
        noise = rng.integers(0, 255, (len(self.ids), *shape), dtype=np.uint8)
        with write_images(self.path("images.h5"), CHANNELS, CLASSES, self.size, attrs) as writer:
            writer.append(
                noise, self.labels, self.ids, self.groups, {"cell_line": ["A", "B", "C"] * (len(self.ids) // 3)}
            )
        for fold in range(2):
            for synthetic_set in SYNTHETIC_SETS:
                target = self.path(f"repeat0/fold{fold}/synthetic/{synthetic_set}.h5")
                names = [f"syn-{index:05d}" for index in range(60)]
                with write_images(target, CHANNELS, CLASSES, self.size, attrs) as writer:
                    writer.append(noise[:60], self.labels[:60], names, ["synthetic"] * 60)
                self._assessed(fold, synthetic_set)

    def _assessed(self, fold: int, synthetic_set: str) -> None:
        beside = self.path(f"repeat0/fold{fold}/synthetic")
        names = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in CLASSES]
        table = "class,images_real,images_generated,prevalence_real,prevalence_generated,ap_real,ap_generated\n"
        table += "\n".join(f"{name},40,15,0.3,0.25,0.8,0.6" for name in names)
        (beside / f"{synthetic_set}.assess.csv").write_text(table + "\n")
        lines = [
            "encoder,scope,name,images_real,groups_real,images,asked,too_small,dimensions,of_dimensions,measure,"
            "contender,value,low,high"
        ]
        scopes = [("all", "all images", False), *(("class", name, name == names[-1]) for name in names)]
        for scope, name, small in scopes:
            for measure in (*distances.MEASURES, *fidelity_section.FURTHER):
                for place, contender in enumerate(fidelity_section.CONTENDERS):
                    # The last class has too few images to compute anything.
                    figures = ",," if small else f"{fold + place},{fold + place - 0.5},{fold + place + 0.5}"
                    lines.append(
                        f"x,{scope},{name},90,40,{15 * fold + 15},15,{small},8,128,{measure},{contender},{figures}"
                    )
        (beside / f"{synthetic_set}.fidelity.csv").write_text("\n".join(lines) + "\n")
        about = {
            "encoder": {"name": "the <i>baseline</i>", "kind": "baseline", "overlap": "none with held-out images"},
            "judge": "independent", "knows_train": True, "reference_channels": [], "start_noise": None,
            "shares_labels": synthetic_set == "as_train",
            "settings": {"images": 1000, "draws": 40, "confidence": 0.95, "smallest": {"images": 50, "groups": 10}},
        }  # fmt: skip
        (beside / f"{synthetic_set}.assess.json").write_text(json.dumps(about))
        pairs = ["space,rank,generated,train,turn,distance,between_train,ratio,authentic"]
        pairs += [
            f"{space},{rank + 1},syn-{rank:05d},cell{rank:04d},{rank % 8},0,0.1,{rank},{rank > 1}"
            for space in ("pixels", "features")
            for rank in range(7)
        ]
        (beside / f"{synthetic_set}.closest.csv").write_text("\n".join(pairs) + "\n")

    def _roles(self, groups: int) -> np.ndarray:
        part = (np.arange(groups) * 7 % 10).repeat(3)
        roles = np.full((len(self.ids), 2), "train", dtype=object)
        for fold in range(2):
            for role, digits in (("test", (0, 1, 2)), ("validation", (6, 7)), ("calibration", (8, 9))):
                roles[np.isin((part - 3 * fold) % 10, digits), fold] = role
        return roles

    def _arms(self, rng: np.random.Generator) -> None:
        hard = rng.normal(0, HARD, self.labels.shape)
        for fold in range(2):
            folder, entries = self.path(f"repeat0/fold{fold}/arms"), []
            for name, _, gain in ARMS:
                logits = (2.0 * self.labels - 1) * (1.0 + gain) + hard + rng.normal(0, 0.4, hard.shape) - 0.5
                parts = {}
                for part in ("test", "validation", "calibration"):
                    rows = np.flatnonzero(self.roles[:, fold] == part)
                    parts[part] = Scored(self.ids[rows], self.groups[rows], self.labels[rows], logits[rows])
                steps = np.arange(10, 110, 10)
                history = {
                    "step": steps,
                    "loss": np.exp(-steps / 60) + 0.1 * rng.random(10),
                    "validation_map": 0.6 - 0.4 * np.exp(-steps / 30) + 0.05 * gain,
                    "validation_macro_f1": 0.5 - 0.4 * np.exp(-steps / 40) + 0.05 * gain,
                }
                numbers = {"seconds": 12.5, "images_seen": 6400, "synthetic_seen": 1600, "best_step": 90}
                made = Predictions(CLASSES, name, 0, fold, parts, history, numbers=numbers, images="d", digest="x")
                write_predictions(folder / name / "predictions.h5", made)
                entries.append({"arm": name, "predictions": f"{name}/predictions.h5"})
            self.arms[fold].write_text(json.dumps({"arms": entries}))
            history = self.path(f"repeat0/fold{fold}/generators/unet.history.csv")
            history.parent.mkdir(parents=True)
            lines = [f"{step},{step * 32},{1 / (1 + step / 50):.4f},0.001,{step / 9:.2f}" for step in range(1, 400, 2)]
            history.write_text("\n".join(["step,images,loss,learning_rate,seconds", *lines]) + "\n")

    def _tables(self) -> None:
        names = ("metrics", "comparisons", "thresholds", "analysis")
        paths = [self.path(f"{name}.{'json' if name == 'analysis' else 'csv'}") for name in names]
        words = [word for name, path in zip(names, paths, strict=True) for word in (f"--{name}", str(path))]
        settings = json.dumps(ANALYSIS | {"arms": CONFIG["arms"]})
        declaration = self.path("declaration.json")
        declared = ["--run-folder", str(self.path(".")), "--ledger", str(self.path("declarations.jsonl"))]
        asked = json.dumps(ANALYSIS | {"arms": CONFIG["arms"], "experiment": CONFIG["train_classifier"]})
        assert declare_analysis.main([*declared, "--out", str(declaration), "--settings", asked]) == 0
        status = aggregate_metrics.main(
            [
                "--declaration",
                str(declaration),
                "--arms",
                *map(str, self.arms),
                *words,
                "--images",
                str(self.path("images.h5")),
                "--strata",
                str(self.path("strata.csv")),
                "--seed",
                "1",
                "--settings",
                settings,
                "--log",
                str(self.path("log")),
            ]
        )
        assert status == 0

    def _around(self) -> None:
        lines = ["artefact,repeat,fold,purpose,images,allowed_roles,overlap_images,overlap_groups,status"]
        lines += [f"arm {name},0,{fold},fit,180,train,0,0,clean" for name, _, _ in ARMS for fold in range(2)]
        self.path("leaks.csv").write_text("\n".join(lines) + "\n")
        rows = ["Id,file,kind,reason", "x1,x1_red.png,missing,is missing", "x2,<i>x2.png</i>,truncated,ends early"]
        self.path("left_out.csv").write_text("\n".join(rows) + "\n")
        for stage, seconds in (("train_ddpm", 101.5), ("train_classifier", 80.25), ("simulate_cells", 9.0)):
            file = self.path(f"benchmarks/{stage}/repeat0_fold0.tsv")
            file.parent.mkdir(parents=True)
            file.write_text(f"s\th:m:s\tmax_rss\tmax_vms\n{seconds}\t0:01:41\t812.5\t2000\n")
        self.path("cost.json").write_text(json.dumps(PREDICTION))
        for name, text in LOGS.items():
            self.path(f"logs/{name}.log").parent.mkdir(parents=True, exist_ok=True)
            self.path(f"logs/{name}.log").write_text(text)


PREDICTION = {
    "format_version": 1, "run": "tiny", "machine": "a <machine>, 2 cores", "cores": 2, "gpus": 0, "problem": None,
    "facts": {"images": 360, "classes": 4, "side": 16}, "core_hours": [0.01, 0.02, 0.03], "gpu_hours": [0, 0, 0],
    "unknown": ["assess_synthetic"], "wall_clock": [40.0, 72.0, 110.0], "disk": {"kinds": {"images": 2e6}},
    "stages": [
        {"stage": "train_ddpm", "jobs": 1, "unknown": 0, "gpu": False, "width": 1, "seconds": [50.0, 203.0, 300.0],
         "source": ["2 measured in <earlier>"]},
        {"stage": "assess_synthetic", "jobs": 1, "unknown": 1, "gpu": False, "width": 1, "seconds": [0, 0, 0],
         "source": []},
    ],
    "jobs": [{"stage": "train_ddpm", "name": "repeat0_fold0"}, {"stage": "assess_synthetic", "name": "x"}],
}  # fmt: skip
DAY = "2026-05-01 10:00:00"
LOGS = {
    "make_folds/repeat0": f"{DAY} INFO make_folds, process 7\n{DAY} INFO done in 1.0 s\n",
    "train_ddpm/repeat0_fold0_unet": "".join(
        f"{line}\n"
        for line in (
            f"{DAY} INFO train_ddpm, process 8",
            f"{DAY} ERROR Traceback (most recent call last):",
            "  File x.py",
            "ValueError: <b>odd</b>",
            f"{DAY} INFO train_ddpm, process 9",
            f"{DAY} INFO done in 2 min 05 s",
        )
    ),
}
SETTINGS = {
    "title": "Do generated images help? <script>alert(3)</script>",
    "demonstration": True,
    "demonstration_text": "Small on purpose.",
    "panels": {"per_class": 3, "combinations": 2, "protein_channel": "green"},
}


ARM_FIGURES = ("forest", "classes", "gap", "worth", "usefulness", "sweeps", "map", "ranks")
DATA_FIGURES = ("classes", "cooccurrence", "groups", "intensity", "histograms", "samples")


def draw_data(run: FakeRun) -> int:
    """Run plot_data; its exit status."""
    words = ["--images", str(run.path("images.h5")), "--folds", f"0={run.path('repeat0/folds.csv')}"]
    words += [word for name in DATA_FIGURES for word in (f"--{name}", str(run.path(f"figures/data_{name}.svg")))]
    settings = {"per_class": 6, "protein_channel": "green", "minimum_positive_groups": 5, "intensity_column": None}
    words += ["--table", str(run.path("intensity.csv")), "--settings", json.dumps(settings)]
    return plot_data.main([*words, "--log", str(run.path("log"))])


def fidelity_tables(run: FakeRun) -> list[str]:
    """Values of the flag --fidelity."""
    places = [(synthetic_set, fold) for synthetic_set in SYNTHETIC_SETS for fold in range(2)]
    return [
        f"{synthetic_set}/0/{fold}={run.path(f'repeat0/fold{fold}/synthetic/{synthetic_set}.fidelity.csv')}"
        for synthetic_set, fold in places
    ]


def drawn(factory: pytest.TempPathFactory) -> FakeRun:
    """A run with all its figures, in a folder of its own; they are drawn once in a session of tests."""

    def draw(folder: Path) -> None:
        folder.mkdir()
        assert set(draw_figures(FakeRun(folder)).values()) == {0}

    return FakeRun(factory.mktemp("run"), copy_of=once(factory, "drawn_run", draw))


def stub_figures(run: FakeRun) -> None:
    """Empty figures and no statistics of pixel values, for tests of the page's other parts."""
    figures = run.path("figures")
    figures.mkdir()
    panels = [
        f"{kind}_repeat0_fold{fold}_{synthetic_set}"
        for kind in ("images", "closest")
        for synthetic_set in SYNTHETIC_SETS
        for fold in range(2)
    ]
    for name in (*run_files.FIGURES.values(), *panels):
        (figures / f"{name}.svg").write_text('<svg viewBox="0 0 1 1"></svg>')
    run.path("intensity.csv").write_text("channel,mean,deviation,p1,p50,p99,black,saturated\n")


def draw_arms(run: FakeRun) -> int:
    """Run plot_arms; its exit status."""
    words = []
    for name in ("metrics.csv", "comparisons.csv", "analysis.json"):
        words += [f"--{name.split('.')[0]}", str(run.path(name))]
    words += [word for name in ARM_FIGURES for word in (f"--{name}", str(run.path(f"figures/arms_{name}.svg")))]
    words += ["--fidelity", *fidelity_tables(run), "--settings", json.dumps(CONFIG)]
    return plot_arms.main([*words, "--log", str(run.path("log"))])


def draw_figures(run: FakeRun) -> dict[str, int]:
    """Run the plotting programs; their exit statuses."""
    log = ["--log", str(run.path("log"))]
    status = {"plot_data": draw_data(run), "plot_arms": draw_arms(run)}
    histories = [f"unet/0/{fold}={run.path(f'repeat0/fold{fold}/generators/unet.history.csv')}" for fold in range(2)]
    controls = json.dumps({"controls": {name: control for name, control, _ in ARMS if control}})
    words = ["--histories", *histories, "--arms", *map(str, run.arms), "--table", str(run.path("training.csv"))]
    words += ["--generators", str(run.path("figures/training_generators.svg"))]
    words += ["--classifiers", str(run.path("figures/training_classifiers.svg"))]
    status["plot_training"] = plot_training.main([*words, "--settings", controls, *log])
    for fold in range(2):
        for synthetic_set in SYNTHETIC_SETS:
            words = ["--images", str(run.path("images.h5")), "--folds", str(run.path("repeat0/folds.csv"))]
            words += [
                "--fold",
                str(fold),
                "--synthetic",
                str(run.path(f"repeat0/fold{fold}/synthetic/{synthetic_set}.h5")),
            ]
            words += [
                "--closest",
                str(run.path(f"repeat0/fold{fold}/synthetic/{synthetic_set}.closest.csv")),
                "--seed",
                "1",
            ]
            words += ["--out", str(run.path(f"figures/images_repeat0_fold{fold}_{synthetic_set}.svg"))]
            words += ["--pairs", str(run.path(f"figures/closest_repeat0_fold{fold}_{synthetic_set}.svg"))]
            words += ["--settings", json.dumps(SETTINGS["panels"]), *log]
            status[f"plot_images {synthetic_set} {fold}"] = plot_images.main(words)
    return status


def write_report(run: FakeRun, settings: dict | None = None, more: tuple[str, ...] = ()) -> int:
    """Run the report program, with `more` words; its exit status."""
    words = ["--run-dir", str(run.path(".")), "--repeats", "1", "--folds", "2", "--sets", *SYNTHETIC_SETS]
    words += ["--lockbox-ledger", str(run.path("lockbox_openings.jsonl")), *more, "--template", str(TEMPLATE)]
    words += ["--out", str(run.path("report.html")), "--tables", str(run.path("tables"))]
    given = {"report": settings or SETTINGS, "config": CONFIG}
    return report.main([*words, "--settings", json.dumps(given), "--log", str(run.path("log"))])
