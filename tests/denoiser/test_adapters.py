"""The contract and its adapters, against networks that are exact in their own parametrisation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from headstart import conditions
from headstart import denoiser as denoiser_module
from headstart.denoiser import (
    Counted,
    DiscreteVariancePreserving,
    Prediction,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    adapt,
    cast_input,
    denoise,
    expand,
    guide,
    is_finite,
)
from headstart.errors import DenoiserError, InputError
from headstart.targets import GaussianMixture, gmm25

PREDICTIONS: tuple[Prediction, ...] = ("x0", "epsilon", "score", "v", "flow")

#: DDPM: 1,000 rates of noise, linear from 1e-4 to 0.02.
DDPM = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


def table_sigma(k: int) -> float:
    return math.sqrt((1 - float(DDPM[k])) / float(DDPM[k]))


# Networks that are exact for data of a known law. They see z = a x0 + b eps at a time of their own, find a and b in
# that time, and condition on z: nothing in them is written in sigma.


@dataclass(frozen=True)
class Law:
    """A Gaussian mixture: weights (K,), means (K, d), covariances (K, d, d)."""

    weights: Tensor
    means: Tensor
    covariances: Tensor

    def conditional(self, z: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """E[x0 | z], E[eps | z] and the gradient of log p(z), each (B, d), at a and b of shape (B,)."""
        a, b = a[:, None, None], b[:, None, None]
        means = a * self.means
        spread = (a**2)[..., None] * self.covariances + (b**2)[..., None] * torch.eye(z.shape[1], dtype=torch.float64)
        density = MultivariateNormal(means, spread)
        posterior = (self.weights.log() + density.log_prob(z[:, None])).softmax(1)  # type: ignore[no-untyped-call]
        whitened = torch.linalg.solve(spread, z[:, None] - means)
        x0 = self.means + a * torch.einsum("kde,bke->bkd", self.covariances, whitened)

        def average(part: Tensor) -> Tensor:
            return torch.einsum("bk,bkd->bd", posterior, part)

        return average(x0), average(b * whitened), -average(whitened)

    def network(self, levels: Callable[[Tensor], tuple[Tensor, Tensor]], prediction: str) -> Callable[..., Tensor]:
        def network(z: Tensor, time: Tensor) -> Tensor:
            a, b = (level.double() for level in levels(time))
            x0, eps, score = self.conditional(z.double(), a, b)
            sigma = (b / a)[:, None]
            out = {
                "x0": x0,
                "epsilon": eps,
                "score": score,
                "v": (eps - sigma * x0) / (1 + sigma**2).sqrt(),
                "flow": eps - x0,
            }[prediction]
            return out.to(z.dtype)

        return network


def ve_levels(time: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ones_like(time), time


def vp_levels(time: Tensor, low: float = 0.1, high: float = 20.0) -> tuple[Tensor, Tensor]:
    """The SDE dz = -beta z / 2 dt + sqrt(beta) dW, beta linear in t: a^2 = exp(-int beta), b^2 = 1 - a^2."""
    integral = 0.5 * (high - low) * time.double() ** 2 + low * time.double()
    return (-0.5 * integral).exp(), (-torch.expm1(-integral)).sqrt()


def ddpm_levels(time: Tensor) -> tuple[Tensor, Tensor]:
    assert (time.double() - time.double().round()).abs().max() < 1e-3, "not at a level of the table"
    kept = DDPM[time.double().round().long()]
    return kept.sqrt(), (1 - kept).sqrt()


def flow_levels(time: Tensor) -> tuple[Tensor, Tensor]:
    return 1 - time.double(), time.double()


TABLE_SIGMAS = tuple(table_sigma(k) for k in (0, 1, 37, 400, 850, 999))
SIGMAS = (0.002, 0.05, 0.7, 3.0, 10.0)
FAR = (*SIGMAS, 80.0)
PROCESSES: dict[str, tuple[Process, Callable[[Tensor], tuple[Tensor, Tensor]], tuple[float, ...]]] = {
    "exploding": (VarianceExploding(), ve_levels, FAR),
    "preserving": (VariancePreserving(), vp_levels, FAR),
    "preserving, other rates": (VariancePreserving(0.3, 9.0), lambda t: vp_levels(t, 0.3, 9.0), SIGMAS),
    "preserving, constant rate": (VariancePreserving(5.0, 5.0), lambda t: vp_levels(t, 5.0, 5.0), SIGMAS),
    "discrete": (DiscreteVariancePreserving(DDPM.tolist()), ddpm_levels, TABLE_SIGMAS),
    "discrete, rounded": (DiscreteVariancePreserving(DDPM.tolist(), rounded=True), ddpm_levels, TABLE_SIGMAS),
    "rectified": (RectifiedFlow(), flow_levels, FAR),
    "rectified, in thousandths": (RectifiedFlow(1000.0), lambda t: flow_levels(t / 1000), FAR),
}


def random_law(d: int = 3, count: int = 3) -> Law:
    g = torch.Generator().manual_seed(4)
    roots = torch.randn(count, d, d, generator=g, dtype=torch.float64)
    return Law(
        torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)[:count],
        torch.randn(count, d, generator=g, dtype=torch.float64),
        0.3 * roots @ roots.mT + 0.02 * torch.eye(d, dtype=torch.float64),
    )


def noisy(sigma: float, n: int = 6, d: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(9)
    clean, eps = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    return clean + sigma * eps


@pytest.mark.parametrize("name", PROCESSES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_network_becomes_the_exact_denoiser(name: str, prediction: Prediction) -> None:
    """To 1e-10 in float64, and in float32 to 1e-6 of what is subtracted."""
    process, levels, sigmas = PROCESSES[name]
    law = random_law()
    target = GaussianMixture(law.weights, law.means, law.covariances)
    adapted = adapt(law.network(levels, prediction), prediction, process)
    for sigma in sigmas:
        x = noisy(sigma)
        expected = target(x, sigma)
        torch.testing.assert_close(adapted(x, sigma), expected, rtol=1e-10, atol=1e-10 * max(1.0, sigma))
        single = denoise(adapted, x.float(), sigma)
        assert single.dtype == torch.float32
        if sigma <= 5:
            torch.testing.assert_close(single, expected.float(), rtol=0.0, atol=1e-6 * float(x.abs().max()))


def test_one_level_per_sample_equals_one_level_at_a_time() -> None:
    law, levels = random_law(), torch.tensor([0.05, 0.7, 3.0], dtype=torch.float64)
    adapted = adapt(law.network(vp_levels, "v"), "v", VariancePreserving())
    x = noisy(1.0, 3)
    alone = torch.cat([adapted(x[i : i + 1], float(levels[i])) for i in range(3)])
    torch.testing.assert_close(adapted(x, levels), alone, rtol=1e-12, atol=1e-12)


def test_defaults_are_variance_exploding_and_rectified_for_flows() -> None:
    law, x = random_law(), noisy(0.7)
    expected = GaussianMixture(law.weights, law.means, law.covariances)(x, 0.7)
    for prediction in PREDICTIONS:
        levels = flow_levels if prediction == "flow" else ve_levels
        torch.testing.assert_close(adapt(law.network(levels, prediction), prediction)(x, 0.7), expected)


def test_an_unknown_prediction_is_named() -> None:
    with pytest.raises(InputError, match="unknown prediction 'eps'"):
        adapt(lambda z, t: z, "eps")  # type: ignore[arg-type]


@dataclass
class Recorder:
    """A network that returns zeros and remembers what it was called with."""

    seen: list[tuple[Tensor, Tensor, dict[str, Any]]] = field(default_factory=list)

    def __call__(self, z: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        self.seen.append((z, time, conditions))
        return torch.zeros_like(z)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("process", "scale", "time"),
    [
        (VarianceExploding(), 1.0, 0.75),
        (VariancePreserving(5.0, 5.0), 0.8, 2 * math.log(1.25) / 5),
        (RectifiedFlow(), 4 / 7, 3 / 7),
        (RectifiedFlow(1000.0), 4 / 7, 3000 / 7),
    ],
    ids=repr,
)
def test_the_network_sees_its_own_input_and_time(
    process: Process, scale: float, time: float, dtype: torch.dtype
) -> None:
    """sigma = 3 / 4, where sqrt(1 + sigma^2) = 5 / 4; given as a number, a scalar tensor, (1,) or (B,). Times are not
    rounded to half types, whose integers end at 2,048 or 256."""
    wide = torch.promote_types(dtype, torch.float32)
    x = torch.randn(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    given: list[Any] = [0.75, torch.tensor(0.75), torch.tensor([0.75]), torch.full((2,), 0.75, dtype=torch.float64)]
    for sigma in given:
        network = Recorder()
        adapt(network, "x0", process)(x, sigma, label=7)
        (z, t, conditions) = network.seen.pop()
        assert not network.seen
        assert conditions == {"label": 7}
        assert (z.shape, z.dtype, t.shape, t.dtype) == (x.shape, dtype, (2,), wide)
        torch.testing.assert_close(z, scale * x)
        torch.testing.assert_close(t, torch.full((2,), time, dtype=wide))


@pytest.mark.parametrize(
    ("prediction", "share"),
    [("x0", 0.0), ("epsilon", 1.0), ("score", 1.0), ("v", 16 / 25), ("flow", 4 / 7)],
)
def test_of_a_network_that_says_zero_a_known_share_of_x_is_left(prediction: Prediction, share: float) -> None:
    x = torch.ones(2, 3, dtype=torch.float64)
    for process in (VarianceExploding(), VariancePreserving(), RectifiedFlow()):
        torch.testing.assert_close(adapt(Recorder(), prediction, process)(x, 0.75), share * x)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_lose_their_own_digits_and_no_more(prediction: Prediction, dtype: torch.dtype) -> None:
    """At every level up to 80, at several digits' distance from the square of it overflowing."""
    law = random_law()
    adapted = adapt(law.network(vp_levels, prediction), prediction, VariancePreserving())
    target = GaussianMixture(law.weights, law.means, law.covariances)
    for sigma in FAR:
        x = noisy(sigma).to(dtype)
        expected, scale = target(x.double(), sigma), float(x.abs().max())
        error = (denoise(adapted, x, sigma).double() - expected).abs().max()
        assert error < 8 * torch.finfo(dtype).eps * scale * max(1.0, sigma if prediction == "score" else 1.0)


