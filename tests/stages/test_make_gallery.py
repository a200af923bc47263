"""make_gallery: what the page shows, that it is whole and harmless, and that it works in a browser."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.helpers.html_reader import Reader
from workflow_scripts import make_gallery
from workflow_scripts.lib.images.image_set_writer import write_images
from workflow_scripts.lib.page import gallery_images, sprite_sheets
from workflow_scripts.lib.page.gallery_images import Source
from workflow_scripts.lib.split import role_table

PAGE = Path(make_gallery.__file__).parent / "lib" / "page"
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
FLAGS += [
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
    "--disable-web-security",
]
CHANNELS, SIZE, REAL, MADE = ["dapi", "gfp"], 16, 40, 150
CLASSES = ["Golgi", "</script><script>alert(1)</script>", "Rare & <b>bold</b>"]
SETS = ("plain", "painted")
ROLES = np.array(["train", "train", "validation", "calibration", "test"], dtype=object)


class GalleryRun:
    """A run with two synthetic sets in each of two folds, and the tables of their images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = np.random.default_rng(3)
        self.ids = [f"cell{number:02d}" for number in range(REAL)]
        self.roles = np.stack([ROLES[(np.arange(REAL) + fold) % 5] for fold in range(2)], axis=1)
        self.pixels = rng.integers(0, 200, (REAL, len(CHANNELS), SIZE, SIZE)).astype(np.uint8)
        labels = np.eye(3, dtype=np.uint8)[rng.choice(3, REAL, p=[0.5, 0.4, 0.1])]
        with write_images(folder / "images.h5", CHANNELS, CLASSES, SIZE, {}) as writer:
            writer.append(self.pixels, labels, self.ids, self.ids)
        groups = np.array(self.ids, dtype=object)
        role_table.write(folder / "folds.csv", groups, groups, self.roles)
        for fold in range(2):
            for name in SETS:
                self._synthetic(fold, name, rng)

    def _synthetic(self, fold: int, name: str, rng: np.random.Generator) -> None:
        path = self.path(fold, name)
        made = rng.integers(0, 255, (MADE, len(CHANNELS), SIZE, SIZE))
        labels = np.eye(3, dtype=np.uint8)[np.arange(MADE) % 3]
        train = [self.ids[row] for row in np.flatnonzero(self.roles[:, fold] == "train")]
        names = [f"syn-{number:03d}" for number in range(MADE)]
        more = {"reference": [train[-1]] * MADE} if name == "painted" else {}
        with write_images(path, CHANNELS, CLASSES, SIZE, {}) as writer:
            writer.append(made, labels, names, ["synthetic"] * MADE, more)
        table = {
            "generated": names, "agreement_baseline": np.linspace(0, 1, MADE), "agreement_judge": 0.5,
            "nearest": [train[number % len(train)] for number in range(MADE)], "turn": np.arange(MADE) % 8,
            "ratio": 1.5, "authentic": np.arange(MADE) != 4,
        }  # fmt: skip
        pd.DataFrame(table).to_csv(path.with_suffix(".images.csv"), index=False)

    def path(self, fold: int, name: str) -> Path:
        """The file of a synthetic set."""
        return self.folder / f"fold{fold}" / f"{name}.h5"

    def sources(self) -> list[Source]:
        """All synthetic sets."""
        paths = [(name, fold, self.path(fold, name)) for name in SETS for fold in range(2)]
        return [Source(name, 0, fold, path, path.with_suffix(".images.csv")) for name, fold, path in paths]

    def make(self, **given: float) -> int:
        """Run the stage; its exit status."""
        settings = {"run": "small", "images": 10_000, "size": 64, "megabytes": 10} | given
        words = ["--images", str(self.folder / "images.h5"), "--folds", f"0={self.folder / 'folds.csv'}", "--seed", "1"]
        for flag, ending in (("--synthetic", ".h5"), ("--each", ".images.csv")):
            words += [flag, *(f"{s.synthetic_set}/0/{s.fold}={s.path.with_suffix(ending)}" for s in self.sources())]
        words += ["--template", str(PAGE / "gallery.html"), "--script", str(PAGE / "gallery.js")]
        words += ["--out", str(self.folder / "index.html"), "--settings", json.dumps(settings)]
        return make_gallery.main([*words, "--log", str(self.folder / "log")])

    @property
    def text(self) -> str:
        """The page."""
        return (self.folder / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> GalleryRun:
    made = GalleryRun(tmp_path_factory.mktemp("gallery"))
    assert made.make() == 0
    return made


def told(text: str) -> dict:
    """The data of a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_real_images_are_of_train_parts_and_stand_beside_generated_ones(run: GalleryRun) -> None:
    data = told(run.text)
    assert data["generated"] == 4 * MADE and data["classes"] == CLASSES
    real = data["id"][data["generated"] :]
    train = {name for name, roles in zip(run.ids, run.roles, strict=True) if "train" in roles}
    assert set(real) == train and len(train) < REAL
    for name, places in zip(real, data["in"], strict=True):
        assert places == np.flatnonzero(run.roles[run.ids.index(name)] == "train").tolist()
    for index in range(data["generated"]):
        source = data["sources"][data["source"][index]]
        nearest = data["nearest"][index] - data["generated"]
        assert source["place"] in data["in"][nearest], "trained on in that fold"
        assert (data["reference"][index] is None) == (source["set"] == "plain")


def test_the_pictures_are_those_of_the_images(run: GalleryRun) -> None:
    data = told(run.text)
    index = data["id"].index("cell05")
    for channel in range(len(CHANNELS)):
        place, across = index % data["across"] ** 2, data["across"]
        name = f"sheet-{channel}-{index // across**2}"
        text = re.search(rf'<script type="text/plain" id="{name}">(.*?)</script>', run.text)[1]
        sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("L"))
        top, left = place // across * SIZE, place % across * SIZE
        assert np.array_equal(sheet[top : top + SIZE, left : left + SIZE], run.pixels[5, channel])


def test_names_cannot_leave_the_data_and_no_other_script_may_run(run: GalleryRun) -> None:
    assert not Reader(run.text).open and "<b>" not in run.text
    assert run.text.count("<script") == 2 + sum(1 for _ in re.finditer(r'id="sheet-', run.text))
    script = (PAGE / "gallery.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"<script>{script}</script>" in run.text and f"script-src 'sha256-{digest}'" in run.text
    assert "default-src 'none'" in run.text and not re.search(r"innerHTML|document\.write|eval\(", script)
    assert not re.search(r'(src|href)="(?!data:)', run.text), "loads nothing"


def test_of_too_many_images_an_even_sample_is_shown_and_said(run: GalleryRun) -> None:
    sources, rng = run.sources(), np.random.default_rng(0)
    with gallery_images.ImageSet(run.folder / "images.h5") as real:
        roles = role_table.read_all([(0, run.folder / "folds.csv")], real.ids)
        chosen = gallery_images.choose(real, roles, sources, 60, rng)
    assert len(chosen.made) + len(chosen.real) == 60 and chosen.made_of == 4 * MADE
    counts = chosen.made.groupby(["source", chosen.made["labels"].str[0]]).size()
    assert len(counts) == 12 and counts.max() - counts.min() <= 1
    assert set(chosen.made["nearest"]) <= set(chosen.real["id"])
    again = GalleryRun(run.folder / "again")
    assert again.make(images=60) == 0
    assert f"of {4 * MADE} generated images, drawn by the seed" in again.text


def test_quality_falls_until_the_page_fits_and_what_cannot_fit_is_said() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 2, 32, 32)).astype(np.uint8)
    whole = sprite_sheets.make(noise, 10**7)
    small = sprite_sheets.make(noise, whole.bytes // 3)
    assert whole.quality == sprite_sheets.LOSSLESS > small.quality and small.bytes <= whole.bytes // 3
    with pytest.raises(sprite_sheets.UserError, match=r"gallery\.images"):
        sprite_sheets.make(noise, 1000)


def test_channels_have_the_colours_of_the_config(tmp_path: Path) -> None:
    run = GalleryRun(tmp_path)
    assert run.make(colours={"dapi": "#804000"}) == 0
    data = told(run.text)
    assert [channel["colour"] for channel in data["channels"]] == ["#804000", "green"]
    assert data["colours"]["#804000"] == [128, 64, 0] and data["bar"] == {"fraction": 0.3125, "length": "5 px"}


def test_larger_images_are_averaged_down() -> None:
    images = np.arange(2 * 100 * 100, dtype=np.uint32).reshape(1, 2, 100, 100).astype(np.uint8)
    small = gallery_images.shrunk(images, 64)
    assert small.shape == (1, 2, 50, 50)
    assert small[0, 1, 3, 4] == np.rint(images[0, 1, 6:8, 8:10].mean())
    assert gallery_images.shrunk(images, 128) is images


def test_a_table_of_other_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = GalleryRun(tmp_path)
    table = run.path(1, "plain").with_suffix(".images.csv")
    pd.read_csv(table).iloc[1:].to_csv(table, index=False)
    assert run.make() == 1
    assert "plain.images.csv is no table of the images" in capsys.readouterr().err


PROBE = """<title>?</title><iframe src='index.html' style='width:WIDTHpx;height:844px;border:0'></iframe><script>
const wait = (test) => new Promise((done) => { const look = () => (test() ? done() : setTimeout(look, 20)); look(); });
onload = async () => {
  const page = frames[0].document, frame = frames[0], told = {};
  const press = (key) => page.dispatchEvent(new frame.KeyboardEvent('keydown', { key, bubbles: true }));
  const choose = (name, value) => {
    const box = page.getElementById(name);
    box.value = value;
    box.dispatchEvent(new frame.Event('change'));
  };
  const count = () => page.getElementById('count').textContent;
  const name = () => page.getElementById('detail').hidden ? '' : page.getElementById('name').textContent;
  const middle = (canvas) => [...canvas.getContext('2d').getImageData(0, 0, 16, 16).data.slice(0, 4)];
  const tile = page.querySelector('#real .tile canvas');
  const drawn = () => Math.max(...tile.getContext('2d').getImageData(0, 0, 16, 16).data.slice(0, 3)) > 0;
  await wait(drawn);
  told.width = [page.documentElement.scrollWidth, page.documentElement.clientWidth];
  told.all = count();
  choose('filter-label', 2); told.rare = count();
  choose('filter-label', 0); choose('filter-set', 1); choose('filter-place', 2); told.plain = count();
  choose('filter-baseline', 1); told.agreeing = count();
  choose('filter-baseline', 0); choose('filter-closeness', 1); told.close = count();
  choose('filter-set', 0); choose('filter-place', 0); choose('filter-closeness', 0);
  press('ArrowRight'); told.first = name();
  press('ArrowRight'); told.second = name();
  told.shown = page.querySelectorAll('#large figure').length;
  told.open = [page.documentElement.scrollWidth, page.documentElement.clientWidth];
  const side = () => page.querySelector('#made .tile').offsetWidth;
  told.sides = [side()]; press('+'); press('+'); told.sides.push(side());
  page.getElementById('smaller').click(); press('-'); told.sides.push(side());
  press('ArrowDown'); told.below = name();
  press('PageDown'); told.turned = name();
  press('n'); told.nearest = name();
  press('Escape'); told.closed = name();
  const real = page.querySelector('#real .tile canvas');
  await wait(() => middle(real).some((value, at) => at < 3 && value));
  told.colour = middle(real);
  press('2');
  await wait(() => { const [r, g, b] = middle(real); return r === g && g === b; });
  told.alone = middle(real);
  told.scripts = page.querySelectorAll('b').length;
  document.body.dataset.told = JSON.stringify(told);
};
</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no browser here")
@pytest.mark.parametrize("width", [390, 1400])
def test_it_works_in_a_browser(run: GalleryRun, tmp_path: Path, width: int) -> None:
    shutil.copy(run.folder / "index.html", tmp_path / "index.html")
    (tmp_path / "probe.html").write_text(PROBE.replace("WIDTH", str(width)), encoding="utf-8")
    flags = [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0"]
    command = [BROWSER, *flags, "--window-size=1500,900", "--virtual-time-budget=20000", "--dump-dom"]
    done = subprocess.run([*command, (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=120)
    assert not re.search("CONSOLE.*(index.html|Uncaught|Refused)", done.stderr), done.stderr[-2000:]
    found = json.loads(next(about["data-told"] for tag, about in Reader(done.stdout).tags if tag == "body"))
    real = int((run.roles == "train").any(axis=1).sum())
    assert found["width"] == found["open"] == [width, width]
    assert found["all"] == f"{4 * MADE} generated images, {real} real images"
    assert found["rare"].startswith(f"{4 * MADE // 3} generated images")
    assert found["plain"] == f"{MADE} generated images, {int((run.roles[:, 1] == 'train').sum())} real images"
    assert found["agreeing"] == "1 generated image, 0 real images" == found["close"]
    assert (found["first"], found["second"], found["closed"]) == ("syn-000", "syn-001", "")
    assert found["below"] > found["second"] and found["shown"] == 2
    usual, larger, back = found["sides"]
    assert larger > usual == back
    per_page = 40 if width == 390 else 120
    assert found["turned"] == f"syn-{per_page:03d}"
    train = [run.ids[row] for row in np.flatnonzero(run.roles[:, 0] == "train")]
    assert found["nearest"] == train[per_page % len(train)]
    # The first real image: its channels in their colours, then the second channel alone in grey.
    data = told(run.text)
    first = run.pixels[run.ids.index(data["id"][data["generated"]]), :, 0, 0]
    bright = [min(1.0, value / channel["high"]) for value, channel in zip(first, data["channels"], strict=True)]
    mixed = np.array([data["colours"][channel["colour"]] for channel in data["channels"]]).T @ bright
    assert np.abs(np.array(found["colour"][:3]) - np.clip(mixed, 0, 255)).max() <= 2
    assert abs(found["alone"][0] - 255 * bright[1]) <= 1
    assert found["scripts"] == 0
