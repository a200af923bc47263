"""Make the three pictures of README.md and the docs from a finished run on simulated cells.

    make pictures                                    # from results/demo into docs/pictures/
    python -m docs.pictures.make --run results/ci --config config.yaml presets/ci.yaml --out /tmp/pictures

cells.png:     a real and a generated cell of each class, and the forest plot of the arms
report.png:    the first screen of the run's report, as a browser shows it (needs Chromium or Chrome)
pipeline.svg:  the stages and what they hand on

Cells and forest plot are drawn by the workflow's own code. No one chooses the cells: their order is drawn by the run's
seed. A run on other than simulated cells is refused, because images of others do not belong into this repository.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image, ImageOps
from snakemake.utils import update_config

from workflow_scripts.lib.base import stage
from workflow_scripts.lib.base.seeds import derive
from workflow_scripts.lib.images.image_set import ImageSet
from workflow_scripts.lib.page import arm_figures, figure_style, image_figures, image_strips, run_tables
from workflow_scripts.lib.page.figure_style import GRID, INK, MUTED, PAPER, THEME
from workflow_scripts.lib.split import role_table
from workflow_scripts.lib.split.roles import Role

DPI = 300  # of cells.png: 1,620 pixels, about twice the width at which a page shows it
COLOURS = 200  # of a PNG: its palette
SPARE = 10  # cells of a class that are read, so that one of them is not shown already
SIMULATED = "simulated cells"  # how the source of such an image set begins
CHANNELS = "green: the labelled protein; red: microtubules; blue: nucleus; yellow: endoplasmic reticulum"

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCREEN = (860, 534)  # CSS pixels: the report's column with its margins; 1,290 x 801 pixels of the picture
ZOOM = 1.5
PARAGRAPH = 36  # blank rows of pixels between paragraphs, at least
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--blink-settings=preferredColorScheme=1",
)  # fmt: skip


@dataclass(frozen=True)
class Box:
    """One stage of the pipeline: its place on a grid, what it does, and what it writes."""

    column: int
    row: int
    name: str
    about: str
    makes: str
    colour: str


BOXES = (
    Box(0, 0, "images", "simulated, Atlas, your folder", "simulate_cells, fetch_images", "blue"),
    Box(1, 0, "preprocess_images", "decode, scale, group", "images.h5", "blue"),
    Box(2, 0, "make_folds", "a role for each protein", "folds.csv", "blue"),
    Box(3, 0, "declare_analysis", "before any test score", "declaration.json", "green"),
    Box(0, 1, "train_ddpm", "diffusion on the train part", "generators/", "purple"),
    Box(1, 1, "sample_ddpm", "images by label", "synthetic/{set}.h5", "purple"),
    Box(2, 1, "train_classifier", "one classifier per arm", "predictions.h5", "vermilion"),
    Box(3, 1, "aggregate_metrics", "intervals over proteins", "comparisons.csv", "green"),
    Box(1, 2, "assess_synthetic", "fidelity, copies", "{set}.fidelity.csv", "purple"),
    Box(2, 2, "certify_leaks", "fails on any overlap", "leaks.csv", "green"),
    Box(3, 2, "report", "the verdict and its evidence", "report.html", "green"),
)
# Arrows between neighbours, by the names of the boxes.
ARROWS = (
    ("images", "preprocess_images"), ("preprocess_images", "make_folds"), ("train_ddpm", "sample_ddpm"),
    ("make_folds", "train_classifier"), ("sample_ddpm", "train_classifier"), ("sample_ddpm", "assess_synthetic"),
    ("declare_analysis", "aggregate_metrics"), ("train_classifier", "aggregate_metrics"),
    ("train_classifier", "certify_leaks"), ("aggregate_metrics", "report"), ("certify_leaks", "report"),
)  # fmt: skip
# Size of the drawing in inches, and of its boxes and their distances.
WIDE, HIGH = 8.3, 3.55
BOX, GAP, MARGIN = (1.83, 0.75), (0.26, 0.4), 0.1


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", type=Path, default=Path("results/demo"), help="folder of a finished run")
    p.add_argument("--config", type=Path, nargs="+", default=[Path("config.yaml")], help="its config and presets")
    p.add_argument("--set", default="painted", help="synthetic set whose images are shown")
    p.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    return p.parse_args(argv)


def read_config(paths: list[Path]) -> dict[str, Any]:
    """Merge config files as Snakemake does."""
    config: dict[str, Any] = {}
    for path in paths:
        update_config(config, yaml.safe_load(path.read_text(encoding="utf-8")))
    return config


# ---- cells and forest plot -------------------------------------------------------------------------------------------


def collect_cells(run: Path, name: str, config: dict[str, Any]) -> tuple[list[image_figures.Row], list[str]]:
    """Read some real and generated cells of each class, in the order that the run's seed draws, and the channels."""
    fold = run / "repeat0" / "fold0"
    with ImageSet(run / "images.h5") as real, ImageSet(fold / "synthetic" / f"{name}.h5") as generated:
        if not real.attrs["source"].startswith(SIMULATED):
            raise stage.UserError(f"{run} has images of other origin ({real.attrs['source']}): only simulated cells")
        held = role_table.rows(run / "repeat0" / "folds.csv", 0, real.ids, Role.TEST)
        rng = np.random.default_rng(derive(config["seed"], 0, "panel", name))
        rows = image_figures.collect(real, held, generated, rng, {"per_class": SPARE, "combinations": 0})
        return rows, real.channels


