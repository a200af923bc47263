"""Examples of a generator's training steps: which images, how often, and what is drawn beside them."""

import numpy as np
import pytest
import torch
from scipy import stats

from tests.helpers.generating import MINIMAL, UNET, make_data
from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.compute import multiprocess
from workflow_scripts.lib.generate import diffusion
from workflow_scripts.lib.generate.training_examples import BLOCK, Examples, chosen_channels, shown_channels
from workflow_scripts.lib.images.orientation import oriented

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

EDM = diffusion.make_objective("edm")


def test_every_image_once_an_epoch_also_when_a_batch_spans_epochs():
    images = np.zeros((5, 1, 16, 16), dtype=np.uint8)
    examples = Examples(images, np.eye(5, dtype=np.uint8), UNET | {"batch": 3}, seed=1)
    seen = torch.cat([examples.indices(number) for number in range(2)]).flatten().tolist()
    assert len(seen) == 2 * 64 * 3
    for epoch in range(len(seen) // 5):
        assert sorted(seen[5 * epoch : 5 * epoch + 5]) == [0, 1, 2, 3, 4]
    large = Examples(images, np.eye(5, dtype=np.uint8), UNET | {"batch": 12}, seed=1)
    assert all(int(row.bincount(minlength=5).min()) >= 1 for row in large.indices(3))
    assert int(large.indices(0)[0].bincount().min()) >= 2


def test_single_labels_flatten_images_into_pairs():
    labels = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=np.uint8)
    examples = Examples(np.zeros((3, 1, 16, 16), dtype=np.uint8), labels, MINIMAL, seed=1)
    assert examples.rows.tolist() == [0, 0, 2]
    assert examples.labels.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    with pytest.raises(UserError):
        Examples(np.zeros((2, 1, 16, 16), dtype=np.uint8), np.zeros((2, 3)), MINIMAL, seed=1)


def test_balanced_sampling_shows_rare_classes_as_often_as_common_ones():
    labels = np.zeros((100, 2), dtype=np.uint8)
    labels[:95, 0], labels[95:, 1] = 1, 1
    images = np.zeros((100, 1, 16, 16), dtype=np.uint8)
    balanced = Examples(images, labels, UNET | {"label_sampling": "balanced", "batch": 100}, seed=1)
    assert float(balanced.labels[balanced.indices(0)][..., 1].mean()) == pytest.approx(0.5, abs=0.02)
    plain = Examples(images, labels, UNET | {"batch": 100}, seed=1)
    assert float(plain.labels[plain.indices(0)][..., 1].mean()) == pytest.approx(0.05, abs=0.001)


def test_images_are_turned_whole_and_in_all_eight_ways():
    image = torch.arange(2 * 3 * 3, dtype=torch.uint8).view(1, 2, 3, 3)
    out = oriented(image.expand(400, -1, -1, -1), torch.randint(8, (400,)))
    ways = {tuple(one.flatten().tolist()) for one in out}
    assert len(ways) == 8
    # Channels turn together.
    assert all((one[1] - one[0] == 9).all() for one in out)


def test_balanced_sampling_is_a_class_at_random_and_then_a_carrier_at_random():
    rng = np.random.default_rng(0)
    labels = (rng.random((12, 4)) < [0.7, 0.3, 0.2, 0.0]).astype(np.uint8)
    labels[0, 2] = 1
    examples = Examples(
        np.zeros((12, 1, 16, 16), dtype=np.uint8), labels, UNET | {"label_sampling": "balanced", "batch": 500}, seed=1
    )
    carried = labels[:, labels.any(axis=0)]
    none = ~labels.any(axis=1)
    assert 0 < none.sum() < 6, "images of no class are as frequent as in the set"
    expected = np.where(none, 1 / 12, (1 - none.mean()) * (carried / carried.sum(axis=0)).mean(axis=1))
    counts = np.bincount(examples.indices(0).flatten(), minlength=12)
    assert stats.chisquare(counts, BLOCK * 500 * expected).pvalue > 1e-3


def test_answers_of_which_none_is_sure_are_shown_as_often_as_they_are():
    labels = np.array([[1, 0], [0, 1], [0.9, 0.3], [0.4, 0.45], [0.1, 0.0]])
    images, settings = np.zeros((5, 1, 16, 16), dtype=np.uint8), UNET | {"label_sampling": "balanced", "batch": 500}
    counts = np.bincount(Examples(images, labels, settings, seed=1).indices(0).flatten(), minlength=5)
    expected = np.array([0.15, 0.3, 0.15, 0.2, 0.2])  # two in five are faint, the others shared by two classes
    assert stats.chisquare(counts, BLOCK * 500 * expected).pvalue > 1e-3