def test_a_score_far_out_is_no_larger_than_a_half_type_holds() -> None:
    """D = x + sigma^2 s is of the size of x, where sigma^2 alone is beyond float16."""
    adapted = adapt(lambda z, time: -z / time.reshape(-1, 1) ** 2, "score")
    x = 300 * torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).half()
    assert float(denoise(adapted, x, 300.0).abs().max()) < 2


@pytest.mark.parametrize(
    ("process", "sigma_max", "time"),
    [
        (VariancePreserving(), math.sqrt(math.expm1(10.05)), 1.0),
        (VariancePreserving(5.0, 5.0), math.sqrt(math.expm1(5.0)), 1.0),
        (DiscreteVariancePreserving([0.9, 0.5, 0.1]), 3.0, 2.0),
        (DiscreteVariancePreserving([0.9, 0.5, 0.1], rounded=True), 3.0, 2),
        (VarianceExploding(80.0), 80.0, 80.0),
        (RectifiedFlow(1.0, 9.0), 9.0, 0.9),
    ],
    ids=repr,
)
def test_noise_above_what_a_network_knows_is_named(process: Process, sigma_max: float, time: float) -> None:
    """Its last time is at sigma_max, in float32 too; a level above it would be handed on as another one."""
    adapted = adapt(Recorder(), "x0", process)
    assert adapted.sigma_max == process.sigma_max == Counted(adapted).sigma_max == pytest.approx(sigma_max, rel=1e-12)
    last = torch.tensor([sigma_max], dtype=torch.float64)
    assert float(process.time(last)) == pytest.approx(time, rel=1e-12)
    for dtype in (torch.float32, torch.float64):
        x = torch.ones(2, 3, dtype=dtype)
        denoise(adapted, x, sigma_max)
        with pytest.raises(InputError, match="the network knows noise up to"):
            denoise(adapted, x, 1.001 * sigma_max)
        with pytest.raises(InputError, match="the network knows noise up to"):
            adapted(x, torch.tensor([0.1, 1.001 * sigma_max]))


