"""The simulated cells: reproducible, shaped like the real label table, and with artefacts at the rates asked for."""

import copy
import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from workflow_scripts import simulate_cells
from workflow_scripts.lib.simulate import protein_labels, simulator

K = len(simulator.COMPARTMENTS)
DEFAULT = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text(encoding="utf-8"))["simulate_cells"]


def world(seed=1, cohort=0, **changes):
    """The default world with some settings changed; a mapping changes only the keys that it names."""
    settings = copy.deepcopy(DEFAULT)
    for key, value in changes.items():
        settings[key] = settings[key] | value if isinstance(value, dict) else value
    return simulator.World(settings, seed, cohort)


@pytest.fixture(scope="module", autouse=True)
def labels_once():
    """Labels are assigned once for equal arguments: this takes longer than to draw the cells of most tests."""
    known, assign = {}, protein_labels.assign

    def once(leaders, floor, co_occurrence, rng):
        key = (leaders.tobytes(), floor, co_occurrence, repr(rng.bit_generator.state))
        if key not in known:
            known[key] = assign(leaders, floor, co_occurrence, rng)
        return known[key].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protein_labels, "assign", once)
        yield


def test_same_seed_same_cells_whatever_is_asked_before_or_after():
    first = simulator.cells(world(), range(12))
    other = world(images=100_000)
    simulator.cells(other, [400, 3])
    again = simulator.cells(other, range(8))
    assert np.array_equal(first.images[:8], again.images)
    assert first.truth[:8] == again.truth and first.metadata[:8] == again.metadata
    assert not np.array_equal(first.images, simulator.cells(world(seed=2), range(12)).images)
    assert len(set(first.ids)) == 12 and all(len(name) == 16 and int(name, 16) >= 0 for name in first.ids)


def test_another_cohort_has_other_proteins_on_the_same_cell_lines():
    one, two = world(), world(cohort=1)
    assert not set(simulator.cells(one, range(5)).genes) & set(simulator.cells(two, range(5)).genes)
    assert np.array_equal(one._level("cell_line", 3), two._level("cell_line", 3))
    assert not np.array_equal(one._level("gene", 3), two._level("gene", 3))