def test_a_step_is_the_same_whatever_came_before_it(tmp_path):
    images, labels = make_data(tmp_path)
    for settings in (UNET | {"reference_fraction": 0.5}, UNET | {"label_sampling": "balanced"}):
        walked, jumped = (Examples(images, labels, settings, 1) for _ in range(2))
        steps = {step: walked.take(EDM, step) for step in range(BLOCK + 3)}
        for step in (BLOCK + 2, 3, BLOCK - 1):
            for name, value in vars(jumped.take(EDM, step)).items():
                assert value is None or torch.equal(value, getattr(steps[step], name)), name
        assert not torch.equal(steps[0].noise, steps[1].noise) and not torch.equal(steps[0].sigma, steps[1].sigma)
        other = Examples(images, labels, settings, 2).take(EDM, 0)
        assert not torch.equal(other.noise, steps[0].noise)


def test_parts_of_several_processes_make_up_the_batch_of_one(tmp_path, monkeypatch):
    images, labels = make_data(tmp_path)
    settings = UNET | {"reference_fraction": 0.5, "batch": 7}
    columns = np.eye(3)[np.arange(len(images)) % 3]
    whole = Examples(images, labels, settings, 1, columns=columns).take(EDM, 5)
    monkeypatch.setattr(multiprocess, "size", lambda: 3)
    parts = []
    for number in range(3):
        monkeypatch.setattr(multiprocess, "rank", lambda number=number: number)
        parts.append(Examples(images, labels, settings, 1, columns=columns).take(EDM, 5))
    for name, value in vars(whole).items():
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), value), name


def test_noise_levels_of_a_step_are_one_of_each_slice(tmp_path):
    images, labels = make_data(tmp_path)
    sigma = torch.stack([Examples(images, labels, UNET, seed).take(EDM, 0).sigma for seed in range(200)])
    normal = (sigma.log() - diffusion.EDM_CENTRE) / diffusion.EDM_WIDTH
    place = torch.special.ndtr(normal.double()) * 8
    assert torch.equal(place.floor(), torch.arange(8.0).double().expand(200, -1))
    assert stats.kstest((place % 1).flatten().numpy(), "uniform").pvalue > 1e-3


def test_turning_by_a_table_equals_turning(tmp_path):
    images, labels = make_data(tmp_path)
    examples = Examples(images, labels, UNET, 1)
    batch, ways = torch.from_numpy(images), torch.arange(40) % 8
    assert torch.equal(examples.turned(batch, ways), oriented(batch, ways))


def test_given_channels_are_some_but_never_all_and_every_number_as_often():
    shown = shown_channels((60, 100), 4, 0.6, torch.Generator().manual_seed(0))
    counts = torch.bincount(shown.sum(dim=2).flatten(), minlength=5) / 6000
    assert counts[4] == 0
    assert counts[:4].tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2], abs=0.025)
    assert shown.float().mean(dim=(0, 1)).tolist() == pytest.approx([0.3] * 4, abs=0.025)
    assert not shown_channels((50,), 4, 0.0, torch.Generator().manual_seed(0)).any()


def test_chosen_channels_are_given_in_their_fraction_of_the_examples():
    shown = chosen_channels((60, 100), 4, [0, 3], 0.25, torch.Generator().manual_seed(0))
    assert shown[..., 0].float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(shown[..., 0], shown[..., 3]) and not shown[..., 1:3].any()


def test_a_generator_of_the_protein_channel_is_always_given_the_others():
    images = np.zeros((5, 4, 16, 16), dtype=np.uint8)
    settings = UNET | {"reference_fraction": 1, "reference_places": [0, 2, 3]}
    batch = Examples(images, np.eye(5, dtype=np.uint8), settings, seed=1).take(EDM, 0)
    assert batch.shown is not None and batch.shown.tolist() == [[True, False, True, True]] * len(batch.images)


@pytest.mark.parametrize("sampling", ["as_train", "balanced"])
@pytest.mark.parametrize("kind", ["multi_hot", "single"])
def test_images_of_unknown_label_are_shown_without_labels_and_as_often_as_they_are(tmp_path, sampling, kind):
    images, labels = make_data(tmp_path)
    images[:, 0, 0, 0] = np.arange(40)  # so that an image is recognised
    known = np.arange(40) % 4 != 0
    settings = UNET | {"label_sampling": sampling, "labels": kind, "turn_images": False, "label_dropout": 0.3}
    examples = Examples(images, labels, settings, 1, known)
    objective = diffusion.make_objective("edm")
    seen = {True: [], False: []}
    for step in range(150):
        batch = examples.take(objective, step)
        for image, label, dropped in zip(batch.images[:, 0, 0, 0].tolist(), batch.labels, batch.dropped, strict=True):
            seen[bool(known[image])].append((bool(dropped), bool(label.any())))
    assert all(dropped and not labelled for dropped, labelled in seen[False])
    assert np.mean([dropped for dropped, _ in seen[True]]) == pytest.approx(0.3, abs=0.05)
    assert all(labelled for _, labelled in seen[True])
    expected = len(np.flatnonzero(~known)) / len(examples.rows)
    assert len(seen[False]) / 1200 == pytest.approx(expected, abs=0.04)