def test_without_a_bound_any_noise_is_known() -> None:
    for denoiser in (adapt(Recorder(), "x0"), adapt(Recorder(), "flow"), Counted(conditional)):
        assert denoiser.sigma_max == math.inf


# The processes' own times.


@settings(deadline=None)
@given(
    sigma=st.floats(1e-3, 1e3), low=st.floats(0.01, 5.0), rise=st.floats(0.0, 30.0), scale=st.sampled_from([1.0, 1e3])
)
def test_continuous_times_invert_their_definitions(sigma: float, low: float, rise: float, scale: float) -> None:
    level = torch.tensor([sigma], dtype=torch.float64)
    t = float(VariancePreserving(low, low + rise).time(level))
    assert 0.5 * rise * t**2 + low * t == pytest.approx(math.log1p(sigma**2), rel=1e-12)
    t = float(RectifiedFlow(scale).time(level)) / scale
    assert t / (1 - t) == pytest.approx(sigma, rel=1e-10)


@pytest.mark.parametrize("process", [process for process, _, _ in PROCESSES.values()], ids=list(PROCESSES))
def test_a_process_keeps_its_variance_and_runs_forward(process: Process) -> None:
    """The scale a and the noise a sigma: a^2 + b^2 = 1, or a + b = 1, or a = 1; time grows with sigma from 0."""
    sigma = torch.logspace(-4, 3, 300, dtype=torch.float64)
    a = process.scale(sigma)
    total = {VarianceExploding: a, RectifiedFlow: a + a * sigma}.get(type(process), (a**2 + (a * sigma) ** 2).sqrt())
    torch.testing.assert_close(total, torch.ones_like(a), rtol=1e-12, atol=0.0)
    time = process.time(sigma)
    assert (time.diff() >= 0).all()
    assert 0 <= float(process.time(torch.zeros(1, dtype=torch.float64))) <= float(time[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_discrete_times_are_integers_at_the_levels_of_the_table(dtype: torch.dtype) -> None:
    levels = ((1 - DDPM) / DDPM).sqrt().to(dtype)
    steps = torch.arange(1000)
    fractional = DiscreteVariancePreserving(DDPM.tolist()).time(levels)
    assert fractional.dtype == dtype
    torch.testing.assert_close(fractional, steps.to(dtype), rtol=0.0, atol=1e-3 if dtype == torch.float32 else 1e-9)
    rounded = DiscreteVariancePreserving(DDPM.tolist(), rounded=True).time(levels)
    assert rounded.dtype == torch.int64
    assert torch.equal(rounded, steps)


@settings(deadline=None, max_examples=50)
@given(
    falls=st.lists(st.floats(1e-3, 0.9), min_size=2, max_size=8),
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6),
)
def test_discrete_times_in_between_are_linear_in_log_sigma(falls: list[float], shares: list[float]) -> None:
    """A share s of the way, in ln sigma, from level k to level k + 1 is the time k + s; and the same, rounded."""
    table = torch.cumprod(1 - torch.tensor(falls, dtype=torch.float64), 0)
    logs = 0.5 * torch.log((1 - table) / table)
    process = DiscreteVariancePreserving(table.tolist())
    nearest = DiscreteVariancePreserving(table.tolist(), rounded=True)
    for k in range(len(falls) - 1):
        share = torch.tensor(sorted(shares), dtype=torch.float64)
        sigma = (logs[k] + share * (logs[k + 1] - logs[k])).exp()
        torch.testing.assert_close(process.time(sigma), k + share, rtol=0.0, atol=1e-9)
        assert (nearest.time(sigma) - (k + share)).abs().max() <= 0.5 + 1e-9


@pytest.mark.parametrize("rounded", [False, True])
def test_levels_outside_the_table_are_those_at_its_ends(rounded: bool) -> None:
    process = DiscreteVariancePreserving([0.9, 0.5, 0.1], rounded=rounded)
    assert process.time(torch.tensor([0.0, 1e-6, 1e6])).tolist() == [0, 0, 2]


@pytest.mark.parametrize(
    "table",
    [[], [0.5], [0.5, 0.5], [0.5, 0.7], [1.0, 0.5], [0.5, 0.0], [0.5, -0.1], [math.nan, 0.5], [[0.9, 0.5], [0.4, 0.1]]],
)
def test_bad_tables_are_named(table: Any) -> None:
    with pytest.raises(InputError, match="strictly decreasing"):
        DiscreteVariancePreserving(table)


def test_betas_in_place_of_a_table_are_named() -> None:
    with pytest.raises(InputError, match=r"these rise: are they betas\? then torch.cumprod\(1 - betas, 0\)"):
        DiscreteVariancePreserving(torch.linspace(1e-4, 0.02, 1000).tolist())


# Guidance, fixed conditions, counting.


def conditional(x: Tensor, sigma: Any, /, label: float | None = None, shift: float = 0.0, **_: Any) -> Tensor:
    """A denoiser whose answer says what it was called with."""
    return x / (1 + expand(sigma, x) ** 2) + (0.0 if label is None else label) + shift


@settings(deadline=None, max_examples=30)
@given(scale=st.floats(-5, 20).filter(lambda s: s != 1))
def test_guidance_is_its_formula_at_two_evaluations(scale: float) -> None:
    counted = Counted(conditional)
    guided, x = guide(counted, scale), torch.randn(4, 2, generator=torch.Generator().manual_seed(0)).double()
    with_label, without = conditional(x, 0.5, 3.0, shift=0.25), conditional(x, 0.5, None, shift=0.25)
    out = guided(x, 0.5, label=3.0, shift=0.25)
    torch.testing.assert_close(out, without + scale * (with_label - without), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out, scale * with_label - (scale - 1) * without, rtol=1e-10, atol=1e-10)
    assert (counted.calls, counted.samples) == (2, 8)


def test_a_scale_of_one_is_no_guidance() -> None:
    counted = Counted(conditional)
    assert guide(counted, 1) is counted
    assert guide(counted, 1.0) is counted
    x = torch.ones(3, 2)
    assert torch.equal(guide(counted, 1.0)(x, 0.5, label=2.0), conditional(x, 0.5, 2.0))
    assert counted.calls == 1


def test_a_scale_of_zero_is_the_unconditional_denoiser() -> None:
    x = torch.ones(3, 2)
    assert torch.equal(guide(conditional, 0.0)(x, 0.5, label=2.0), conditional(x, 0.5))


def test_guidance_away_from_other_conditions() -> None:
    x = torch.ones(3, 2, dtype=torch.float64)
    guided = guide(conditional, 2.0, {"label": -1.0, "shift": 0.5})
    expected = 2 * conditional(x, 0.5, 4.0, 0.25) - conditional(x, 0.5, -1.0, 0.5)
    torch.testing.assert_close(guided(x, 0.5, label=4.0, shift=0.25), expected)


def test_guidance_is_the_score_of_the_tilted_law() -> None:
    """D_u + s (D_c - D_u) has the score of p_u^(1 - s) p_c^s: here of two exact mixtures."""
    plain, given, x, sigma, scale = gmm25(), gmm25(weights="chi2"), noisy(0.6, d=2), 0.6, 2.5

    def denoiser(x: Tensor, sigma: Any, /, label: int | None = None, **_: Any) -> Tensor:
        return (plain if label is None else given)(x, sigma)

    guided = guide(denoiser, scale)
    x.requires_grad_()
    tilted = (1 - scale) * plain.log_prob(x, sigma) + scale * given.log_prob(x, sigma)
    (gradient,) = torch.autograd.grad(tilted.sum(), x)
    x = x.detach()
    torch.testing.assert_close((guided(x, sigma, label=0) - x) / sigma**2, gradient, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_not_finite_is_named(scale: float) -> None:
    with pytest.raises(InputError, match="guidance scale"):
        guide(conditional, scale)


def test_a_denoiser_called_in_a_type_is_handed_that_type() -> None:
    seen = []

    def network(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        seen.append((x.dtype, sigma.dtype, conditions))
        return x.double() / 3

    x = torch.ones(2, 3)
    out = denoise(cast_input(network, torch.bfloat16), x, 0.1, scale=2)
    assert seen == [(torch.bfloat16, torch.float32, {"scale": 2})]
    assert torch.equal(out, x / 3)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("called_in", cast_input),
        ("labelled", conditions.labelled),
        ("moved", conditions.to_device),
        ("rows_of", conditions.take),
        ("split_conditions", conditions.split_conditions),
    ],
)
def test_an_old_name_is_the_new_one_and_says_so(old: str, new: Any) -> None:
    with pytest.warns(DeprecationWarning, match=f"headstart.denoiser.{old} is now .*{new.__name__}"):
        assert getattr(denoiser_module, old) is new


def test_calls_and_samples_are_counted() -> None:
    counted = Counted(conditional)
    for n in (1, 5, 3):
        x = torch.ones(n, 2)
        assert torch.equal(counted(x, 0.5, label=1.0), conditional(x, 0.5, 1.0))
    assert (counted.calls, counted.samples) == (3, 9)
    assert repr(counted) == "Counted(3 calls, 9 samples)"


# What `denoise` hands over, and what it lets through.


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_a_denoiser_gets_one_level_per_sample_and_its_answer_the_states_dtype(dtype: torch.dtype) -> None:
    network, x = Recorder(), torch.ones(3, 2, 2, dtype=dtype)

    def wide(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        return network(x, sigma, **conditions).double()

    out = denoise(wide, x, 0.3, label=1)
    ((seen, sigma, conditions),) = network.seen
    assert torch.equal(seen, x)
    assert seen.data_ptr() != x.data_ptr()
    assert torch.equal(sigma, torch.full((3,), 0.3, dtype=torch.promote_types(dtype, torch.float32)))
    assert conditions == {"label": 1}
    assert out.dtype == dtype
    assert torch.equal(out, torch.zeros_like(x))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x, s: x[:, :1], r"shape \(3, 1\) .*for an input of shape \(3, 2\)"),
        (lambda x, s: x[0], r"shape \(2,\)"),
        (lambda x, s: x.sum(), r"shape \(\)"),
        (lambda x, s: x.numpy(), "a ndarray"),
        (lambda x, s: (x, x), "a tuple"),
        (lambda x, s: None, "a NoneType"),
        (lambda x, s: x / 0, "NaN or Inf at sigma = 0.5"),
        (lambda x, s: torch.where(torch.arange(2) > 0, math.nan, x), "NaN or Inf"),
        (lambda x, s: x.double() * 1e300, "NaN or Inf"),
        (lambda x: x, r"failed on an input of shape \(3, 2\) \(TypeError"),
        (lambda x, s: x @ x, "RuntimeError"),
        (lambda x, s, label: x, "required .*it was given no conditions: does it need classes"),
        (lambda x, s, label=None: x + label, "NoneType.*does it need classes"),
    ],
)
def test_a_bad_answer_is_named(answer: Any, message: str) -> None:
    with pytest.raises(DenoiserError, match=message):
        denoise(answer, torch.ones(3, 2), 0.5)


