"""Networks: shapes over sizes, channels and classes; what they look at and what they must not."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch

from workflow_scripts.lib.base.errors import UserError
from workflow_scripts.lib.generate import generator_checks, networks, unit_layers
from workflow_scripts.lib.generate.diffusion import Condition
from workflow_scripts.lib.generate.networks import Minimal, UNet
from workflow_scripts.lib.generate.unit_layers import Attention

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)


def condition(n, classes=4):
    labels = torch.zeros(n, classes)
    labels[:, 1] = 1
    return Condition(labels, torch.zeros(n, dtype=torch.bool))


def network(channels=3, classes=4, size=32, dtype=torch.float32):
    torch.manual_seed(0)
    made = UNet(channels, classes, size, [16, 32], [1, 1], dtype)
    # Gains start at zero, so that a fresh network says nothing; here they must let the signal through.
    torch.nn.init.constant_(made.head_gain, 1 / unit_layers.PACE)
    torch.nn.init.constant_(made.modulation.gains, 1 / unit_layers.PACE)
    return made


@pytest.mark.parametrize(
    ("channels", "size", "classes"), [(1, 16, 1), (8, 16, 28), (4, 20, 3), (3, 64, 10), (2, 256, 2)]
)
def test_any_channels_classes_and_sizes(channels, size, classes):
    made = network(channels, classes, size)
    x = torch.randn(2, channels, size, size)
    labels = torch.ones(2, classes)
    out = made(x, torch.zeros(2), Condition(labels, torch.tensor([False, True])))
    assert out.shape == x.shape and out.dtype == torch.float32 and bool(out.isfinite().all())


@pytest.mark.parametrize(("size", "levels"), [(8, 2), (300, 2), (18, 3), (36, 3), (130, 2)])
def test_sizes_that_do_not_suit_are_refused_by_name(size, levels):
    problem = generator_checks.size_problem(size, levels)
    assert problem is not None and str(size) in problem
    with pytest.raises(ValueError, match=str(size)):
        UNet(1, 1, size, [16] * levels, [1] * levels)


def test_a_fresh_network_predicts_zero():
    made = UNet(3, 4, 32, [16, 32], [1, 1])
    assert not made(torch.randn(2, 3, 32, 32), torch.zeros(2), condition(2)).any()


def test_noise_level_labels_and_their_absence_all_matter():
    made = network()
    x = torch.randn(1, 3, 32, 32).expand(2, -1, -1, -1)
    at = torch.zeros(2)
    plain = condition(2)
    none = Condition(torch.zeros(2, 4), plain.dropped)
    dropped = plain.nothing()
    answers = {
        "asked": made(x, at, plain),
        "other level": made(x, at + 1, plain),
        "no label applies": made(x, at, none),
        "nothing said": made(x, at, dropped),
    }
    names = list(answers)
    for number, first in enumerate(names):
        for second in names[number + 1 :]:
            assert float((answers[first] - answers[second]).detach().abs().max()) > 1e-3, (first, second)
    # Where nothing is said, the labels cannot be seen.
    assert torch.equal(answers["nothing said"], made(x, at, Condition(torch.ones(2, 4), dropped.dropped)))


def test_every_label_of_several_counts():
    made = network()
    x = torch.randn(1, 3, 32, 32)
    said = torch.tensor([False])
    both = made(x, torch.zeros(1), Condition(torch.tensor([[1.0, 0, 1, 0]]), said))
    for one in ([1.0, 0, 0, 0], [0, 0, 1.0, 0]):
        assert not torch.allclose(both, made(x, torch.zeros(1), Condition(torch.tensor([one]), said)), atol=1e-3)


def test_images_of_a_batch_do_not_touch_each_other():
    made = network()
    x, at = torch.randn(3, 3, 32, 32), torch.tensor([-1.0, 0.0, 2.0])
    alone = made(x[1:2], at[1:2], condition(1))
    assert torch.allclose(made(x, at, condition(3))[1:2], alone, atol=1e-4)


def giving(dtype=torch.float32):
    torch.manual_seed(0)
    made = UNet(3, 4, 32, [16, 32], [1, 1], dtype, references=True)
    torch.nn.init.constant_(made.head_gain, 1 / unit_layers.PACE)
    return made


def test_given_pixels_and_which_channels_are_given_both_matter():
    made, x, at = giving(), torch.randn(2, 3, 32, 32), torch.zeros(2)
    shown = torch.tensor([[True, False, False]] * 2)
    clean = torch.randn(2, 3, 32, 32) * shown[:, :, None, None]
    asked = {
        "nothing": condition(2),
        "given": replace(condition(2), reference=clean, shown=shown),
        "other pixels": replace(condition(2), reference=-clean, shown=shown),
        # A channel that is given and zero everywhere is not one that is not given.
        "zero": replace(condition(2), reference=0 * clean, shown=shown),
    }
    answers = {name: made(x, at, one).detach() for name, one in asked.items()}
    for first, second in combinations(answers, 2):
        assert float((answers[first] - answers[second]).abs().max()) > 1e-3, (first, second)
    none = replace(condition(2), reference=torch.zeros_like(x), shown=torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(answers["nothing"], made(x, at, none).detach())
    # Images of a batch may be given different channels.
    mixed = replace(none, reference=clean.clone(), shown=shown.clone())
    mixed.reference[1], mixed.shown[1] = 0, False
    rows = made(x, at, mixed).detach()
    assert torch.allclose(rows[0], answers["given"][0], atol=1e-5)
    assert torch.allclose(rows[1], answers["nothing"][1], atol=1e-5)


def test_networks_without_inputs_for_given_channels_refuse_them():
    x = torch.randn(2, 3, 32, 32)
    given = replace(condition(2), reference=x, shown=torch.ones(2, 3, dtype=torch.bool))
    for made in (network(), Minimal(3, 4)):
        with pytest.raises(ValueError, match="reference channels"):
            made(x, torch.zeros(2), given)
    # Nor do they pay for them.
    assert sum(p.numel() for p in giving().parameters()) > sum(p.numel() for p in network().parameters())


def test_conditions_are_joined_and_cut_whole():
    one = replace(condition(3), reference=torch.randn(3, 2, 4, 4), shown=torch.ones(3, 2, dtype=torch.bool))
    both = one.joined(one.nothing())
    assert both.dropped.tolist() == [False] * 3 + [True] * 3 and torch.equal(both.reference[3:], one.reference)
    cut = both.part(slice(2, 4))
    assert (
        torch.equal(cut.reference, both.reference[2:4])
        and cut.dropped.tolist() == [False, True]
        and len(cut.shown) == 2
    )
    assert condition(3).joined(condition(2)).part(slice(0, 4)).reference is None


def test_activations_keep_their_magnitude():
    torch.manual_seed(0)
    made = UNet(4, 10, 32, [32, 48, 64], [2, 2, 2])
    torch.nn.init.constant_(made.head_gain, 1 / unit_layers.PACE)
    out = made(torch.randn(16, 4, 32, 32), torch.zeros(16), condition(16, 10))
    assert 0.3 < float(out.detach().std()) < 3


def test_filters_return_to_their_norm():
    made = network()
    before = made(torch.ones(1, 3, 32, 32), torch.zeros(1), condition(1))
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    # The length of a filter carries no meaning ...
    assert torch.allclose(made(torch.ones(1, 3, 32, 32), torch.zeros(1), condition(1)), before, atol=1e-4)
    made.renormalise()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            norms = parameter.flatten(1).norm(dim=1) / parameter[0].numel() ** 0.5
            assert torch.allclose(norms, torch.ones_like(norms), atol=1e-4)


def test_inputs_added_for_alignment_change_nothing():
    layer = unit_layers.UnitLinear(5, 16, 3)
    x = torch.randn(2, 5, 8, 8)
    padded = torch.cat([x, torch.zeros(2, 3, 8, 8)], dim=1)
    assert torch.allclose(layer(padded), layer(x), atol=1e-5)


def test_normalisation_that_keeps_its_layout_is_torchs():
    x = (torch.randn(3, 32, 6, 4) * 3 + 1).to(memory_format=torch.channels_last)
    for groups in (1, 2):
        out = unit_layers.standardised_channels_last(x, groups)
        assert out.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(out, torch.nn.functional.group_norm(x, groups), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_filters_formed_once_are_those_formed_at_each_call(dtype):
    made = network(dtype=dtype).requires_grad_(False)
    x, at = torch.randn(2, 3, 32, 32), torch.zeros(2)
    before = made(x, at, condition(2))
    made.settle()
    assert torch.equal(made(x, at, condition(2)), before)


def test_low_precision_stays_near():
    exact, fast = network(), network(dtype=torch.bfloat16)
    x = torch.randn(4, 3, 32, 32)
    a, b = exact(x, torch.zeros(4), condition(4)), fast(x, torch.zeros(4), condition(4))
    assert b.dtype == torch.float32
    assert float(((a - b).square().mean() / a.square().mean()).detach()) < 2e-3


def test_the_minimal_network_is_that_of_the_study():
    made = Minimal(4, 28)
    # About 80 thousand parameters and a receptive field of 7 x 7.
    assert 75_000 < sum(p.numel() for p in made.parameters()) < 85_000
    x = torch.zeros(1, 4, 32, 32, requires_grad=True)
    made(x, torch.zeros(1), condition(1, 28))[0, 0, 16, 16].backward()
    rows, columns = x.grad[0].abs().sum(0).nonzero(as_tuple=True)
    assert (int(rows.min()), int(rows.max()), int(columns.min()), int(columns.max())) == (13, 19, 13, 19)


def test_the_minimal_network_does_not_see_the_noise_level():
    made = Minimal(3, 4)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(made(x, torch.zeros(2), condition(2)), made(x, torch.ones(2), condition(2)))
    other = Condition(torch.eye(4)[[0, 0]], torch.zeros(2, dtype=torch.bool))
    assert not torch.allclose(made(x, torch.zeros(2), condition(2)), made(x, torch.zeros(2), other))


def test_the_minimal_network_takes_one_label():
    made = Minimal(3, 4)
    x = torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match="one label"):
        made(x, torch.zeros(2), Condition(torch.ones(2, 4), torch.zeros(2, dtype=torch.bool)))
    with pytest.raises(ValueError, match="one label"):
        made(x, torch.zeros(2), condition(2).nothing())


def test_attention_is_that_of_its_definition():
    torch.manual_seed(2)
    made, x = Attention(128).double(), torch.randn(2, 128, 3, 4, dtype=torch.float64)
    assert made.heads == 2
    parts = torch.einsum("oc,nchw->nohw", made.project.formed()[:, :, 0, 0], x).reshape(2, 3, 2, 64, 12)
    query, key, value = (part / part.square().mean(dim=2, keepdim=True).sqrt() for part in parts.unbind(1))
    weights = (torch.einsum("nhcq,nhck->nhqk", query, key) / 64**0.5).softmax(dim=-1)
    found = torch.einsum("nhqk,nhck->nhcq", weights, value).reshape(2, 128, 3, 4)
    branch = torch.einsum("oc,nchw->nohw", made.merge.formed()[:, :, 0, 0], found)
    expected = branch + (1 - unit_layers.FRACTION) * unit_layers.NORM * x
    assert torch.allclose(made(x), expected, atol=2e-3)


def test_attention_sees_the_whole_image():
    torch.manual_seed(2)
    made, x = Attention(16), torch.randn(1, 16, 4, 4, requires_grad=True)
    made(x)[0, 0, 0, 0].backward()
    assert bool((x.grad[0].abs().sum(dim=0) > 0).all())


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_change_the_layers_and_not_the_shape(patch):
    torch.manual_seed(0)
    made = UNet(3, 4, 32, [16, 32], [1, 1], patch=patch)
    assert made.stem.weight.shape[1] == 3 * patch**2 + 1
    x = torch.randn(2, 3, 32, 32)
    assert made(x, torch.zeros(2), condition(2)).shape == x.shape


def test_patches_must_suit_the_size():
    assert generator_checks.size_problem(36, 2, 2) is None
    assert "patches of 4 px" in generator_checks.size_problem(36, 2, 4)


def test_options_leave_the_first_weights_of_the_rest_as_they_are():
    def weights(**options):
        torch.manual_seed(0)
        return UNet(3, 4, 32, [16, 32], [1, 1], **options).state_dict()

    plain, more = weights(), weights(attention=True, learned_weighting=True)
    assert set(plain) < set(more)
    assert all(torch.equal(value, more[name]) for name, value in plain.items())


@pytest.mark.parametrize("kind", ["unet", "minimal"])
def test_a_network_of_more_classes_takes_labels_by_their_places(kind):
    settings = {"network": kind, "widths": [16], "blocks": [1], "labels": "multi_hot" if kind == "unet" else "single"}
    torch.manual_seed(0)
    whole = networks.make_network(settings, 2, 5, 16, torch.float32)
    placed = settings | {"label_places": {"of": 5, "places": [3, 0]}}
    part = networks.make_network(placed, 2, 2, 16, torch.float32)
    if kind == "unet":
        torch.nn.init.constant_(whole.head_gain, 1 / unit_layers.PACE)
        torch.nn.init.constant_(whole.modulation.gains, 1 / unit_layers.PACE)
    part.load_state_dict(whole.state_dict())  # places are no weights
    x, said = torch.randn(2, 2, 16, 16), torch.zeros(2, dtype=torch.bool)
    first = part(x, torch.zeros(2), Condition(torch.eye(2), said))
    assert torch.equal(first, whole(x, torch.zeros(2), Condition(torch.eye(5)[[3, 0]], said)))
    assert not torch.equal(first, whole(x, torch.zeros(2), Condition(torch.eye(5)[[0, 3]], said)))


def test_a_network_that_cannot_place_labels_is_named(monkeypatch):
    monkeypatch.delattr(UNet, "place_labels")
    settings = {"network": "unet", "widths": [16], "blocks": [1], "label_places": {"of": 3, "places": [0]}}
    with pytest.raises(UserError, match="network unet cannot come from a generator of other classes"):
        networks.make_network(settings, 2, 1, 16, torch.float32)
