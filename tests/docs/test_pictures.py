"""The pictures of README and docs: what is shown, and that they are made of simulated cells alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs.pictures import make
from tests.helpers import fake_run
from tests.helpers.fake_run import FakeRun
from workflow_scripts.lib.base.stage import UserError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = fake_run.CONFIG | {"seed": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FakeRun:
    return FakeRun(tmp_path_factory.mktemp("run"))


def test_images_of_other_origin_are_refused(run: FakeRun) -> None:
    with pytest.raises(UserError, match="only simulated cells"):
        make.cells_and_arms(run.folder, "as_train", CONFIG)


def test_cells_stand_above_the_forest_plot_without_alpha(run: FakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "SIMULATED", "<b>made</b>")
    picture = make.cells_and_arms(run.folder, "as_train", CONFIG)
    assert picture.mode == "RGB" and 1500 < picture.width < 1800
    ink = (np.asarray(picture) < 128).any(axis=-1).mean(axis=1)
    above, below = ink[: len(ink) // 2].mean(), ink[-len(ink) // 4 :].mean()
    assert above > 3 * below > 0, "strips of cells above, lines and words below"


def test_a_cell_of_two_classes_is_shown_once() -> None:
    a, b = (np.full((1, 2, 2), value, np.uint8) for value in (1, 2))
    chosen = make.first_new([np.stack([a, b]), np.stack([a, b]), np.stack([a]), np.zeros((0, 1, 2, 2), np.uint8)])
    assert [image.max(initial=0) for image in chosen] == [1, 2, 1, 0]
    assert [len(image) for image in chosen] == [1, 1, 1, 0]


def test_a_screen_ends_between_two_paragraphs() -> None:
    page = np.full((200, 20, 3), 255, np.uint8)
    page[5:50, 2:9] = page[100:120, 2:9] = page[130:, 2:9] = 0
    shown = make.framed(Image.fromarray(page))
    assert shown.size == (24, 104), "cut above the last paragraph, and a frame of two pixels"


def test_boxes_are_stages_and_lie_apart() -> None:
    stages = {path.stem for path in (ROOT / "workflow_scripts").glob("*.py")}
    assert {box.name for box in make.BOXES} - stages == {"images"}
    assert {name for arrow in make.ARROWS for name in arrow} <= {box.name for box in make.BOXES}
    assert len({make.corner(box) for box in make.BOXES}) == len(make.BOXES)
    words = make.draw_pipeline()
    for text in words.axes[0].texts[: 3 * len(make.BOXES)]:
        assert text.get_window_extent().width < make.BOX[0] * words.dpi, f"{text.get_text()} is wider than its box"


@pytest.mark.skipif(not any(map(shutil.which, make.BROWSERS)), reason="no browser here")
def test_the_first_screen_is_a_picture_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text("<body style='background:#fff'><h1 style='color:#000'>Generated images help</h1></body>")
    shown = np.asarray(make.first_screen(page))
    assert shown.shape[1] == make.SCREEN[0] * make.ZOOM + 4
    assert (shown[100:-100] < 50).any() or (shown[:200] < 50).any()