def test_an_answer_whose_sum_overflows_is_finite() -> None:
    x = torch.full((2, 3), 6e4, dtype=torch.float16)
    assert torch.isinf(x.sum())
    assert is_finite(x)
    assert torch.equal(denoise(lambda x, sigma, /, **_: x, x, 0.5), x)


def test_an_answer_that_overflows_the_states_dtype_does_not_pass() -> None:
    with pytest.raises(DenoiserError, match="NaN or Inf"):
        denoise(lambda x, sigma, /, **_: x.float() * 1e6, torch.ones(2, 2, dtype=torch.float16), 0.5)


def test_errors_of_the_house_pass_through_a_denoiser_unchanged() -> None:
    with pytest.raises(InputError, match=r"expects \(B, 2\)"):
        denoise(gmm25(), torch.ones(3, 4), 0.5)


@pytest.mark.parametrize("shape", [(2, 3), (2, 1, 4, 4)])
def test_a_level_is_expanded_over_a_sample(shape: tuple[int, ...]) -> None:
    x = torch.ones(shape, dtype=torch.float64)
    assert torch.equal(expand(0.5, x) * x, 0.5 * x)
    levels = torch.tensor([0.5, 2.0])
    assert expand(levels, x).dtype == torch.float64
    assert torch.equal((expand(levels, x) * x).flatten(1), levels.double()[:, None].expand(2, x[0].numel()))


