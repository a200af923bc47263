"""Objectives and samplers against closed forms: for Gaussian data the best denoiser, and so every sample, is known."""

import math

import pytest
import torch

from workflow_scripts.lib import diffusion, generators
from workflow_scripts.lib.diffusion import Condition, Guidance, make_objective

# Tiny tensors gain nothing from threads, and lose much where other processes want the cores.
torch.set_num_threads(1)

MEAN = torch.tensor([0.5, -0.3])
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.5]])
EVALUATIONS = {"ancestral": 1000, "ddim": 200, "heun": 59, "dpmpp_2m": 50}


def posterior_mean(x, sigma):
    """E[x0 | x] for Gaussian data: mean + C (C + sigma^2)^-1 (x - mean); x (n, 2, 1, 1)."""
    gain = COVARIANCE.double() @ torch.linalg.inv(COVARIANCE.double() + sigma**2 * torch.eye(2).double())
    return (MEAN + (x[:, :, 0, 0].double() - MEAN) @ gain.T).float()[:, :, None, None]


def perfect(objective):
    """The network that makes no error: the raw output which the objective turns into the posterior mean."""

    def network(scaled, log_sigma, condition):
        sigma = float(log_sigma[0].double().exp())
        skip, out, scale = (float(c) for c in objective.coefficients(torch.tensor([sigma], dtype=torch.float64)))
        x = scaled.double() / scale
        return (posterior_mean(x, sigma).double() - skip * x) / out

    return network


def anything(n, classes=3):
    return Condition(torch.zeros(n, classes), torch.zeros(n, dtype=torch.bool))


@pytest.mark.parametrize("sampler", generators.SAMPLERS)
@pytest.mark.parametrize("name", generators.OBJECTIVES)
def test_samples_of_a_gaussian_have_its_mean_and_covariance(name, sampler):
    n = 3000
    objective = make_objective(name)
    denoise = diffusion.conditional(objective, perfect(objective), anything(n))
    generator = torch.Generator().manual_seed(7)
    x = diffusion.sample(objective, denoise, (n, 2, 1, 1), sampler, EVALUATIONS[sampler], generator)[:, :, 0, 0]
    # Three to four standard errors at this n.
    assert torch.allclose(x.mean(0), MEAN, atol=0.07)
    assert torch.allclose(torch.cov(x.T), COVARIANCE, atol=0.1)


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
            levels = diffusion.noise_levels(objective, sampler, evaluations)
            end = diffusion.SAMPLERS[sampler](denoise, start, levels, torch.randn_like)
            error[sampler, evaluations] = float((end - exact).abs().max())
    assert all(error[sampler, 80] < error[sampler, 20] / 2 for sampler in ("ddim", "heun", "dpmpp_2m"))
    # At equal cost second order beats first.
    assert error["dpmpp_2m", 20] < error["ddim", 20] / 2
    assert error["heun", 80] < error["ddim", 80] / 2


@pytest.mark.parametrize("name", generators.OBJECTIVES)
def test_the_target_is_what_turns_into_the_image(name):
    # A network that returns its own target makes no loss, and its estimate is x0 at every level.
    objective = make_objective(name)
    x0 = torch.randn(64, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def oracle(scaled, log_sigma, condition):
        skip, out, scale = (c.view(-1, 1, 1, 1) for c in objective.coefficients(log_sigma.double().exp()))
        return (x0 - skip * scaled.double() / scale) / out

    generator = torch.Generator().manual_seed(1)
    loss = diffusion.training_loss(objective, oracle, x0, anything(64), generator)
    assert loss.shape == (64,)
    assert float(loss.max()) < 1e-3
    sigma = 2.0
    x = x0 + sigma * torch.randn(x0.shape)
    assert torch.allclose(diffusion.denoised(objective, oracle, x, sigma, anything(64)), x0, atol=1e-4)


def test_a_network_that_says_nothing_loses_the_variance_of_the_target():
    # Noise prediction: the target is standard normal, so a constant zero loses 1.
    x0 = torch.zeros(512, 1, 8, 8)
    generator = torch.Generator().manual_seed(3)
    loss = diffusion.training_loss(
        make_objective("epsilon_linear"), lambda x, s, c: torch.zeros_like(x), x0, anything(512), generator
    )
    assert float(loss.mean()) == pytest.approx(1, abs=0.03)


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
    levels = diffusion.noise_levels(objective, "ancestral", 1000)
    assert len(levels) == 1001 and levels[-1] == 0
    assert levels[:-1] == objective.grid.flip(0).tolist()


@pytest.mark.parametrize("sampler", generators.SAMPLERS)
def test_samplers_keep_to_their_number_of_evaluations(sampler):
    calls = 0

    def denoise(x, sigma):
        nonlocal calls
        calls += 1
        return torch.zeros_like(x)

    objective = make_objective("edm")
    diffusion.sample(objective, denoise, (1, 1, 2, 2), sampler, 21, torch.Generator().manual_seed(0))
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
PLAN = {"sampler": "dpmpp_2m", "evaluations": 20, "labels": "as_train", "guidance": {"scale": 2, "interval": [0, 99]}}
PLAN["count"] = 10
PLAIN = {"scale": 1, "interval": [0, 99]}


def test_pairs_that_make_sense_are_accepted():
    for objective in generators.OBJECTIVES:
        generator = GENERATOR | {"objective": objective}
        assert generators.generator_problem(generator, 32) is None
        for sampler in generators.SAMPLERS:
            assert generators.plan_problem(PLAN | {"sampler": sampler, "evaluations": 99}, generator) is None
    assert generators.generator_problem(MINIMAL, 32) is None


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (MINIMAL | {"objective": "edm"}, ("minimal", "edm")),
        (MINIMAL | {"labels": "multi_hot"}, ("minimal", "multi_hot")),
        (MINIMAL | {"label_dropout": 0.1}, ("minimal", "label_dropout")),
        (GENERATOR | {"blocks": [1, 2]}, ("widths", "blocks")),
    ],
)
def test_generators_that_make_no_sense_are_refused_in_one_line(generator, words):
    problem = generators.generator_problem(generator, 32)
    assert problem is not None and "\n" not in problem and all(word in problem for word in words)


@pytest.mark.parametrize(
    ("plan", "generator", "words"),
    [
        ({"sampler": "heun"}, MINIMAL, ("heun", "minimal")),
        ({"sampler": "ancestral"}, GENERATOR, ("ancestral", "50")),
        ({"sampler": "ancestral", "evaluations": 2000}, GENERATOR | {"objective": "epsilon_cosine"}, ("1000",)),
        ({}, GENERATOR | {"label_dropout": 0}, ("guidance", "label_dropout")),
        ({"guidance": {"scale": 2, "interval": [3, 1]}}, GENERATOR, ("interval",)),
        ({"labels": "tail_fill"}, GENERATOR, ("tail_fill", "target")),
        ({"labels": "balanced", "target": 5}, GENERATOR, ("balanced", "target")),
        ({"sampler": "ddim", "guidance": PLAIN}, MINIMAL, ("as_train", "single")),
    ],
)
def test_plans_that_make_no_sense_are_refused_in_one_line(plan, generator, words):
    problem = generators.plan_problem(PLAN | plan, generator)
    assert problem is not None and "\n" not in problem and all(word in problem for word in words)


def test_the_listed_samplers_are_those_there_are():
    assert set(generators.SAMPLERS) == set(diffusion.SAMPLERS) == set(generators.FEWEST)
    with pytest.raises(ValueError):
        make_objective("velocity_quadratic")
