"""sbi and treeffuser: a posterior of two moons by NPSE, and responses of a table by trees."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from experiments.clients.laws import HELD_OUT, TRAIN, samples
from experiments.clients.network import Calls, Client, Network, Place, package, seeded
from experiments.common import drawn
from headstart.integrations.sbi import from_sbi
from headstart.integrations.treeffuser import from_treeffuser
from headstart.noise import Noise

__all__ = ["CLIENTS", "crescent", "posterior", "simulated"]

#: The observation.
OBSERVED = (0.0, 0.0)


def crescent(noise: Noise) -> Tensor:
    """The noise of the simulator, points (N, 2) on half a circle of radius 0.1 around (0.25, 0)."""
    angle, radius = math.pi * (noise.uniform() - 0.5), 0.1 + 0.01 * noise.normal(())
    return torch.stack([radius * angle.cos() + 0.25, radius * angle.sin()], dim=1)


def simulated(theta: Tensor, p: Tensor) -> Tensor:
    """Observations (N, 2) of parameters (N, 2): two moons, a benchmark of simulation-based inference."""
    return p + torch.stack([-(theta[:, 0] + theta[:, 1]).abs(), theta[:, 1] - theta[:, 0]], dim=1) / math.sqrt(2)


def posterior(noise: Noise) -> Tensor:
    """Exact parameters (N, 2) given the observation, for a uniform prior on [-1, 1]^2: the simulator is inverted."""
    p, sign = crescent(noise), torch.where(noise.uniform() < 0.5, 1.0, -1.0)
    total = sign * math.sqrt(2) * (p[:, 0] - OBSERVED[0])
    difference = math.sqrt(2) * (OBSERVED[1] - p[:, 1])
    return torch.stack([total - difference, total + difference], dim=1) / 2


class _Silent:
    """A tracker of sbi that keeps no logs; its own writes them into the working folder."""

    log_dir = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *values, **named: None


def npse(sde: str) -> Callable[[Place], Network]:
    """A score network of all posteriors, variance-exploding ("ve") or -preserving ("vp")."""

    def make(place: Place) -> Network:
        sbi = package("sbi.inference")
        ones = torch.ones(2)
        prior = package("sbi.utils").BoxUniform(-ones, ones)
        count = place.some(10_000, 400)
        theta = drawn(lambda noise: 2 * noise.uniform((2,)) - 1, count, TRAIN, 0)
        x = simulated(theta, drawn(crescent, count, TRAIN, 1))
        with seeded(0):
            trainer = sbi.NPSE(prior, sde_type=sde, tracker=_Silent(), show_progress_bars=False)
            trainer.append_simulations(theta, x)
            estimator = trainer.train(training_batch_size=200, max_num_epochs=1)  # which builds the network

            def train() -> None:
                best = trainer.train(training_batch_size=200, max_num_epochs=place.some(100, 1), resume_training=True)
                estimator.load_state_dict(best.state_dict())

            place.trained(f"sbi-{sde}", estimator, train)
        sampler, observed = trainer.build_posterior(estimator), torch.tensor([OBSERVED])
        estimator = sampler.vector_field_estimator  # a copy
        calls = Calls(estimator.net)

        def own(count: int, seed: int) -> Tensor:
            with seeded(seed):
                found: Tensor = sampler.sample((count,), x=observed, show_progress_bars=False)
            return found

        held_out = drawn(posterior, place.some(8000, 400), HELD_OUT, 0)
        return Network(from_sbi(estimator, observed), own, calls, held_out)

    return make


def treeffuser(place: Place) -> Network:
    """Responses with two branches and heavy tails, given one column."""
    model = package("treeffuser").Treeffuser(seed=0, **({"n_estimators": 20, "n_repeats": 2} if place.quick else {}))
    train = samples("responses", place.some(6000, 300), TRAIN).numpy()
    model.fit(train[:, :1], train[:, 1:])
    calls, trees = Calls(), model.score_model
    score = trees.score

    def counted(y: Any, X: Any, t: Any) -> Any:
        calls.add(len(y))
        return score(y=y, X=X, t=t)

    trees.score = counted
    held_out = samples("responses", place.some(8000, 200), HELD_OUT)
    half = len(held_out) // 2

    def scaled(y: Any) -> Tensor:
        return torch.from_numpy(model._y_scaler.transform(y)).float()

    def own(count: int, seed: int) -> Tensor:
        rows = held_out[half : half + count, :1].numpy()
        return scaled(model.sample(rows, n_samples=1, seed=seed).reshape(-1, 1))

    return Network(
        from_treeffuser(model),
        own,
        calls,
        scaled(held_out[:, 1:].numpy()),
        scaled(train[:, 1:]),
        conditions={"X": torch.from_numpy(train[:, :1]).float()},
        held_conditions={"X": held_out[:, :1].float()},
        beside=held_out[:, :1].float(),
    )


CLIENTS = (
    *(
        Client(
            f"sbi NPSE, {sde.upper()}",
            "the posterior of two moons given one observation",
            "euler_maruyama, 500 steps",
            npse(sde),
        )
        for sde in ("ve", "vp")
    ),
    Client(
        "treeffuser",
        "a table with two branches and heavy tails",
        "Treeffuser.sample, 100 steps",
        treeffuser,
    ),
)