def first_new(images: list[np.ndarray]) -> list[np.ndarray]:
    """Of each class (n, C, H, W) the first cell that no earlier class shows: a cell may have several classes."""
    shown: set[bytes] = set()
    chosen = []
    for candidates in images:
        new = [place for place, image in enumerate(candidates) if image.tobytes() not in shown]
        kept = candidates[(new or [0])[0] :][:1]
        shown.update(image.tobytes() for image in kept)
        chosen.append(kept)
    return chosen


def draw_cells(rows: list[image_figures.Row], channels: list[str]) -> Figure:
    """Draw a strip of real and a strip of generated cells, a column for each class."""
    scale = image_strips.brightest([row.real for row in rows if len(row.real)], len(channels))
    strips = {
        "real cells of proteins that no network has seen": first_new([row.real for row in rows]),
        "generated cells": first_new([row.generated for row in rows]),
    }
    pitch = figure_style.WIDTH / len(rows)
    names, words = 0.27, 0.19
    fig = figure_style.figure(names + 2 * (words + pitch) + 0.36)
    high = fig.get_figheight()
    for column, row in enumerate(rows):
        title = row.title.replace(" ", "\n", 1)
        place = ((column + 0.5) * pitch / figure_style.WIDTH, 1 - (words + names / 2) / high)
        fig.text(*place, title, fontsize=5.8, ha="center", va="center", linespacing=1.05)
    top = 0.0
    for index, (title, images) in enumerate(strips.items()):
        fig.text(0, 1 - (top + 0.13) / high, title, fontweight="bold", va="baseline", fontsize=7.6)
        top += words + (names if index == 0 else 0)
        for column, image in enumerate(images):
            if len(image):
                axes = figure_style.inches(fig, column * pitch + 0.01, top, pitch - 0.02, pitch - 0.02)
                image_strips.show(axes, image_strips.strip(image_strips.compose(image, channels, scale), 1))
        top += pitch
    fig.text(0, 1 - (top + 0.1) / high, CHANNELS, fontsize=5.8, color=MUTED, va="baseline")
    heading = "what each arm changes on unseen proteins"
    fig.text(0, 1 - (top + 0.31) / high, heading, fontweight="bold", va="baseline", fontsize=7.6)
    return fig


def cells_and_arms(run: Path, name: str, config: dict[str, Any]) -> Image.Image:
    """Draw both strips of cells above the forest plot."""
    rows, channels = collect_cells(run, name, config)
    found = run_tables.read(run / "metrics.csv", run / "comparisons.csv", run / "analysis.json")
    with figure_style.style():
        parts = [raster(draw_cells(rows, channels)), raster(arm_figures.draw_forest(found, config))]
    edge = DPI // 12
    out = Image.new("RGB", (parts[0].width + 2 * edge, sum(part.height for part in parts) + 2 * edge), PAPER)
    top = edge
    for part in parts:
        out.paste(part, (edge, top))
        top += part.height
    return out


def raster(fig: Figure) -> Image.Image:
    """Render a figure to pixels."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=DPI)
    return Image.open(buffer).convert("RGB")


# ---- first screen of the report --------------------------------------------------------------------------------------


def first_screen(page: Path) -> Image.Image:
    """Show a page in a browser without a window, and take a picture of its first screen."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        raise stage.UserError(f"no browser found ({', '.join(BROWSERS)}): the picture of the report needs one")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        size = f"--window-size={SCREEN[0]},{SCREEN[1]}"
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", size, f"--force-device-scale-factor={ZOOM}"]
        done = subprocess.run(  # noqa: S603
            [*command, f"--screenshot={shot}", page.resolve().as_uri()], capture_output=True, text=True, timeout=120
        )
        if done.returncode or not shot.exists():
            raise stage.UserError(f"{browser} made no picture of {page}: {done.stderr[-500:]}")
        return framed(Image.open(shot).convert("RGB"))


