"""The contract holds a network's code at arm's length: what it is handed, what it may answer, how it is called."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.denoiser import Counted, Denoiser, adapt, answer, cast_input, denoise, guide
from headstart.errors import DenoiserError
from headstart.initialization import Isotropic
from headstart.profile import Profile
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.solver import get_solver

MEAN, VARIANCE = 1.0, 0.25


def pure(x: Tensor, sigma: Any, /, **_: Any) -> Tensor:
    """Exact for N(1, 0.25)."""
    s = torch.as_tensor(sigma).reshape(-1, 1)
    return MEAN + VARIANCE / (VARIANCE + s**2) * (x - MEAN)


def in_place(x: Tensor, sigma: Any, /, **_: Any) -> Tensor:
    """The same, which leaves its input scaled."""
    out = pure(x, sigma)
    x.mul_(0.1)
    return out


class Buffered:
    """The same, which answers with one buffer for all calls."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, x: Tensor, sigma: Any, /, **_: Any) -> Tensor:
        buffer = self.buffers.setdefault(tuple(x.shape), torch.empty_like(x))
        return buffer.copy_(pure(x, sigma))


@pytest.mark.parametrize("make", [lambda: in_place, Buffered], ids=["in place", "one buffer"])
def test_a_network_that_writes_where_it_should_not_gives_the_samples_and_measurements_of_a_pure_one(
    make: Callable[[], Denoiser],
) -> None:
    data = MEAN + VARIANCE**0.5 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    expected, found = (Profile.measure(network, data) for network in (pure, make()))
    for name in ("losses", "corrector", "defect"):
        assert (getattr(found, name) == getattr(expected, name)).all()
    assert found.trajectories is not None
    assert expected.trajectories is not None
    assert (found.trajectories.products == expected.trajectories.products).all()
    for solver in ("heun", "dpm++3m", "ipndm", "predictor-corrector"):
        sampler = Sampler(Isotropic((2,)), rho_grid(5, 8.0, 0.05), get_solver(solver))
        assert torch.equal(sampler.sample(make(), 20), sampler.sample(pure, 20))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(1))
    kept = x.clone()
    assert torch.equal(guide(make(), 3.0)(x, 0.5), guide(pure, 3.0)(kept, 0.5))
    assert torch.equal(x, kept)


def test_a_condition_that_is_changed_in_place_is_named() -> None:
    def network(x: Tensor, sigma: Any, /, embedding: Tensor) -> Tensor:
        embedding.add_(1)
        return x

    with pytest.raises(DenoiserError, match="'embedding' in place"):
        denoise(network, torch.ones(2, 2), 0.5, embedding=torch.zeros(2))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (lambda z: z[:, :1], r"shape \(4, 1, 2, 2\) for an input of shape \(4, 3, 2, 2\)"),
        (lambda z: z.mean(), r"shape \(\)"),
        (lambda z: torch.cat([z, z], 1), r"learned variance.*out\[:, :3\]"),
        (lambda z: SimpleNamespace(sample=z), r"SimpleNamespace.*return out\.sample"),
        (lambda z: {"sample": z}, r"dict.*return out\['sample'\]"),
        (lambda z: (z,), r"tuple.*return out\[0\]"),
        (lambda z: None, "NoneType"),
        (lambda z: z.long(), r"torch\.int64"),
        (lambda z: z.to(torch.complex64), r"torch\.complex64"),
    ],
)
def test_a_networks_own_answer_is_checked_before_arithmetic(reply: Any, said: str) -> None:
    x = torch.ones(4, 3, 2, 2)
    networks = [
        lambda z, _, /, **c: reply(z),
        guide(lambda x, _, /, label=None: x if label is None else reply(x), 2.0),
        *(adapt(lambda z, _: reply(z), prediction) for prediction in ("x0", "epsilon", "score", "v", "flow")),
    ]
    for network in networks:
        conditions = {"label": torch.ones(4)} if network is networks[1] else {}
        with pytest.raises(DenoiserError, match=said):
            denoise(network, x, 1.0, **conditions)


def test_conditions_may_have_any_name() -> None:
    def network(z: Tensor, time: Tensor, /, **conditions: Tensor) -> Tensor:
        return z + sum(conditions.values())

    named = {"x": torch.tensor(1.0), "sigma": torch.tensor(2.0), "denoiser": torch.tensor(4.0)}
    z = torch.zeros(2, 3)
    for denoiser in (network, Counted(network), adapt(network, "x0"), cast_input(network, torch.float64)):
        assert torch.equal(denoise(denoiser, z, 0.5, **named), torch.full((2, 3), 7.0))
        assert torch.equal(answer(denoiser, z, torch.full((2,), 0.5), **named), torch.full((2, 3), 7.0))
    solver, schedule = get_solver("euler"), rho_grid(1, 0.5, 0.1)
    assert torch.equal(solver.solve(network, z, schedule, None, schedule=torch.tensor(3.0), **named), z + 10)


def test_states_beyond_a_type_name_the_type() -> None:
    with pytest.raises(DenoiserError, match=r"1e\+05 do not fit into torch\.float16"):
        denoise(cast_input(pure, torch.float16), torch.full((2, 2), 1e5), 1.0)


@pytest.mark.parametrize("deviation", [1.0, 100.0, 1e4])
def test_levels_end_where_a_half_type_does(deviation: float) -> None:
    def network(x: Tensor, sigma: Any, /) -> Tensor:
        return x / (1 + (sigma.reshape(-1, 1) / deviation) ** 2)

    data = deviation * torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float16, torch.bfloat16):
        found = Profile.measure(lambda x, s: network(x.float(), s), data, dtype=dtype)
        assert found.sigmas[0] == pytest.approx(min(200 * found.sigma_data, torch.finfo(dtype).max / 16), rel=1e-9)


def test_a_part_of_a_condition_that_is_changed_in_place_is_named() -> None:
    def network(x: Tensor, sigma: Any, /, context: Any) -> Tensor:
        context["text"][0].add_(1)
        return x

    with pytest.raises(DenoiserError, match="'context' in place"):
        denoise(network, torch.ones(2, 2), 0.5, context={"text": [torch.zeros(2)]})
