"""The benchmark of GPUs on a CPU, with tiny networks: every part runs and writes what it has measured."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import edm2_peer, generator_data, gpu, gpu_bench, gpu_peers, gpu_quality, peers
from benchmarks.gpu_bench import CHANNELS, Row
from workflow_scripts.lib.generate import generator_checks

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)


def test_every_part_measures_and_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.gpu_quality, "VARIANTS", {"as it is": {}})
    guided = {"auto": gpu.gpu_quality.GUIDED["autoguidance 2 by the snapshot at a quarter"]}
    monkeypatch.setattr(gpu.gpu_quality, "GUIDED", guided)
    out = tmp_path / "gpu"
    line = ["--out", str(out), "--device", "cpu", "--threads", "1", "--minutes", "0.002", "--variant-minutes", "0.0005"]
    line += ["--peer-minutes", "0.0005"]
    assert gpu.main([*line, "--only", ",".join(gpu.ALL)]) == 0
    with (out / "gpu.csv").open(encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["part"] for row in rows} == {"product", *gpu.ALL}
    assert all(np.isfinite(float(row["value"])) for row in rows if "frechet" not in row["name"])
    aims = [row for row in rows if row["aim"]]
    assert len(aims) >= 8 and {row["holds"] for row in aims} <= {"yes", "no"}
    operations = [float(row["value"]) for row in rows if row["name"].endswith("operations of a step")]
    assert all(100 < count < 500 for count in operations)
    assert "| train | large: fraction of the product rate |" in (out / "gpu.md").read_text(encoding="utf-8")
    sheet = np.asarray(Image.open(out / "generated.png"))
    assert sheet.ndim == 3 and sheet.any()
    said = capsys.readouterr().out
    assert "quality: done in" in said and "FAILED" not in said


@pytest.mark.parametrize("name", gpu_quality.VARIANTS)
def test_every_variant_is_one_that_can_be_trained(name):
    settings = generator_data.generator_settings("unet", gpu_quality.VARIANTS[name])
    assert generator_checks.generator_problem(settings, 64, list(CHANNELS)) is None


def test_a_peer_is_scaled_to_the_weights_of_the_network(tmp_path):
    cells = gpu_bench.simulated(12, 16, 1, 1)
    bench = gpu_bench.open_bench(torch.device("cpu"), gpu_bench.TOY, cells, tmp_path, 1)
    widest = peers.of_equal_size(
        lambda widths: edm2_peer.edm2(4, 3, 16, torch.device("cpu"), widths, 1), [32, 32], 2_000_000
    )
    assert peers.weights_of(widest.network) == pytest.approx(2_000_000, rel=0.3)
    [peer] = [one for one in gpu_peers.ready(bench) if one.name == "edm2"]
    assert peer.dtype == bench.dtype


def test_a_part_that_fails_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu.gpu_speed, "classify", lambda bench: 1 / 0)
    line = ["--out", str(tmp_path), "--device", "cpu", "--threads", "1", "--only", "classify,sample"]
    assert gpu.main(line) == 1
    said = capsys.readouterr()
    assert "classify: FAILED" in said.out and "sample: done" in said.out and "ZeroDivisionError" in said.err
    assert "sample" in (tmp_path / "gpu.csv").read_text(encoding="utf-8")


def test_unknown_parts_are_refused(capsys):
    with pytest.raises(SystemExit):
        gpu.parse_args(["--out", "x", "--only", "train,smple"])
    assert "'smple'" in capsys.readouterr().err


def test_aims_hold_or_do_not():
    assert Row("p", "n", 0.4, "", ">= 0.4").holds() == "yes" and Row("p", "n", 0.39, "", ">= 0.4").holds() == "no"
    assert Row("p", "n", 6.0, "s", "<= 5").holds() == "no" and Row("p", "n", 1.0, "").holds() == ""


def test_cells_are_the_same_for_any_number_of_processes():
    one, two = (gpu_bench.simulated(20, 16, 1, processes) for processes in (1, 2))
    for name in ("images", "labels", "groups"):
        assert np.array_equal(getattr(one, name), getattr(two, name))
    assert one.classes == two.classes


def test_a_folder_of_images_with_its_tables(tmp_path):
    for number, name in enumerate(("b", "a")):
        for channel, place in zip(CHANNELS, range(4), strict=True):
            Image.fromarray(np.full((16, 16), 10 * number + place, np.uint8)).save(tmp_path / f"{name}_{channel}.png")
    (tmp_path / "table.csv").write_text("Id,Target\na,x|y\nb,y\n")
    (tmp_path / "groups.csv").write_text("Id,gene\na,G1\nb,G1\n")
    cells = gpu_bench.folder_of_images(tmp_path, tmp_path / "table.csv", tmp_path / "groups.csv")
    assert cells.images[:, :, 0, 0].tolist() == [[10, 11, 12, 13], [0, 1, 2, 3]]
    assert cells.classes == ["x", "y"] and cells.labels.tolist() == [[1, 1], [0, 1]]
    assert cells.groups.tolist() == ["G1", "G1"]
    alone = gpu_bench.folder_of_images(tmp_path, None, None)
    assert alone.classes == ["cell"] and alone.groups.tolist() == ["a", "b"]