def test_the_reference_network_of_these_tests_is_right() -> None:
    """Its score is the gradient of torch.distributions' log density of z, and z = a E[x0 | z] + b E[eps | z]."""
    law, z = random_law(), noisy(0.5).requires_grad_()
    a, b = torch.full((6,), 0.6, dtype=torch.float64), torch.full((6,), 0.8, dtype=torch.float64)
    spread = 0.36 * law.covariances + 0.64 * torch.eye(3, dtype=torch.float64)
    density = MixtureSameFamily(Categorical(law.weights), MultivariateNormal(0.6 * law.means, spread))
    (gradient,) = torch.autograd.grad(density.log_prob(z).sum(), z)  # type: ignore[no-untyped-call]
    x0, eps, score = law.conditional(z.detach(), a, b)
    torch.testing.assert_close(score, gradient, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(0.6 * x0 + 0.8 * eps, z.detach(), rtol=1e-12, atol=1e-12)


def test_only_errors_of_indices_are_laid_to_a_fractional_time() -> None:
    """A table looked up by a fraction is one; a row that is longer than another is not."""
    x, table = torch.zeros(2, 3), torch.nn.Embedding(1000, 3)
    process = DiscreteVariancePreserving(DDPM.tolist())
    with pytest.raises(DenoiserError, match="rounded=True"):
        denoise(adapt(lambda z, t: z + table(t), "epsilon", process), x, 1.0)

    def other(z: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        raise ValueError("a row is longer than the others")

    with pytest.raises(DenoiserError, match="longer") as found:
        denoise(adapt(other, "epsilon", process), x, 1.0)
    assert "fractional" not in str(found.value)


@pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (20.0, 0.1), (0.1, 701.0), (0.1, math.inf), (0.1, math.nan)])
def test_rates_of_noise_have_a_range(low, high):
    with pytest.raises(InputError, match="the rate of noise rises from above 0 to at most 700"):
        VariancePreserving(low, high)
    assert math.isfinite(VariancePreserving(700.0, 700.0).sigma_max)
