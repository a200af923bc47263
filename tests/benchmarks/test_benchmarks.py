"""The benchmarks of generators, with tiny settings and without the packages that they compare with."""

import importlib
import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import (
    generator_data,
    generator_quality,
    generator_runs,
    generator_speed,
    make_folds,
    peers,
    sampler_distance,
)

TINY = json.dumps({"widths": [16, 16], "blocks": [1, 1], "steps": 4, "batch": 4})
COMMON = ["--settings", TINY, "--size", "16", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def cells():
    return generator_data.simulated(160, 16, 1)


def test_speed_prints_what_is_aimed_at(capsys):
    generator_speed.main(
        [*COMMON, "--cells", "16", "--contestants", "unet", "--batches", "4", "--rounds", "1", "--seconds", "0.01",
         "--samples", "4"]
    )  # fmt: skip
    said = capsys.readouterr().out
    assert (
        "weights:" in said
        and "fraction of the product rate:" in said
        and "matrix product" in said
        and "sampling 1,000 images" in said
    )
    assert "DOES NOT HOLD" in said.split("weights:")[1].splitlines()[0]  # so small a network has too few


def test_splitting_prints_seconds_and_deviation(tmp_path, capsys):
    rows = [f"G{number % 60}_{number % 70}_x,{number % 3} {number % 5}" for number in range(300)]
    (tmp_path / "table.csv").write_text("\n".join(["Id,Target", *rows]))
    make_folds.main([str(tmp_path / "table.csv"), "--groups-from-id"])
    assert "300 images, 10 groups, 5 classes" in capsys.readouterr().out


def test_flops_are_those_of_the_layers(cells):
    bench = generator_speed.Bench(
        cells, generator_data.generator_settings("unet", json.loads(TINY)), torch.device("cpu")
    )
    few, many = bench.flops("unet", batch=2), bench.flops("unet", batch=4)
    # But for what is done once a step, whatever the batch.
    assert few == pytest.approx(many, rel=1e-4)
    # The 3x3 convolution of 5 to 16 channels at the front alone, forward and for its filters' gradient.
    assert few > 2 * 2 * 16 * 16 * 9 * 5 * 16


def test_samplers_are_compared_from_the_same_weights(capsys):
    sampler_distance.main(
        [*COMMON, "--cells", "160", "--reference", "50", "--evaluations", "6", "--count", "24", "--repeats", "2",
         "--samplers", "ddim", "dpmpp_2m", "--encoder-steps", "10"]
    )  # fmt: skip
    said = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in said.splitlines() if line.startswith(("ancestral", "d"))}
    assert set(lines) == {"ancestral", "ddim", "dpmpp_2m"}
    assert float(lines["ancestral"][4]) == 1.0 and all(np.isfinite(float(line[1])) for line in lines.values())


def test_table_tells_a_sampler_that_is_worse(capsys):
    sampler_distance.table({"ancestral": [1.0, 1.2, 0.8], "ddim": [1.0, 1.2, 0.8], "heun": [1.1, 1.3, 0.9]}, 20)
    _, chain, ddim, heun = capsys.readouterr().out.splitlines()
    assert "aim" not in chain and "1.000  0.000" in ddim and ": holds" in ddim
    assert " 1.100 " in heun and "DOES NOT HOLD" in heun


def test_groups_have_one_part(cells):
    parts = generator_data.split(cells, 1)
    assert sorted(np.concatenate(list(parts.values()))) == list(range(len(cells)))
    groups = [set(cells.groups[rows]) for rows in parts.values()]
    assert sum(map(len, groups)) == len(set(cells.groups)) and all(groups)
    fitted = np.isin(cells.groups, list(set(cells.groups))[:5])
    rest = generator_data.split(cells, 1, fitted)
    assert np.array_equal(rest["train"], np.flatnonzero(fitted)) and len(rest["held"]) and len(rest["encoder"])


def test_distance_is_free_of_sample_size_and_sees_a_shift():
    rng = np.random.default_rng(0)
    real, alike = rng.normal(size=(400, 8)), rng.normal(size=(200, 8))
    groups = np.arange(400).astype(str)
    found = generator_runs.distances(real, groups, {"alike": (alike, None), "shifted": (alike + 0.5, None)})
    assert abs(found["alike"].value) < 0.03
    assert found["shifted"].value == pytest.approx(0.25, abs=0.08)  # 8 dimensions of 0.5 squared, a dimension