@pytest.mark.parametrize("size", [32, 48, 64, 128])
def test_size_changes_the_pixels_but_not_the_cell(size):
    quiet = {"photons": 1e6, "read_noise": 0.0}
    small = simulator.cells(world(optics=quiet), range(4), size=32).images.astype(float)
    large = simulator.cells(world(optics=quiet), range(4), size=size).images
    assert large.shape == (4, 4, size, size) and large.dtype == np.uint8
    if size % 32 == 0:
        shrunk = large.astype(float).reshape(4, 4, 32, size // 32, 32, size // 32).mean((3, 5))
        assert np.abs(shrunk - small).mean() < 4
        assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_long_tail_and_proteins_per_class_at_the_default_size(seed):
    made = world(seed)
    genes = np.array([made.gene_of(index) for index in range(DEFAULT["images"])])
    given = np.array([made.given(gene, 0) for gene in range(made.genes)])[genes]
    images = given.sum(0)
    proteins = np.array([len(set(genes[given[:, k]])) for k in range(K)])
    assert images.max() / images.min() >= 20
    assert made.true.sum(0).min() >= 11 and proteins.min() >= 10
    assert given.any(1).all()
    # Prevalence as in the real table, within a tenth and a protein or two.
    fraction = made.true.mean(0)
    assert np.all(np.abs(fraction - protein_labels.PREVALENCE) < 0.1 * protein_labels.PREVALENCE + 0.004)


def test_labels_occur_together_as_in_the_real_table():
    true = world(genes=4000).true.astype(int)
    fraction = true.mean(0)
    lift = (true.T @ true) / len(true) / np.outer(fraction, fraction)
    wanted = protein_labels.lift_matrix()
    often = np.outer(fraction, fraction) * len(true) > 40
    pairs = np.triu(often, 1)
    assert np.corrcoef(lift[pairs], wanted[pairs])[0, 1] > 0.85
    cardinality = np.bincount(true.sum(1), minlength=5)[1:5] / len(true)
    assert np.abs(cardinality - protein_labels.CARDINALITY).max() < 0.01
    independent = world(genes=4000, labels={"co_occurrence": 0.0}).true.astype(int)
    # Mitochondria and cytosol avoid each other only where the real table is followed.
    assert true[:, 7] @ true[:, 8] < 0.5 * (independent[:, 7] @ independent[:, 8])


def test_hierarchy_of_names():
    made_world = world(genes=560)
    made = [made_world.specimen(index) for index in range(2000)]
    antibodies, plates, genes_of = {}, {}, {}
    for s in made:
        antibodies.setdefault(s.gene, set()).add(s.names["antibody"])
        plates.setdefault(s.names["antibody"], set()).add(s.names["plate"])
        genes_of.setdefault(s.names["antibody"], set()).add(s.gene)
    two = np.mean([len(names) == 2 for names in antibodies.values()])
    assert 0.18 < two < 0.30 and max(map(len, antibodies.values())) == 2
    assert all(len(names) == 1 for names in plates.values())
    shared = [genes for genes in genes_of.values() if len(genes) > 1]
    assert shared and all(len({tuple(made_world.true[gene]) for gene in genes}) == 1 for genes in shared)
    assert np.mean(np.unique([s.gene for s in made], return_counts=True)[1]) == pytest.approx(2000 / 560, abs=0.1)


@pytest.mark.parametrize("level", ["gene", "antibody", "plate", "cell_line", "field", "cell"])
def test_each_level_of_variance_has_its_knob(level):
    nothing = dict.fromkeys(DEFAULT["variance"], 0.0)
    still, moved = world(variance=nothing), world(variance=nothing | {level: 1.0})
    assert set(still.specimen(5).traits.values()) == {0.0}
    assert np.std(list(moved.specimen(5).traits.values())) > 0.05


def small_features(images):
    """(n, features): brightness quantiles, texture power and likeness to the other channels; turn-invariant."""
    x = images.astype(float) / 255
    green = x[:, 1]
    power = np.abs(np.fft.rfft2(green)) ** 2
    radius = np.hypot(np.fft.fftfreq(green.shape[1])[:, None], np.fft.rfftfreq(green.shape[2])[None])
    bands = [np.log(power[:, (radius >= low) & (radius < low + 0.06)].mean(1)) for low in np.arange(0.02, 0.48, 0.06)]
    flat = x.reshape(len(x), 4, -1)
    flat = (flat - flat.mean(2, keepdims=True)) / flat.std(2, keepdims=True)
    likeness = [(flat[:, 1] * flat[:, other]).mean(1) for other in (0, 2, 3)]
    quantiles = np.percentile(green, [10, 50, 75, 90, 97, 99.5], axis=(1, 2))
    return np.stack([*bands, *likeness, *quantiles], 1)


def test_splitting_by_image_leaks_and_by_protein_does_not():
    batch = simulator.cells(world(genes=90), range(540))
    features = StandardScaler().fit_transform(small_features(batch.images))
    genes = np.unique(batch.genes, return_inverse=True)[1]

    def score(train):
        model = KNeighborsClassifier(5, weights="distance").fit(features[train], batch.labels[train].astype(int))
        probability = np.stack([p[:, -1] for p in model.predict_proba(features[~train])], 1)
        return average_precision_score(batch.labels[~train], probability, average="micro")

    rng = np.random.default_rng(0)
    by_image = np.mean([score(rng.random(540) < 0.5) for _ in range(4)])
    by_gene = np.mean([score((rng.random(90) < 0.5)[genes]) for _ in range(4)])
    assert by_image > by_gene + 0.08, (by_image, by_gene)


def test_every_compartment_looks_different_in_the_protein_channel():
    made = world(staining={"faint": 0.0, "off_target": 0.0, "weak": 0.0}, optics={"photons": 1e5, "defocus": 0.0})
    images, classes = [], []
    for k in range(K):
        for index in range(30):
            specimen = made.specimen(30 * k + index)
            specimen.weights = np.eye(K)[k]
            images.append(simulator.draw(specimen, 32))
            classes.append(k)
    features = StandardScaler().fit_transform(small_features(np.stack(images)))
    classes, train = np.array(classes), np.arange(len(classes)) % 3 > 0
    model = LogisticRegression(max_iter=2000).fit(features[train], classes[train])
    right = model.predict(features[~train]) == classes[~train]
    recall = np.array([right[classes[~train] == k].mean() for k in range(K)])
    assert recall.min() >= 0.6 and recall.mean() > 0.85, dict(zip(simulator.COMPARTMENTS, recall, strict=True))


@pytest.mark.parametrize("level", ["gene", "image"])
def test_label_noise_acts_at_the_asked_rate(level):
    made = world(genes=2000, noise={"omission": 0.1, "confusion": 0.08, "level": level})
    true, given = made.true, np.array([made.given(gene, gene) for gene in range(2000)])
    several = true.sum(1) > 1
    lost = (true & ~given)[several].sum() / true[several].sum()
    # A lost or exchanged label is gone; of a pair, only one can be lost.
    assert 0.13 < lost < 0.19
    assert 0.05 < (given & ~true).sum() / true.sum() < 0.09
    wrong = (true != given).any(1)
    rate = [np.mean([w for w, tier in zip(wrong, made.tiers, strict=True) if tier == name]) for name in
            ("Enhanced", "Supported", "Approved", "Uncertain")]  # fmt: skip
    assert rate == sorted(rate) and rate[3] > 4 * rate[0]
    assert np.array_equal(made.given(7, 1), made.given(7, 2)) or level == "image"
    clean = world(noise={"omission": 0.0, "confusion": 0.0})
    assert all(np.array_equal(clean.given(gene, 0), clean.true[gene]) for gene in range(50))


def test_staining_optics_and_shift_at_the_asked_rates():
    made = world(
        staining={"weak": 0.3, "off_target": 0.4, "saturation": 0.2}, optics={"debris": 0.5, "neighbours": 0.0},
        shift={"fraction": 0.25},
    )  # fmt: skip
    rows = [simulator.truth(made, made.specimen(index)) for index in range(1200)]
    for key, rate in (("weak", 0.3), ("saturated", 0.2), ("debris", 0.5), ("neighbour", 0.0), ("shifted", 0.25)):
        assert np.mean([row[key] for row in rows]) == pytest.approx(rate, abs=0.06), key
    assert np.mean([row["off_target"] != "" for row in rows]) == pytest.approx(0.4, abs=0.07)
    for index in range(40):
        specimen = made.specimen(index)
        assert (specimen.names["cell_line"] == "unseen line") == specimen.shifted
    plain, bright = world(shift={"fraction": 0.0}), world(shift={"fraction": 1.0, "intensity": 2.0})
    assert simulator.cells(bright, range(20)).images.mean() > 1.4 * simulator.cells(plain, range(20)).images.mean()
    edges = []
    for fraction in (0.0, 1.0):
        quiet = world(optics={"defocus": fraction, "photons": 1e6, "read_noise": 0.0})
        edges.append(np.abs(np.diff(simulator.cells(quiet, range(20)).images.astype(float))).mean())
    assert edges[1] < 0.85 * edges[0]


def test_bleed_through_weak_stain_noise_and_clipping_show_in_the_pixels():
    def images(count=12, **changes):
        return simulator.cells(world(**changes), range(count)).images.astype(float)

    quiet = {"photons": 1e6, "read_noise": 0.0}
    none, much = (images(optics=quiet, staining={"bleed_through": rate}) for rate in (0.0, 0.3))
    assert np.allclose(none[:, [0, 2]], much[:, [0, 2]], atol=3)
    assert much[:, 1].mean() > 1.2 * none[:, 1].mean()
    strong, weak = (images(optics=quiet, staining={"weak": rate})[:, 1].mean() for rate in (0.0, 1.0))
    assert weak < 0.7 * strong
    assert (images(staining={"saturation": 1.0})[:, 1] == 255).mean() > 3 * (images()[:, 1] == 255).mean()
    calm, grainy = (np.diff(images(optics={"photons": photons})).std() for photons in (1e6, 20))
    assert grainy > 1.3 * calm
    flat, dim = (images(optics=quiet | {"vignetting": loss}).mean() for loss in (0.0, 0.8))
    assert dim < 0.95 * flat


def test_planted_duplicates_are_copies_of_another_proteins_image():
    made = world(plants={"duplicates": 0.3})
    batch = simulator.cells(made, range(100))
    where = {name: row for row, name in enumerate(batch.ids)}
    copies = [row for row in range(100) if batch.truth[row]["duplicate_of"]]
    assert 0.15 < len(copies) / 100 < 0.45
    turned = 0
    for row in copies:
        source = where[batch.truth[row]["duplicate_of"]]
        assert source < row and batch.genes[source] != batch.genes[row]
        assert np.array_equal(batch.labels[source], batch.labels[row])
        assert batch.truth[row]["picture_gene"] == batch.genes[source]
        original, angle = batch.images[source], batch.truth[row]["duplicate_turn"]
        expected = np.rot90(original, int(angle.split()[0]) // 90, (1, 2))
        expected = expected[:, :, ::-1] if "mirrored" in angle else expected
        assert np.array_equal(batch.images[row], expected)
        turned += angle != "0"
    assert turned > len(copies) / 2
    exact = simulator.cells(world(plants={"duplicates": 0.3, "duplicates_turned": False}), range(100))
    assert {row["duplicate_turn"] for row in exact.truth} == {"", "0"}


def test_planted_label_is_readable_from_the_reference_channels():
    plain = simulator.cells(world(), range(100))
    made = simulator.cells(world(plants={"reference_class": "Cytosol", "reference_strength": 1.0}), range(100))
    having = made.true[:, simulator.COMPARTMENTS.index("Cytosol")]
    assert [row["reference_mark"] for row in made.truth] == having.astype(int).tolist()

    def readable(batch):
        return average_precision_score(having, batch.images[:, 3].mean((1, 2)))

    assert readable(made) > 0.9 > readable(plain) + 0.3


def test_planted_class_effect_changes_that_class_alone():
    k = simulator.COMPARTMENTS.index("Nucleoli")
    plain, made = world(), world(plants={"effect_class": "Nucleoli", "effect_diversity": 0.5, "effect_noise": 3.0})
    for index in range(60):
        before, after = plain.specimen(index), made.specimen(index)
        inside = bool(before.true[k])
        assert simulator.truth(made, after)["class_effect"] == int(inside)
        factor = np.array(list(after.traits.values())) / np.array(list(before.traits.values()))
        assert np.median(factor) == pytest.approx(0.5 if inside else 1.0)
        assert after.optics["photons"] == pytest.approx(before.optics["photons"] / (9 if inside else 1))


def run_stage(folder, processes=1, **changes):
    settings = world(genes=30, images=60, **changes).settings
    argv = ["--out", str(folder), "--seed", "5", "--settings", json.dumps(settings), "--log", f"{folder}.log"]
    argv += ["--processes", str(processes)]
    return simulate_cells.main(argv), settings


def test_stage_writes_a_whole_folder_in_the_kaggle_layout(tmp_path):
    status, settings = run_stage(tmp_path / "cells", processes=1)
    assert status == 0
    tables = {}
    for name in ("train", "metadata", "truth", "classes"):
        with (tmp_path / "cells" / f"{name}.csv").open(newline="") as handle:
            tables[name] = list(csv.DictReader(handle))
    ids = [row["Id"] for row in tables["train"]]
    assert len(set(ids)) == 60 and list(tables["train"][0]) == ["Id", "Target"]
    assert ids == [row["Id"] for row in tables["metadata"]] == [row["Id"] for row in tables["truth"]]
    assert [row["name"] for row in tables["classes"]] == list(simulator.COMPARTMENTS)
    assert {p.name for p in (tmp_path / "cells" / "train").iterdir()} == {
        f"{name}_{channel}.png" for name in ids for channel in simulator.CHANNELS
    }
    batch = simulator.cells(simulator.World(settings, 5), range(60))
    for row in (0, 59):
        planes = []
        for channel in simulator.CHANNELS:
            with Image.open(tmp_path / "cells" / "train" / f"{ids[row]}_{channel}.png") as picture:
                assert picture.mode == "L"
                planes.append(np.array(picture))
        assert np.array_equal(np.stack(planes), batch.images[row])
        assert tables["train"][row]["Target"].split() == [str(k) for k in np.flatnonzero(batch.labels[row])]
    summary = json.loads((tmp_path / "cells" / "simulation.json").read_text())
    assert summary["seed"] == 5 and summary["settings"] == settings
    assert [p.name for p in tmp_path.iterdir() if ".part" in p.name] == []


def test_stage_makes_the_same_with_two_processes(tmp_path):
    assert run_stage(tmp_path / "one")[0] == 0 and run_stage(tmp_path / "two", processes=2)[0] == 0
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*.*"))
    assert len(files) > 240
    for name in files:
        if name.name != "simulation.json":
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_stage_refuses_contradictions_in_one_line(tmp_path, capsys):
    status, _ = run_stage(tmp_path / "cells", plants={"effect_class": "Nucleus"})
    assert status != 0 and not (tmp_path / "cells").exists()
    assert "simulate_cells.plants.effect_class is 'Nucleus'" in capsys.readouterr().err
    status, _ = run_stage(tmp_path / "cells", cell_lines_per_gene=9)
    assert status != 0 and "cell_lines_per_gene is 9" in capsys.readouterr().err


def test_fresh_cells_show_what_is_asked_for_and_are_of_new_proteins() -> None:
    rng = np.random.default_rng(3)
    wanted = rng.random((90, len(simulator.COMPARTMENTS))) < 0.2
    wanted[~wanted.any(axis=1), 0] = True
    given = DEFAULT | {"size": 16, "images": 5}
    found, genes, rows = np.zeros_like(wanted), [], []
    for which, batch in simulator.as_asked(given, 1, 12345, wanted):
        found[which] = batch.true
        rows += list(which)
        genes += list(batch.genes)
    assert sorted(rows) == list(range(90)) and np.array_equal(found, wanted)
    assert len(set(genes)) == 90, "each of a protein of its own"
    run = {gene for batch in simulator.simulate(given | {"images": 40, "genes": 20}, 1) for gene in batch.genes}
    assert run.isdisjoint(genes)
