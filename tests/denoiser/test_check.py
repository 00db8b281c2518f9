"""Right networks are not doubted, wrong ones are, and the likeliest mistake is named."""

from __future__ import annotations

import itertools
import math
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.choose import fit
from headstart.data import load_data
from headstart.denoiser import (
    DiscreteVariancePreserving,
    Prediction,
    Process,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    adapt,
    check,
    guide,
)
from headstart.errors import DataError, DenoiserError, InputError
from headstart.models import load_denoiser
from headstart.noise import Noise
from headstart.targets import Empirical, Gaussian, GaussianMixture, Target, bimodal, cantor, gmm25, t_mix2, t_prod

PREDICTIONS: tuple[Prediction, ...] = ("x0", "epsilon", "score", "v", "flow")
DDPM = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
PROCESSES: tuple[Process, ...] = (
    VarianceExploding(),
    VariancePreserving(),
    RectifiedFlow(),
    RectifiedFlow(1000.0),
    RectifiedFlow(data_at=1),
    DiscreteVariancePreserving(DDPM.tolist()),
    DiscreteVariancePreserving(DDPM.tolist(), rounded=True),
)
M, SD = torch.tensor([0.3, -0.5]), torch.tensor([0.5, 0.4])
DATA = M + SD * torch.randn(600, 2, generator=torch.Generator().manual_seed(0))


def exact(x: Tensor, sigma: Any, /, **_: Any) -> Tensor:
    """The denoiser of N(M, SD^2)."""
    return M + SD**2 / (SD**2 + torch.as_tensor(sigma).reshape(-1, 1) ** 2) * (x - M)


def level_at(process: Process, time: Tensor) -> Tensor:
    """The noise level at a network's own time, by the process' definition."""
    t = time.double()
    if isinstance(process, VariancePreserving):
        return torch.expm1(0.5 * 19.9 * t**2 + 0.1 * t).sqrt()
    if isinstance(process, RectifiedFlow):
        t = 1 - t / process.time_scale if process.data_at else t / process.time_scale
        return t / (1 - t)
    if isinstance(process, DiscreteVariancePreserving):
        logs, k = 0.5 * ((1 - DDPM) / DDPM).log(), t.floor().long().clamp(0, 998)
        return (logs[k] + (t - k) * (logs[k + 1] - logs[k])).exp()
    return t


def network_of(denoiser: Any, process: Process, prediction: Prediction, sign: int = 1) -> Callable[..., Tensor]:
    """A network that predicts in a process what a denoiser knows."""
    backward = -1 if isinstance(process, RectifiedFlow) and process.data_at else 1

    def network(z: Tensor, time: Tensor) -> Tensor:
        s = level_at(process, time).reshape(-1, *[1] * (z.ndim - 1))
        a = process.scale(s)
        x = z.double() / a
        clean = denoiser(x, s.flatten())
        noise = (x - clean) / s
        said = {
            "x0": clean,
            "epsilon": noise,
            "score": -noise / (a * s),
            "v": (noise - s * clean) / (1 + s**2).sqrt(),
            "flow": backward * (noise - clean),
        }
        return sign * said[prediction].to(z.dtype)

    return network


def random_law(rng: random.Random, g: torch.Generator) -> Target:
    d = rng.choice([1, 2, 3, 8, 32, 200])
    known = {"gmm25": gmm25, "bimodal": bimodal, "t": t_prod, "t mixture": t_mix2, "cantor": cantor}
    kind = rng.choice(["gaussian", "mixture", "points", *known])
    if kind in known:
        return known[kind]()
    count = {"gaussian": 1, "mixture": rng.choice([2, 5]), "points": 30}[kind]
    means = 2 * torch.randn(count, d, generator=g, dtype=torch.float64)
    if kind == "points":
        return Empirical(means)
    roots = torch.randn(count, d, d, generator=g, dtype=torch.float64) / d**0.5
    spread = 0.3 * roots @ roots.mT + 0.01 * torch.eye(d, dtype=torch.float64)
    if kind == "gaussian":
        return Gaussian(means[0], spread[0])
    return GaussianMixture(torch.full((count,), 1 / count, dtype=torch.float64), means, spread)