def test_better_images_have_the_smaller_excess(cells, capsys):
    def encode(images):
        return np.stack([images.mean(axis=(2, 3)), images.std(axis=(2, 3))], axis=2).reshape(len(images), -1)

    parts = generator_data.split(cells, 1)
    train, held = cells.part(parts["train"]), cells.part(parts["held"])
    rng = np.random.default_rng(0)
    sets = {
        "unet": train.images[rng.permutation(len(train))[: len(held)]],
        "other": rng.integers(0, 256, held.images.shape).astype(np.uint8),
    }
    whole, blocks = generator_quality.judge(encode, train, held, sets, 1)
    assert abs(whole["unet"]) < 0.2 * whole["other"]
    ratios = generator_quality.verdicts("unet", whole, blocks, {"unet": "unet", "other": "other"})
    assert ratios["unet to other"] == pytest.approx(whole["unet"] / whole["other"])
    assert ": holds" in capsys.readouterr().out.splitlines()[-1]


def test_contestant_writes_an_image_for_each_combination(cells, tmp_path):
    train, wanted = cells.part(np.arange(40)), cells.labels[:6]
    np.savez(
        tmp_path / "given.npz", images=train.images, labels=train.labels, groups=train.groups, wanted=wanted,
        classes=json.dumps(train.classes),
    )  # fmt: skip
    args = generator_quality.parse_args([*COMMON, "--pace-steps", "1"])
    args.steps = 3
    generator_quality.contestant("unet", tmp_path, args, torch.device("cpu"))
    with np.load(tmp_path / "unet.npz") as found:
        assert found["images"].shape == (2, 6, 4, 16, 16) and found["images"].dtype == np.uint8
        assert json.loads(str(found["facts"]))["steps"] == 3
    args.steps = 0
    generator_quality.contestant("unet", tmp_path, args, torch.device("cpu"))
    with np.load(tmp_path / "unet.npz") as found:
        assert json.loads(str(found["facts"]))["pace"] > 0


def test_unknown_combinations_are_left_out(cells):
    train = cells.part(np.arange(20))
    odd = cells.part(np.arange(3))
    odd.labels[0] = 1
    assert list(generator_quality.usable(train, odd)) == [1, 2]


def test_missing_peer_is_told(monkeypatch):
    def absent(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(SystemExit, match=r"diffusers cannot be imported.*--contestants unet"):
        peers.diffusers(4, 3, 16, torch.device("cpu"))


def test_peer_learns_at_its_rate_and_gives_bytes():
    torch.manual_seed(0)
    network = nn.Linear(1, 1)
    peer = peers.Peer(
        "toy",
        network,
        lambda x, kinds: (network(torch.ones(1, 1)) - x.mean()).square().mean(),
        torch.optim.SGD(network.parameters(), lr=1.0),
        lambda: None,
        lambda kinds, steps, guidance: torch.full((len(kinds), 1, 2, 2), -1.0),
        rate=lambda step, fraction: 1 - fraction,
        learning_rate=0.1,
    )
    images, kinds = torch.full((2, 1, 2, 2), 255, dtype=torch.uint8), torch.zeros(2, dtype=torch.long)
    losses = [float(peer.step(images, kinds)) for _ in range(20)]
    assert losses[-1] < 0.1 * losses[0]
    peer.step(images, kinds, fraction=0.75)
    assert peer.optimiser.param_groups[0]["lr"] == pytest.approx(0.025)
    made = peer.sample(kinds, 5, 1.0)
    assert made.dtype == torch.uint8 and made.shape == (2, 1, 2, 2) and int(made.max()) == 0


def test_combinations_are_classes():
    classes, numbers = peers.combinations(np.array([[1, 0], [1, 1], [1, 0]]))
    assert classes.tolist() == [0, 1, 0] and len(numbers) == 2


def test_contact_sheet_keeps_order(tmp_path):
    from PIL import Image

    images = np.zeros((3, 1, 4, 4), dtype=np.uint8)
    images[1] = 255
    generator_data.contact_sheet(tmp_path / "sheet.png", images, columns=2, scale=1)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (11, 11, 3) and (sheet[1:5, 6:10] == 255).all() and not sheet[1:5, 1:5].any()
