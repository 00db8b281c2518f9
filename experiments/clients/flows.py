"""torchcfm with independent pairs and flow_matching: networks of points, and the solvers of their tutorials."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.clients.laws import HELD_OUT, TRAIN, samples
from experiments.clients.network import Calls, Client, Network, Perceptron, Place, descend, package, seeded
from headstart.integrations.flows import from_flow_matching, from_torchcfm

__all__ = ["CLIENTS"]


def torchcfm(place: Place) -> Network:
    """Two moons: its own perceptron of (x, t), and Dormand and Prince's method at its tutorials' tolerance."""
    matcher = package("torchcfm.conditional_flow_matching").ConditionalFlowMatcher(sigma=0.0)
    odeint = package("torchdiffeq").odeint
    data = samples("moons", place.some(20_000, 300), TRAIN)
    with seeded(0):
        network = package("torchcfm.models.models").MLP(dim=2, w=128, time_varying=True)

        def loss() -> Tensor:
            x1 = data[torch.randint(len(data), (256,))]
            t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
            return nn.functional.mse_loss(network(torch.cat([xt, t[:, None]], dim=1)), ut)

        place.trained("torchcfm", network, lambda: descend(network, loss, place.some(12_000, 50)))
    calls = Calls(network)

    def velocity(t: Tensor, x: Tensor) -> Tensor:
        found: Tensor = network(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))
        return found

    def own(count: int, seed: int) -> Tensor:
        with seeded(seed):
            x = torch.randn(count, 2)
        found: Tensor = odeint(velocity, x, torch.tensor([0.0, 1.0]), atol=1e-4, rtol=1e-4, method="dopri5")[-1]
        return found

    return Network(from_torchcfm(velocity), own, calls, samples("moons", place.some(8000, 400), HELD_OUT), data)


def flow_matching(place: Place) -> Network:
    """A checkerboard: the straight path, and the midpoint rule of its documentation."""
    path = package("flow_matching.path").AffineProbPath(package("flow_matching.path.scheduler").CondOTScheduler())
    solver = package("flow_matching.solver").ODESolver
    data = samples("checkerboard", place.some(20_000, 300), TRAIN)
    with seeded(0):
        network = Perceptron(2)

        def loss() -> Tensor:
            x1 = data[torch.randint(len(data), (256,))]
            at = path.sample(x_0=torch.randn_like(x1), x_1=x1, t=torch.rand(len(x1)))
            return nn.functional.mse_loss(network(at.x_t, at.t), at.dx_t)

        place.trained("flow_matching", network, lambda: descend(network, loss, place.some(12_000, 50)))
    calls = Calls(network)

    def own(count: int, seed: int) -> Tensor:
        with seeded(seed):
            x = torch.randn(count, 2)
        made = solver(velocity_model=lambda x, t: network(x, t))
        found: Tensor = made.sample(x_init=x, method="midpoint", step_size=0.01)
        return found

    held_out = samples("checkerboard", place.some(8000, 400), HELD_OUT)
    return Network(from_flow_matching(network), own, calls, held_out, data)


CLIENTS = (
    Client("torchcfm, independent pairs", "two moons", "dopri5 of torchdiffeq, tolerance 1e-4", torchcfm),
    Client(
        "flow_matching",
        "a checkerboard",
        "ODESolver, midpoint, 100 steps",
        flow_matching,
    ),
)