@pytest.mark.parametrize(
    "seeds", [range(25), pytest.param(range(25, 200), marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_no_exact_network_is_doubted(seeds: range) -> None:
    """Of any law, in any units, of few and of many data, in any process, predicting anything."""
    for seed in seeds:
        rng, g = random.Random(seed), torch.Generator().manual_seed(seed)
        law, a = random_law(rng, g), 10 ** rng.uniform(-1, 1)
        b, n = rng.uniform(-2, 2) * a, rng.choice([10, 20, 60, 200, 1000])
        data = a * law.sample(Noise(range(1000 * seed, 1000 * seed + n), dtype=torch.float64)) + b

        def scaled(x: Tensor, s: Tensor, law: Target = law, a: float = a, b: float = b) -> Tensor:
            return a * law((x - b) / a, s / a) + b

        process, prediction = rng.choice(PROCESSES), rng.choice(PREDICTIONS)
        found = check(adapt(network_of(scaled, process, prediction), prediction, process), data.float(), seed=seed)
        assert not found.errors + found.doubts, (seed, law, n, process, prediction, str(found))


DECLARED = [
    *(
        ((true, process, 1), (said, process))
        for process in (VarianceExploding(), VariancePreserving())
        for true, said in itertools.product(PREDICTIONS, PREDICTIONS)
        if true != said
    ),
    *(
        ((kind, process, -1), (kind, process))
        for process in (VarianceExploding(), VariancePreserving(), RectifiedFlow())
        for kind in ("epsilon", "score", "v", "flow")
    ),
    *(
        (("flow", true, 1), ("flow", said))
        for true, said in itertools.permutations(
            [RectifiedFlow(), RectifiedFlow(data_at=1), RectifiedFlow(1000.0), RectifiedFlow(1000.0, data_at=1)], 2
        )
    ),
    *(((p, VariancePreserving(), 1), (p, VarianceExploding())) for p in ("epsilon", "score")),
    (("x0", VarianceExploding(), 1), ("x0", VariancePreserving())),
]


@pytest.mark.parametrize(("true", "said"), DECLARED, ids=repr)
def test_a_wrong_declaration_is_named(true: tuple[Prediction, Process, int], said: tuple[Prediction, Process]) -> None:
    """And what is named is right: the loss under it is that of the exact network."""
    prediction, process, sign = true
    denoiser = adapt(network_of(exact, process, prediction, sign), *said)
    found = check(denoiser, DATA)
    assert found.errors
    assert found.errors[0].kind == "loss"
    assert "it would be 1.0 times" in str(found.errors[0])


@pytest.mark.parametrize(
    "process", [RectifiedFlow(), RectifiedFlow(1000.0), RectifiedFlow(1000.0, data_at=1)], ids=repr
)
@pytest.mark.parametrize("said", [RectifiedFlow(), VariancePreserving()], ids=repr)
def test_a_velocity_of_a_flow_that_is_declared_v_is_named_by_a_usual_process(process: Process, said: Any) -> None:
    """A time that is multiplied by 999 would be as good, and is no process that anyone uses."""
    found = check(adapt(network_of(exact, process, "flow"), "v", said), DATA)
    assert [finding.kind for finding in found.errors] == ["loss"]
    assert "'flow'" in str(found.errors[0])
    assert "with the time" not in str(found.errors[0])


@pytest.mark.parametrize(
    ("prediction", "process", "said"),
    [
        ("epsilon", VarianceExploding(), "prediction 'epsilon'"),
        ("flow", RectifiedFlow(data_at=1), r"RectifiedFlow\(data_at=1\)"),
        ("epsilon", VariancePreserving(), r"'epsilon', VariancePreserving\(\)"),
    ],
)
def test_a_network_that_was_not_adapted_is_named(prediction: Prediction, process: Process, said: str) -> None:
    found = check(network_of(exact, process, prediction), DATA)
    assert [finding.kind for finding in found.errors] == ["loss"]
    with pytest.raises(InputError, match=said):
        fit(network_of(exact, process, prediction), DATA, 3)


@pytest.mark.parametrize("said", [VarianceExploding(), VariancePreserving()], ids=repr)
def test_a_network_of_ddpm_that_is_declared_another_is_named(said: Process) -> None:
    """Its indices are no time in [0, 1] and no noise level."""
    process = DiscreteVariancePreserving(DDPM.tolist())
    found = check(adapt(network_of(exact, process, "epsilon"), "epsilon", said), DATA)
    assert "try adapt(network, 'epsilon', DiscreteVariancePreserving(alphas_cumprod))" in str(found.errors[0])


def test_alphas_in_place_of_their_products_are_named() -> None:
    law = bimodal()
    process = DiscreteVariancePreserving(DDPM.tolist())
    alphas = 1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    said = DiscreteVariancePreserving(alphas.tolist())
    found = check(adapt(network_of(law, process, "epsilon"), "epsilon", said), law.sample(Noise(range(1000))).float())
    assert "DiscreteVariancePreserving(torch.cumprod(alphas, 0))" in str(found.errors[0])


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("level", "code"), [(torch.exp, r"time\.log\(\)"), (lambda t: t / 1000, r"(999|1000) \* time")]
)
def test_a_correction_of_the_time_is_code_that_runs(level: Any, code: str, sign: int) -> None:
    """What is proposed makes it a denoiser."""
    law = bimodal()
    data = law.sample(Noise(range(1000))).float()
    inner = network_of(law, VarianceExploding(), "epsilon", sign)

    def network(z: Tensor, time: Tensor) -> Tensor:
        return inner(z, level(time))

    proposed = str(check(adapt(network, "epsilon"), data).errors[0]).partition("try ")[2]
    assert re.search(rf"network\(z, {code}\)", proposed)
    names = {"adapt": adapt, "network": network, "VarianceExploding": VarianceExploding}
    assert not check(eval(proposed, names), data).errors


def test_what_is_right_is_said_to_be() -> None:
    assert "nothing is wrong" in str(check(gmm25(), gmm25().sample(Noise(range(400)))))
    assert "hardly better" not in str(check(gmm25(), gmm25().sample(Noise(range(400)))))
    assert "hardly better" in str(check(exact, DATA)), "the data are normal"


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (127.5, 127.5), (2.0, 0.0), (1.0, 3.0)])
def test_data_in_other_units_are_named(a: float, b: float) -> None:
    found = check(exact, a * DATA + b)
    assert {finding.kind for finding in (*found.errors, *found.doubts)} <= {"loss", "scale", "mean"}
    assert found.errors or found.doubts


