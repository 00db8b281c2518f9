"""Modules inside a denoiser are found, used in evaluation mode, and left as they were."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from headstart import Noise
from headstart.budget import euler_divergence, path_log_ratios, score_error
from headstart.choose import fit
from headstart.denoiser import Counted, adapt, guide, in_evaluation_mode, parts_of
from headstart.denoiser.modules import device_of
from headstart.initialization import Isotropic
from headstart.predictor import predictor_costs
from headstart.sampler import Sampler
from headstart.schedule import GITS, constant_rate, klub, rho_grid
from headstart.solver import Euler
from headstart.targets import Gaussian


class Network(nn.Module):
    """A denoiser with dropout and batch norm; the norm is frozen, as fine-tuned networks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.3), nn.BatchNorm1d(2)
        self.frozen = nn.BatchNorm1d(2).eval()

    def forward(self, x: Tensor, sigma: Any, **_: Any) -> Tensor:
        scale = (1 + torch.as_tensor(sigma).reshape(-1, 1) ** 2).rsqrt()
        return self.drop(self.frozen(self.norm(scale * x))) * scale


class Holder:
    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        return self.denoise(x, sigma)

    def denoise(self, x: Tensor, sigma: Any) -> Tensor:
        return self.network(x, sigma)  # type: ignore[no-any-return]


GLOBAL = Network()


def by_global(x: Tensor, sigma: Any, /) -> Tensor:
    return GLOBAL(x, sigma)  # type: ignore[no-any-return]


def by_function(x: Tensor, sigma: Any, /) -> Tensor:
    return by_global(x, sigma)


def _default(network: nn.Module) -> Any:
    def denoiser(x: Tensor, sigma: Any, net: nn.Module = network) -> Any:
        return net(x, sigma)

    return denoiser


WAYS: dict[str, Callable[[nn.Module], Any]] = {
    "itself": lambda network: network,
    "lambda": lambda network: lambda x, sigma: network(x, sigma),
    "default": _default,
    "partial": lambda network: partial(network, label=None),
    "attribute": Holder,
    "method": lambda network: Holder(network).denoise,
    "adapted": lambda network: Counted(adapt(lambda z, time: network(z, time), "x0")),
    "guided": lambda network: guide(network, 2.0),
    "compiled": lambda network: torch.compile(network, backend="eager"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_module_is_found_used_in_evaluation_mode_and_put_back(way: Callable[[nn.Module], Any]) -> None:
    network = Network()
    denoiser, seen = way(network), []

    @in_evaluation_mode
    def used(denoiser: Any) -> None:
        seen.append([module.training for module in network.modules()])

    used(denoiser=denoiser)
    assert seen == [[False] * 4]
    assert [module.training for module in network.modules()] == [True, True, True, False]


def test_a_module_behind_a_global_name_is_found() -> None:
    for function in (by_global, by_function):
        assert GLOBAL in list(parts_of(function))


def test_it_is_put_back_after_an_error() -> None:
    network = Network()

    @in_evaluation_mode
    def failing(denoiser: Any) -> None:
        assert not network.training
        raise KeyError

    with pytest.raises(KeyError):
        failing(network)
    assert network.training


def test_modules_that_hold_each_other_are_looked_at_once() -> None:
    first, second = Network().eval(), Network().eval()
    first.add_module("other", second)
    second.add_module("other", first)

    @in_evaluation_mode
    def run(denoiser: Any) -> bool:
        return bool(denoiser.training)

    assert not run(first)


def test_a_sample_is_a_function_of_its_seed_with_a_network_in_training_mode() -> None:
    network, sampler = Network(), Sampler(Isotropic((2,)), rho_grid(4, 5.0, 0.1), Euler())
    first = sampler.sample(network, 30)
    torch.testing.assert_close(first, sampler.sample(network, 30, batch_size=7))
    assert torch.equal(first, sampler.sample(network.eval(), 30))


LAW, LEVELS = Gaussian([0.0, 0.0], 1.0), rho_grid(3, 5.0, 0.5, final_zero=False)
STATES = [level * Noise(range(40)).normal((2,)) for level in LEVELS.sigmas]
CALLS: dict[str, Callable[[nn.Module], Any]] = {
    "solve": lambda network: Euler().solve(network, STATES[0], LEVELS),
    "constant_rate": lambda network: torch.from_numpy(constant_rate(network, STATES, LEVELS).costs),
    "gits": lambda network: torch.tensor(GITS.of(network, STATES, LEVELS).schedule(2).sigmas),
    "klub": lambda network: torch.from_numpy(klub(network, STATES[-1], 2.0, 1.0, samples=20)),
    "predictor": lambda network: predictor_costs(network, STATES[1], LEVELS.sigmas[1], LEVELS.sigmas[2]),
    "score_error": lambda network: torch.tensor(score_error(network.double(), LAW, LEVELS, Noise(range(40))).value),
    "path": lambda network: path_log_ratios(network.double(), LAW, LAW, LEVELS, [1.0] * 3, Noise(range(40))),
    "exact": lambda network: torch.tensor(euler_divergence(network.double(), LAW, LAW, LEVELS, Noise(range(40))).value),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_whatever_calls_a_network_often_uses_it_in_evaluation_mode(call: Callable[[nn.Module], Any]) -> None:
    network = Network()
    first = call(network)
    assert network.training
    assert int(network.norm.num_batches_tracked) == 0
    torch.testing.assert_close(first, call(network.eval()), rtol=0, atol=0)


def test_a_fit_leaves_a_networks_statistics_alone() -> None:
    network = Network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    fit(network, torch.randn(200, 2, generator=torch.Generator().manual_seed(0)), 3, pilot_samples=32)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training


def test_the_device_is_that_of_the_first_module_with_parameters() -> None:
    cpu, meta = torch.device("cpu"), torch.device("meta")
    assert device_of(guide(partial(nn.Linear(2, 2, device=meta), None), 2.0), cpu) == meta
    assert device_of(Counted(lambda x, sigma: x), meta) == meta
    assert device_of(nn.Identity(), meta) == meta
