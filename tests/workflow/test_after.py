"""What is done with a finished run: each target from its command line, without training anything again."""

from __future__ import annotations

import shutil

import pytest

from tests.helpers.checkout import Checkout
from tests.helpers.small_run import rows

pytestmark = pytest.mark.workflow


def clean(clone: Checkout) -> None:
    """Show what could go, then delete it; no more is to be made again than before."""
    whole = {path for path in clone.run.rglob("*") if path.is_file()}
    assert "nothing was deleted" in clone.snakemake("clean").stdout
    assert all(path.exists() for path in whole)
    assert "deleted" in clone.snakemake("clean", "--config", "clean=yes").stdout
    gone = {path.relative_to(clone.run).as_posix() for path in whole if not path.exists()}
    assert "repeat0/fold0/synthetic/minimal.h5" in gone and not (clone.run / "simulated" / "train").exists()
    kept = (".safetensors", ".csv", ".json", "predictions.h5", "images.h5")
    assert not any(name.endswith(kept) for name in gone if not name.startswith("progress/"))
    assert clone.planned() == {"all", "report"}, "as before"


def test_what_is_done_with_a_finished_run(clone: Checkout) -> None:
    new = clone.folder / "new"
    new.mkdir()
    for path in sorted((clone.run / "simulated" / "train").glob("*.png"))[:40]:
        shutil.copy(path, new)
    trained = {path: path.stat().st_mtime_ns for path in clone.run.rglob("*.safetensors")}
    clone.snakemake("predict", "--config", "predict={images: new, arm: mix_loss}")
    predicted = rows(clone.run / "predicted" / "new" / "images.csv")
    assert len(predicted) == 10 and {row["in_run"] for row in predicted} == {"1"}
    clone.snakemake("model_package")
    assert (clone.run / "models" / "pool" / "README.md").is_file()
    clone.snakemake("export", "--config", "export={format: ome_tiff, sets: [minimal]}")
    # Three images of each class, in two folds.
    assert len(list((clone.run / "export" / "images").glob("*.ome.tif"))) == 60
    clone.snakemake("crate")
    assert '"CreateAction"' in (clone.run / "ro-crate-metadata.json").read_text(encoding="utf-8")
    shutil.copytree(clone.run, clone.run.with_name("again"), ignore=shutil.ignore_patterns("simulated", "export"))
    clone.snakemake("compare", "--config", "runs=[ci, again]")
    assert "</html>" in (clone.run.parent / "compare" / "ci_again.html").read_text(encoding="utf-8")
    assert trained == {path: path.stat().st_mtime_ns for path in trained}
    assert "Nothing to be done" in clone.snakemake().stdout
    clone.snakemake("gallery")
    assert clone.planned() == {"all", "report"}, "which links to it"
    clean(clone)
