"""Objectives and samplers against closed forms: for Gaussian data the best denoiser, and so every sample, is known."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from workflow_scripts.lib.config import schema
from workflow_scripts.lib.generate import diffusion, generator_checks, generator_choices, sampling
from workflow_scripts.lib.generate.diffusion import Condition, Guidance, make_objective
from workflow_scripts.lib.generate.networks import Minimal

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

MEAN = torch.tensor([0.5, -0.3])
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]])
EVALUATIONS = {"ancestral": 1000, "ddim": 200, "heun": 59, "dpmpp_2m": 50, "dpmpp_2m_sde": 200}


def posterior_mean(x, sigma, mean=MEAN):
    """E[x0 | x] for Gaussian data: mean + C (C + sigma^2)^-1 (x - mean); x (n, 2, 1, 1)."""
    gain = COVARIANCE.double() @ torch.linalg.inv(COVARIANCE.double() + sigma**2 * torch.eye(2).double())
    return (mean + (x[:, :, 0, 0].double() - mean) @ gain.T).float()[:, :, None, None]


def perfect(objective, estimate=lambda x, sigma, condition: posterior_mean(x, sigma)):
    """The network that makes no error: the raw output which the objective turns into the posterior mean."""

    def network(scaled, log_sigma, condition):
        sigma = float(log_sigma[0].double().exp())
        skip, out, scale = (float(c) for c in objective.coefficients(torch.tensor([sigma], dtype=torch.float64)))
        x = scaled.double() / scale
        return (estimate(x, sigma, condition).double() - skip * x) / out

    return network


def anything(n, classes=3):
    return Condition(torch.zeros(n, classes), torch.zeros(n, dtype=torch.bool))


PAIRS = [(objective, sampler) for objective in generator_choices.OBJECTIVES for sampler in generator_choices.SAMPLERS]


def drawn(name, sampler, n, estimate, condition, guidance=None, against=None):
    """Samples (n, 2) of a network that is perfect for `estimate`."""
    objective = make_objective(name)
    denoise = diffusion.conditional(objective, perfect(objective, estimate), condition, guidance, against)
    generator = torch.Generator().manual_seed(7)
    return sampling.sample(objective, denoise, (n, 2, 1, 1), sampler, EVALUATIONS[sampler], generator)[:, :, 0, 0]


@pytest.mark.parametrize(("name", "sampler"), PAIRS)
def test_samples_of_a_gaussian_have_its_mean_and_covariance(name, sampler):
    x = drawn(name, sampler, 3000, lambda x, sigma, condition: posterior_mean(x, sigma), anything(3000))
    # Three to four standard errors at this n.
    assert torch.allclose(x.mean(0), MEAN, atol=0.07)
    assert torch.allclose(torch.cov(x.T), COVARIANCE, atol=0.1)


@pytest.mark.parametrize("against", [False, True])
@pytest.mark.parametrize(("name", "sampler"), PAIRS)
def test_guidance_between_gaussians_moves_the_mean_and_nothing_else(name, sampler, against):
    # Two Gaussians that differ in their mean: the guided estimate is that of a third one of the same covariance,
    #   D_2 + s (D_1 - D_2) = (1 - G) (m_2 + s (m_1 - m_2)) + G x,   with D_i = m_i + G (x - m_i).
    n, scale, means = 3000, 2.5, torch.stack([MEAN, torch.tensor([0.1, 0.2]), torch.tensor([0.8, -0.1])])

    def estimate(x, sigma, condition):
        which = torch.where(condition.dropped, 1, condition.labels.argmax(dim=1))
        return posterior_mean(x, sigma, means[which])

    wanted = Condition(torch.eye(3)[[0] * n], torch.zeros(n, dtype=torch.bool))
    other = replace(wanted, labels=torch.eye(3)[[2] * n]) if against else None
    x = drawn(name, sampler, n, estimate, wanted, Guidance(scale), other)
    away = means[2] if against else means[1]
    assert torch.allclose(x.mean(0), away + scale * (MEAN - away), atol=0.07)
    assert torch.allclose(torch.cov(x.T), COVARIANCE, atol=0.1)


@pytest.mark.parametrize(("name", "sampler"), PAIRS)
def test_a_given_channel_stays_and_the_other_follows_the_conditional_gaussian(name, sampler):
    # x2 | x1 is Gaussian: mean m2 + c12 / c11 (x1 - m1), variance c22 - c12^2 / c11.
    n = 3000
    slope = float(COVARIANCE[0, 1] / COVARIANCE[0, 0])
    variance = float(COVARIANCE[1, 1] - COVARIANCE[0, 1] ** 2 / COVARIANCE[0, 0])
    first = torch.linspace(-2, 2.5, n)
    given = torch.stack([first, torch.zeros(n)], dim=1).view(n, 2, 1, 1)
    shown = torch.tensor([True, False]).expand(n, 2)
    condition = replace(anything(n), reference=given, shown=shown)

    def estimate(x, sigma, condition):
        # The clean channel says all there is to know; of the noisy ones only the one asked for adds to it. What is
        # estimated for the given channel must not matter.
        expected = MEAN[1] + slope * (condition.reference[:, 0] - MEAN[0])
        other = expected + variance / (variance + sigma**2) * (x[:, 1] - expected)
        return torch.stack([torch.full_like(other, 99.0), other], dim=1)

    x = drawn(name, sampler, n, estimate, condition)
    assert torch.allclose(x[:, 0], first, atol=1e-5)
    rest = x[:, 1] - (MEAN[1] + slope * (first - MEAN[0]))
    assert float(rest.mean()) == pytest.approx(0, abs=0.03)
    assert float(rest.var()) == pytest.approx(variance, abs=0.015)
    # Independent of the given channel once that is accounted for.
    assert abs(float(torch.corrcoef(torch.stack([rest, first]))[0, 1])) < 0.06


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
@pytest.mark.parametrize("name", ["epsilon_linear", "epsilon_cosine"])
def test_the_minimal_network_is_sampled_exactly_where_it_is_linear(name, sampler):
    # A network that does not see the noise level cannot be perfect even for Gaussian data, so its samples have no
    # closed form in the data. Made linear, F(x) = k x, each step of the chain is linear: its variance is known exactly.
    k, n, objective = 0.5, 4000, make_objective(name)
    network = linear_minimal(k)
    condition = Condition(torch.ones(n, 1), torch.zeros(n, dtype=torch.bool))
    denoise = diffusion.conditional(objective, network, condition)
    evaluations = 60
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        x = sampling.sample(objective, denoise, (n, 1, 1, 1), sampler, evaluations, generator)
    levels = sampling.noise_levels(objective, sampler, evaluations)
    variance = levels[0] ** 2
    for sigma, after in pairwise(levels):
        kept = 1 - k * sigma / math.sqrt(1 + sigma**2)  # x0 = kept * x
        keep = (after / sigma) ** 2 if sampler == "ancestral" else after / sigma
        variance *= (kept + keep * (1 - kept)) ** 2
        if sampler == "ancestral":
            variance += after**2 * (1 - keep)
    assert float(x.mean()) == pytest.approx(0, abs=4 * math.sqrt(variance / n))
    assert float(x.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / n))


def linear_minimal(k):
    """The three-layer network with weights that make F(x) = k x: relu(x) - relu(-x) = x, layer by layer."""
    network = Minimal(1, 1)
    with torch.no_grad():
        for layer in network.layers:
            layer.weight.zero_()
            layer.bias.zero_()
        first, second, third = (layer.weight[:, :, 1, 1] for layer in network.layers)
        first[0, 0], first[1, 0] = 1, -1
        second[0, 0] = second[1, 1] = 1
        third[0, 0], third[0, 1] = k, -k
    return network


def test_more_steps_bring_deterministic_samplers_nearer_to_the_exact_flow():
    # For Gaussian data in one dimension the flow is linear: x(0) = m + (x(S) - m) * s / sqrt(s^2 + S^2).
    objective = make_objective("edm")
    spread, mean = 0.7, 0.2

    def denoise(x, sigma):
        return mean + (x - mean) * spread**2 / (spread**2 + sigma**2)

    start = torch.tensor([-1.5, 0.3, 2.0], dtype=torch.float64).view(3, 1, 1, 1) * objective.highest
    exact = mean + (start - mean) * spread / math.hypot(spread, objective.highest)
    error = {}
    for sampler in ("ddim", "heun", "dpmpp_2m"):
        for evaluations in (20, 80):
            levels = sampling.noise_levels(objective, sampler, evaluations)
            end = getattr(sampling, sampler)(denoise, start, levels, torch.randn_like)
            error[sampler, evaluations] = float((end - exact).abs().max())
    assert all(error[sampler, 80] < error[sampler, 20] / 2 for sampler in ("ddim", "heun", "dpmpp_2m"))
    # At equal cost second order beats first.
    assert error["dpmpp_2m", 20] < error["ddim", 20] / 2
    assert error["heun", 80] < error["ddim", 80] / 2


@pytest.mark.parametrize("name", generator_choices.OBJECTIVES)
def test_the_target_is_what_turns_into_the_image(name):
    # A network that returns its own target makes no loss, and its estimate is x0 at every level.
    objective = make_objective(name)
    x0 = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def oracle(scaled, log_sigma, condition):
        skip, out, scale = (c.view(-1, 1, 1, 1) for c in objective.coefficients(log_sigma.double().exp()))
        return (x0 - skip * scaled.double() / scale) / out

    loss = loss_of(objective, oracle, x0, anything(64))
    assert loss.shape == (64,)
    assert float(loss.max()) < 1e-3
    sigma = 2.0
    x = x0 + sigma * torch.randn(x0.shape)
    assert torch.allclose(diffusion.denoised(objective, oracle, x, sigma, anything(64)), x0, atol=1e-4)


def test_a_network_that_says_nothing_loses_the_variance_of_the_target():
    # Noise prediction: the target is standard normal, so a constant zero loses 1.
    x0 = torch.zeros(512, 1, 8, 8)
    loss = loss_of(make_objective("epsilon_linear"), lambda x, s, c: torch.zeros_like(x), x0, anything(512))
    assert float(loss.mean()) == pytest.approx(1, abs=0.03)


def loss_of(objective, network, x0, condition):
    generator = torch.Generator().manual_seed(3)
    sigma = diffusion.training_levels(objective, (len(x0),), generator)
    return diffusion.training_loss(objective, network, x0, condition, sigma, torch.randn(x0.shape, generator=generator))


def test_learned_uncertainty_settles_at_the_mean_loss_and_makes_noise_levels_count_alike():
    # loss / exp(u) + u has its minimum, 1 + ln(mean loss), at u = ln(mean loss); there the gradient has size 1.
    losses, sigma = torch.tensor([0.5, 1.5, 20.0, 60.0]), torch.tensor([1.0, 1.0, 2.0, 2.0])
    best = torch.tensor([1.0, 1.0, 40.0, 40.0]).log().requires_grad_()

    class Known:
        def log_variance(self, log_sigma):
            assert torch.equal(log_sigma, sigma.log())
            return best

    weighted = diffusion.make_weighting("uncertainty")(losses, Known(), sigma)
    assert weighted[:2].mean().item() == pytest.approx(1)
    assert weighted[2:].mean().item() == pytest.approx(1 + math.log(40))
    (slope,) = torch.autograd.grad(weighted.sum(), best)
    assert slope[:2].sum().item() == pytest.approx(0, abs=1e-6)
    assert slope[2:].sum().item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(diffusion.make_weighting("plain")(losses, Known(), sigma), losses)


def test_given_channels_make_no_loss():
    objective = make_objective("velocity_cosine")
    x0 = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shown = torch.tensor([[True, False, False], [False, False, False]] * 4)
    condition = replace(anything(8), reference=x0 * shown[:, :, None, None], shown=shown)

    def silent(x, log_sigma, condition):
        return torch.zeros_like(x)

    def wrong_where_given(x, log_sigma, condition):
        return 1e3 * condition.shown[:, :, None, None] * torch.ones_like(x)

    plain, wrong = (loss_of(objective, network, x0, condition) for network in (silent, wrong_where_given))
    assert torch.equal(plain, wrong)
    # Images of which nothing is given lose the same as where nothing can be given.
    nothing = loss_of(objective, silent, x0, anything(8))
    assert torch.allclose(plain[1::2], nothing[1::2]) and not torch.allclose(plain[::2], nothing[::2])


def test_schedules_agree_with_their_papers():
    linear = diffusion.linear_schedule()
    # Ho et al. 2020: the last step keeps a signal of 4.04e-5 in variance; the first noise is sqrt(beta_1).
    assert float(1 / (1 + linear[-1] ** 2)) == pytest.approx(4.04e-5, rel=0.01)
    assert float(linear[0]) == pytest.approx(math.sqrt(1e-4 / (1 - 1e-4)), rel=1e-6)
    cosine = diffusion.cosine_schedule()
    t = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    kept = (torch.cos((t + 0.008) / 1.008 * math.pi / 2) / math.cos(0.008 / 1.008 * math.pi / 2)) ** 2
    found = 1 / (1 + cosine[torch.tensor([249, 499, 749])] ** 2)
    assert torch.allclose(found, kept, rtol=1e-6)
    assert (linear.diff() > 0).all() and (cosine.diff() > 0).all()


def test_training_levels_of_discrete_schedules_are_uniform_over_steps():
    objective = make_objective("velocity_cosine")
    levels = objective.draw((torch.arange(4000) + 0.5) / 4000)
    assert torch.equal(levels.unique().double(), objective.grid.float().double().unique())


def test_ancestral_sampling_walks_the_whole_chain():
    objective = make_objective("epsilon_linear")
    levels = sampling.noise_levels(objective, "ancestral", 1000)
    assert len(levels) == 1001 and levels[-1] == 0
    assert levels[:-1] == objective.grid.flip(0).tolist()


@pytest.mark.parametrize("name", generator_choices.OBJECTIVES)
@pytest.mark.parametrize("sampler", generator_choices.SAMPLERS)
def test_variations_of_gaussian_data_have_the_spread_that_their_noise_leaves_open(name, sampler):
    # Data N(0, s^2), noised to sigma and drawn back from the posterior: what returns is a x + noise of known variance.
    objective, spread, top, n = make_objective(name), 0.7, 0.5, 20_000
    levels = sampling.noise_levels(objective, sampler, 60, top)
    assert 0.9 * top < levels[0] <= top * (1 + 1e-9) and len(levels) > 40 / (2 if sampler == "heun" else 1)
    kept = spread**2 / (spread**2 + levels[0] ** 2)
    clean = torch.randn((n, 1, 1, 1), generator=torch.Generator().manual_seed(1)) * spread

    def denoise(x, sigma):
        return x * spread**2 / (spread**2 + sigma**2)

    generator = torch.Generator().manual_seed(2)
    varied = (clean, top)
    x = sampling.sample(objective, denoise, tuple(clean.shape), sampler, 60, generator, start=varied)
    assert float(x.var()) == pytest.approx(spread**2, rel=0.06), "the distribution of the data is kept"
    slope = float((x * clean).mean() / clean.square().mean())
    # A chain forgets by its fresh noise; the flow carries the noised image on: x0 = x_sigma * s / sqrt(s^2 + sigma^2).
    # Fresh noise of strength r beyond the flow's none and the chain's 1 forgets with the power (1 + r) / 2.
    renewal = {"ancestral": 1.0, "dpmpp_2m_sde": sampling.RENEWAL}.get(sampler, 0.0)
    expected = kept ** ((1 + renewal) / 2)
    assert slope == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("sampler", generator_choices.SAMPLERS)
def test_samplers_keep_to_their_number_of_evaluations(sampler):
    calls = 0

    def denoise(x, sigma):
        nonlocal calls
        calls += 1
        return torch.zeros_like(x)

    objective = make_objective("edm")
    sampling.sample(objective, denoise, (1, 1, 2, 2), sampler, 21, torch.Generator().manual_seed(0))
    assert calls == 21


def test_guidance_pushes_in_its_interval_with_one_call():
    calls = []

    def network(x, log_sigma, condition):
        calls.append(len(x))
        # The estimate is 1 for the condition and 0 for none; edm turns F = (D - skip x) / out.
        skip, out, scale = make_objective("edm").coefficients(log_sigma.exp())
        wanted = (~condition.dropped).float()
        return ((wanted - skip * x[:, 0, 0, 0] / scale) / out).view(-1, 1, 1, 1).expand_as(x)

    condition = anything(2)
    denoise = diffusion.conditional(make_objective("edm"), network, condition, Guidance(3.0, 0.5, 5.0))
    x = torch.ones(2, 1, 2, 2)
    assert torch.allclose(denoise(x, 1.0), torch.full_like(x, 3.0), atol=1e-4)
    assert torch.allclose(denoise(x, 9.0), torch.ones_like(x), atol=1e-4)
    assert torch.allclose(denoise(x, 0.1), torch.ones_like(x), atol=1e-4)
    assert calls == [4, 2, 2]
    # Away from another condition instead of none, here from one that equals the wanted one: no push at all.
    same = diffusion.conditional(make_objective("edm"), network, condition, Guidance(3.0), against=condition)
    assert torch.allclose(same(x, 1.0), torch.ones_like(x), atol=1e-4)
    limits = (torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 2.0))
    limited = diffusion.conditional(make_objective("edm"), network, condition, Guidance(3.0), limits=limits)
    assert torch.allclose(limited(x, 1.0), torch.full_like(x, 2.0), atol=1e-4)


GENERATOR = {"network": "unet", "objective": "edm", "labels": "multi_hot", "label_dropout": 0.1, "widths": [16]}
GENERATOR |= {"blocks": [1], "pixels": "standardised"}
MINIMAL = {
    "network": "minimal",
    "objective": "epsilon_linear",
    "labels": "single",
    "label_dropout": 0,
    "pixels": "unit",
}
SYNTHETIC_SET = {
    "sampler": "dpmpp_2m",
    "evaluations": 20,
    "labels": "as_train",
    "guidance": {"scale": 2, "interval": [0, 99]},
}
SYNTHETIC_SET["count"] = 10
CHANNELS = ["a", "b", "c", "d"]
PLAIN = {"scale": 1, "interval": [0, 99]}


def test_every_start_noise_is_a_level_that_generators_know():
    start_noise, _ = schema.at(["synthetic_sets", 0, "start_noise"])
    for name in generator_choices.OBJECTIVES:
        objective = make_objective(name)
        assert objective.lowest < start_noise["minimum"] < start_noise["maximum"] < objective.highest


def test_pairs_that_make_sense_are_accepted():
    for objective in generator_choices.OBJECTIVES:
        generator = GENERATOR | {"objective": objective}
        assert generator_checks.generator_problem(generator, 32, CHANNELS) is None
        for sampler in generator_choices.SAMPLERS:
            synthetic_set = SYNTHETIC_SET | {"sampler": sampler, "evaluations": 99}
            assert generator_checks.set_problem(synthetic_set, generator, CHANNELS) is None
    assert generator_checks.generator_problem(MINIMAL, 32, CHANNELS) is None
    giving = GENERATOR | {"reference_fraction": 0.5}
    assert (
        generator_checks.set_problem(
            SYNTHETIC_SET | {"reference_channels": ["a", "c"], "labels": "unseen"}, giving, CHANNELS
        )
        is None
    )


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (MINIMAL | {"objective": "edm"}, ("minimal", "edm")),
        (MINIMAL | {"labels": "multi_hot"}, ("minimal", "multi_hot")),
        (MINIMAL | {"label_dropout": 0.1}, ("minimal", "label_dropout")),
        (MINIMAL | {"reference_fraction": 0.1}, ("minimal", "reference_fraction")),
        (MINIMAL | {"weighting": "uncertainty"}, ("minimal", "weighting uncertainty")),
        (MINIMAL | {"attention": True}, ("minimal", "attention")),
        (MINIMAL | {"patch": 2}, ("minimal", "patch")),
        (GENERATOR | {"patch": 5}, ("patches of 5 px",)),
        (GENERATOR | {"blocks": [1, 2]}, ("widths", "blocks")),
    ],
)
def test_generators_that_make_no_sense_are_refused_in_one_line(generator, words):
    problem = generator_checks.generator_problem(generator, 32, CHANNELS)
    assert problem is not None and "\n" not in problem and all(word in problem for word in words)


@pytest.mark.parametrize(
    ("synthetic_set", "generator", "words"),
    [
        ({"sampler": "heun"}, MINIMAL, ("heun", "minimal")),
        ({"sampler": "ancestral"}, GENERATOR, ("ancestral", "50")),
        ({"sampler": "ancestral", "evaluations": 2000}, GENERATOR | {"objective": "epsilon_cosine"}, ("1000",)),
        ({}, GENERATOR | {"label_dropout": 0}, ("guidance", "label_dropout")),
        ({"guidance": {"scale": 2, "interval": [3, 1]}}, GENERATOR, ("interval",)),
        ({"labels": "tail_fill"}, GENERATOR, ("tail_fill", "target")),
        ({"labels": "balanced", "target": 5}, GENERATOR, ("balanced", "target")),
        ({"sampler": "ddim", "guidance": PLAIN}, MINIMAL, ("as_train", "single")),
        ({"labels": "unseen", "count": None}, GENERATOR, ("unseen", "count")),
        ({"start_noise": 0.5, "labels": "unseen", "guidance": PLAIN}, GENERATOR, ("start_noise", "unseen")),
        ({"start_noise": 0.5, "labels": "single"}, GENERATOR | {"labels": "single"}, ("start_noise", "single")),
        (
            {"start_noise": 0.2, "guidance": {"scale": 2, "interval": [0.2, 20]}},
            GENERATOR,
            ("guidance", "0.2", "start_noise"),
        ),
        ({"reference_channels": ["a"]}, GENERATOR, ("reference_channels", "reference_fraction")),
        (
            {"reference_channels": ["e"]},
            GENERATOR | {"reference_fraction": 0.5},
            ("reference_channels", "e", "a, b, c, d"),
        ),
        ({"reference_channels": CHANNELS}, GENERATOR | {"reference_fraction": 0.5}, ("reference_channels", "nothing")),
        ({"guidance": PLAIN | {"against": "confused"}}, GENERATOR, ("against", "scale")),
    ],
)
def test_plans_that_make_no_sense_are_refused_in_one_line(synthetic_set, generator, words):
    problem = generator_checks.set_problem(SYNTHETIC_SET | synthetic_set, generator, CHANNELS)
    assert problem is not None and "\n" not in problem and all(word in problem for word in words)


def test_one_channel_leaves_nothing_to_generate_beside_given_ones():
    problem = generator_checks.generator_problem(GENERATOR | {"reference_fraction": 0.5}, 32, ["green"])
    assert problem is not None and "reference_fraction" in problem and "one channel" in problem


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reference_channels": ["a"]}, "reference_fraction above 0"),
        ({"reference_channels": ["z"], "reference_fraction": 1}, "names 'z', which the images do not have"),
        ({"reference_channels": CHANNELS, "reference_fraction": 1}, "nothing is left to learn"),
    ],
)
def test_reference_channels_of_a_generator_are_checked(settings, words):
    assert words in generator_checks.generator_problem(GENERATOR | settings, 32, CHANNELS)


def test_a_set_takes_the_reference_channels_that_its_generator_has_learned_with():
    learned = GENERATOR | {"reference_channels": ["a", "c"], "reference_fraction": 1}
    assert generator_choices.reference_places(learned, CHANNELS) == [0, 2]
    same, other = ({"reference_channels": names} for names in (["c", "a"], ["b"]))
    assert generator_checks.set_problem(SYNTHETIC_SET | same, learned, CHANNELS) is None
    assert "a, c" in generator_checks.set_problem(SYNTHETIC_SET | other, learned, CHANNELS)


def test_an_unknown_objective_is_refused_by_name():
    with pytest.raises(ValueError, match="velocity_cosine"):
        make_objective("velocity_quadratic")


# Autoguidance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["edm", "velocity_cosine"])
def test_autoguidance_between_linear_denoisers_follows_its_closed_form(name):
    # Two denoisers that are perfect for Gaussians of one mean m and of variance c (good), w (worse), in one dimension:
    #   D_v = m + v / (v + s^2) (x - m).   The guided flow dx/ds = (x - D_w - g (D_c - D_w)) / s is linear:
    #   d ln(x - m) / ds = (1 - g) s / (w + s^2) + g s / (c + s^2),   so with x(S) at the highest level S
    #   x(0) = m + (x(S) - m) (w / (w + S^2))^((1 - g) / 2) (c / (c + S^2))^(g / 2).
    mean, good, wide, scale, objective = 0.3, 0.8, 2.0, 2.5, make_objective(name)

    def gaussian(variance):
        return perfect(objective, lambda x, sigma, condition: mean + variance / (variance + sigma**2) * (x - mean))

    condition = anything(64)
    denoise = diffusion.conditional(
        objective, gaussian(good), condition, Guidance(scale), worse=(objective, gaussian(wide))
    )
    levels = sampling.noise_levels(objective, "heun", 400)
    x = torch.linspace(-2, 2, 64).view(-1, 1, 1, 1) * levels[0]
    ended = sampling.heun(denoise, x, levels, lambda like: torch.zeros_like(like))
    top = levels[0] ** 2
    factor = (wide / (wide + top)) ** ((1 - scale) / 2) * (good / (good + top)) ** (scale / 2)
    # In units of the deviation that the samples have at level 0.
    deviation = factor * levels[0]
    assert deviation == pytest.approx(math.sqrt(good * (good / wide) ** (scale - 1)), rel=0.01), (
        "narrower than the data"
    )
    assert torch.allclose(ended, mean + (x - mean) * factor, atol=5e-3 * deviation)


def test_a_worse_network_is_asked_about_the_same_condition_and_only_within_the_interval():
    asked = []

    def network(name, estimate):
        def called(x, log_sigma, condition):
            asked.append((name, len(x), condition))
            skip, out, scale = make_objective("edm").coefficients(log_sigma.exp())
            return ((estimate - skip * x[:, 0, 0, 0] / scale) / out).view(-1, 1, 1, 1).expand_as(x)

        return called

    objective, condition, x = make_objective("edm"), anything(3), torch.ones(3, 1, 2, 2)
    denoise = diffusion.conditional(
        objective, network("good", 1.0), condition, Guidance(3.0, 0.5, 5.0), worse=(objective, network("worse", 0.5))
    )
    assert torch.allclose(denoise(x, 1.0), torch.full_like(x, 0.5 + 3 * 0.5), atol=1e-4)
    assert torch.allclose(denoise(x, 9.0), torch.ones_like(x), atol=1e-4)
    assert [(name, count) for name, count, _ in asked] == [("good", 3), ("worse", 3), ("good", 3)]
    assert all(one is condition for _, _, one in asked)


@pytest.mark.parametrize("name", ["epsilon_linear", "epsilon_cosine"])
def test_a_chain_forgives_a_network_that_errs_a_little(name):
    def network(x, log_sigma, condition):  # sees the noise but for 5 %, and never answers more than unit magnitude
        return 0.95 * x / x.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp(min=1)

    objective = make_objective(name)
    denoise = diffusion.conditional(objective, network, anything(8))
    x = sampling.sample(objective, denoise, (8, 2, 8, 8), "ancestral", 100, torch.Generator().manual_seed(1))
    assert float(x.square().mean().sqrt()) < 10


def test_guidance_above_all_noise_levels_would_act_nowhere():
    guided = {"guidance": {"scale": 2.0, "interval": [100, 1000]}}
    edm = GENERATOR | {"objective": "edm"}
    assert "act nowhere" in generator_checks.set_problem(SYNTHETIC_SET | guided, edm, CHANNELS)


@pytest.mark.parametrize("columns", [["missing_channels"], ["line", "missing_channels"]])
def test_an_encoder_may_have_been_told_which_channels_are_missing(columns):
    unet = GENERATOR | {"name": "g", "network": "unet", "label_dropout": 0.1, "condition_on": columns}
    assert bool(generator_checks.encoder_problem(unet, False)) == (len(columns) > 1)