def framed(picture: Image.Image) -> Image.Image:
    """Cut a picture after the last paragraph that is whole, and draw a thin frame around it."""
    blank = (np.asarray(picture) == picture.getpixel((0, 0))).all(axis=(1, 2))
    # Rows at which so many blank ones end, as between paragraphs.
    ends = [row for row in range(PARAGRAPH, len(blank) + 1) if blank[row - PARAGRAPH : row].all()]
    whole = picture.crop((0, 0, picture.width, ends[-1])) if ends else picture
    return ImageOps.expand(whole, border=2, fill=GRID)


# ---- pipeline --------------------------------------------------------------------------------------------------------


def corner(box: Box) -> tuple[float, float]:
    """Left and top edge of a box in inches; the drawing counts downwards."""
    return MARGIN + box.column * (BOX[0] + GAP[0]), MARGIN + box.row * (BOX[1] + GAP[1])


def draw_pipeline() -> Figure:
    """Draw the stages as boxes, with arrows for what they hand on."""
    fig = Figure(figsize=(WIDE, HIGH), facecolor=PAPER)
    axes = fig.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDE)
    axes.set_ylim(HIGH, 0)
    axes.axis("off")
    for box in BOXES:
        left, top = corner(box)
        colour, middle = THEME[box.colour][0], left + BOX[0] / 2
        axes.add_patch(
            FancyBboxPatch((left, top), *BOX, boxstyle="round,pad=0,rounding_size=0.07", fc=PAPER, ec=colour)
        )
        axes.text(middle, top + 0.17, box.name, ha="center", va="center", weight="bold", color=colour, fontsize=9.6)
        axes.text(middle, top + 0.38, box.about, ha="center", va="center", color=INK, fontsize=8.2)
        axes.text(middle, top + 0.58, box.makes, ha="center", va="center", color=MUTED, fontsize=7.6)
    places = {box.name: corner(box) for box in BOXES}
    for start, end in ARROWS:
        (x, y), (to_x, to_y) = places[start], places[end]
        if y == to_y:
            route(axes, [(x + BOX[0], y + BOX[1] / 2), (to_x, y + BOX[1] / 2)])
        else:
            route(axes, [(x + BOX[0] / 2, y + BOX[1]), (x + BOX[0] / 2, to_y)])
    # Two longer ways: the folds to the generators, and fidelity to the report.
    (x, y), (to_x, to_y) = places["make_folds"], places["train_ddpm"]
    middle = to_y - GAP[1] / 2
    route(axes, [(x + 0.5, y + BOX[1]), (x + 0.5, middle), (to_x + BOX[0] / 2, middle), (to_x + BOX[0] / 2, to_y)])
    (x, y), (to_x, _) = places["assess_synthetic"], places["report"]
    below = y + BOX[1] + 0.22
    ends = x + BOX[0] / 2, to_x + BOX[0] / 2
    route(axes, [(ends[0], y + BOX[1]), (ends[0], below), (ends[1], below), (ends[1], y + BOX[1])])
    return fig


def route(axes: Axes, points: list[tuple[float, float]]) -> None:
    """Draw a line through points with an arrow at its end."""
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, color=MUTED, lw=1.1, solid_joinstyle="round")
    arrow = {"arrowstyle": "-|>,head_width=0.22,head_length=0.4", "color": MUTED, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=points[-1], xytext=points[-2], arrowprops=arrow)


def save_png(picture: Image.Image, path: Path) -> None:
    """Write a picture with a palette, which makes it several times smaller."""
    picture.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def main(argv: list[str] | None = None) -> int:
    """Make the pictures and print their sizes."""
    args = parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        if not (args.run / "report.html").exists():
            raise stage.UserError(f"{args.run} holds no finished run: call `make demo` first, or name another by --run")
        config = read_config(args.config)
        save_png(cells_and_arms(args.run, args.set, config), args.out / "cells.png")
        save_png(first_screen(args.run / "report.html"), args.out / "report.png")
    except (stage.UserError, FileNotFoundError) as problem:
        print(f"pictures: {problem}", file=sys.stderr)
        return 1
    # Letters as outlines look alike everywhere.
    with matplotlib.rc_context(figure_style.STYLE | {"svg.fonttype": "path"}):
        draw_pipeline().savefig(args.out / "pipeline.svg", metadata=figure_style.METADATA["svg"])
    for name in ("cells.png", "report.png", "pipeline.svg"):
        print(f"{args.out / name}: {(args.out / name).stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