@pytest.mark.parametrize(
    ("slope", "said"),
    [
        (lambda s: SD / (SD + s), "optimally coupled"),
        (lambda s: SD / (SD**2 + s**2).sqrt(), "consistency model"),
    ],
)
def test_networks_of_other_kinds_are_named(slope: Callable[[Tensor], Tensor], said: str) -> None:
    """The flow along straight optimal paths, and the end of the ODE, of a Gaussian."""
    found = check(lambda x, s: M + slope(s.reshape(-1, 1)) * (x - M), DATA)
    assert any(said in str(finding) for finding in (*found.errors, *found.doubts))


def test_a_guided_network_is_said_to_be_one() -> None:
    def conditional(x: Tensor, sigma: Any, /, label: Tensor | None = None) -> Tensor:
        return exact(x, sigma) + (0.0 if label is None else 0.4 * (label.reshape(-1, 1) - 0.5))

    found = check(guide(conditional, 8.0), DATA, labels=(DATA[:, 0] > 0.3).long())
    assert not found.errors
    assert "guided" in str(found.doubts[0])


class Faulty:
    """The exact denoiser with a fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault
        self.buffer = torch.empty(0)

    def __call__(self, x: Tensor, sigma: Any, /, **_: Any) -> Tensor:
        if self.fault == "sigma":
            return exact(x, torch.full_like(sigma, 0.4))
        out = exact(x, sigma)
        if self.fault == "random":
            return out * (1 + 0.1 * torch.randn(out.shape))
        if self.fault == "batch":
            return out - 0.1 * out.mean(0)
        if self.fault == "type":
            return out.half()
        if self.fault == "in place":
            x.zero_()
        if self.fault == "buffer":
            if self.buffer.shape != out.shape:
                self.buffer = out
            return self.buffer.copy_(out)
        if self.fault == "failure":
            return out / 0
        return out


@pytest.mark.parametrize("fault", ["random", "batch", "sigma", "failure"])
def test_no_function_of_its_input_is_no_denoiser(fault: str) -> None:
    torch.manual_seed(0)
    assert check(Faulty(fault), DATA).errors[0].kind == fault
    with pytest.raises(DenoiserError):
        fit(Faulty(fault), DATA, 3)


@pytest.mark.parametrize("fault", ["type", "in place", "buffer"])
def test_habits_that_do_no_harm_here_are_doubts(fault: str) -> None:
    found = check(Faulty(fault), DATA)
    assert not found.errors
    assert [doubt.kind for doubt in found.doubts] == [fault]


def test_a_function_around_an_adapted_network_hides_its_levels() -> None:
    adapted = adapt(network_of(exact, VariancePreserving(), "epsilon"), "epsilon", VariancePreserving())
    found = check(lambda x, s: adapted(x, s), DATA)
    assert [doubt.kind for doubt in found.doubts] == ["levels"]
    assert not check(adapted, DATA).doubts


def test_levels_that_do_not_reach_the_data_are_an_error() -> None:
    narrow = adapt(exact, "x0", VarianceExploding(0.01))
    assert check(narrow, DATA).errors[0].kind == "levels"


def test_the_bundled_network_is_not_doubted_and_far_better_than_linear() -> None:
    network, data = load_denoiser("builtin:fashion-mnist"), load_data("builtin:fashion-mnist")
    for labels in (None, data.labels):
        found = check(network, data.samples, labels=labels)
        assert not found.errors + found.doubts
        assert found.ratios.max() < 0.67
        assert found.evaluations < 500


def test_wide_data_and_their_conditions() -> None:
    """16,384 coordinates of falling variances, and a shift that only the condition tells."""
    sd, g = torch.arange(1, 16385).double() ** -0.5, torch.Generator().manual_seed(0)
    shift = torch.randn(40, 1, generator=g, dtype=torch.float64)
    data = shift + sd * torch.randn(40, 16384, generator=g, dtype=torch.float64)

    def network(x: Tensor, sigma: Tensor, shift: Tensor) -> Tensor:
        s2 = sigma.double().reshape(-1, 1) ** 2
        return (shift + sd**2 / (sd**2 + s2) * (x - shift)).to(x.dtype)

    found = check(network, data.float(), {"shift": shift})
    assert not found.errors + found.doubts
    wrong = check(network, data.float(), {"shift": shift.roll(1, 0)})
    assert wrong.errors or wrong.doubts


def test_a_check_changes_no_number_of_a_fit_and_is_a_function_of_its_seed() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second, other = (check(exact, DATA, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(first.ratios, second.ratios)
    assert not np.array_equal(first.ratios, other.ratios)
    plans = [fit(exact, DATA, 3, pilot_samples=32, check=asked) for asked in (True, False)]
    assert plans[0].schedule == plans[1].schedule
    assert torch.equal(plans[0].sample(exact, 5), plans[1].sample(exact, 5))


def test_a_doubt_is_kept_with_the_plan() -> None:
    plan = fit(Faulty("in place"), DATA, 3, pilot_samples=32)
    assert len(plan.record.doubts) == 1
    assert plan.record.doubts[0] in plan.explain()


@pytest.mark.parametrize(
    "data", [torch.ones(3, 2), torch.ones(9, 2), torch.full((9, 2), math.nan), torch.ones(9, 2, dtype=torch.int64)]
)
def test_data_that_tell_nothing_are_refused(data: Tensor) -> None:
    with pytest.raises(DataError):
        check(exact, data)


def test_what_is_not_checked_is_named() -> None:
    data = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(20) % 2
    for wrong, said in (
        (data[:3], r"shape \(3, 2\)"),
        (data.long(), "type torch.int64"),
        (data[:, :0], r"shape \(20, 0\)"),
        (data.where(data < 1, math.nan), "NaN or infinite values"),
    ):
        with pytest.raises(DataError, match=said):
            check(lambda x, sigma: x, wrong)
    with pytest.raises(InputError, match="no range of levels"):
        check(lambda x, sigma: x, data, sigma_max=math.nan)
    with pytest.raises(DataError, match=r"labels has type torch\.float32: expected integers"):
        check(lambda x, sigma, label: x, data, labels=classes.float())
    for call in (check, fit):
        with pytest.raises(InputError, match="the label is given twice"):
            call(lambda x, sigma, label: x, data, conditions={"label": classes}, labels=classes)  # type: ignore[operator]
