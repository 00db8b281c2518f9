"""A flow of torchcfm, trained on independent pairs of noise and data: its solver, and a plan of four evaluations.

A short training on two moons stands in for yours.
"""

import torch
from sklearn.datasets import make_moons
from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
from torchcfm.models.models import MLP

from headstart import Sampler, Schedule
from headstart.initialization import Mixture
from headstart.integrations.flows import from_torchcfm
from headstart.solver import DPMSolverPP2M


def main(steps=500):
    torch.manual_seed(0)
    data = torch.from_numpy(make_moons(2000, noise=0.05, random_state=0)[0]).float()
    network, matcher = MLP(dim=2, time_varying=True), ConditionalFlowMatcher(sigma=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(steps):
        x1 = data[torch.randint(len(data), (128,))]
        t, xt, ut = matcher.sample_location_and_conditional_flow(torch.randn_like(x1), x1)
        torch.nn.functional.mse_loss(network(torch.cat([xt, t[:, None]], dim=1)), ut).backward()
        optimizer.step()
        optimizer.zero_grad()

    def velocity(t, x):  # as NeuralODE and odeint call it, with one time for all or one each
        return network(torch.cat([x, t.reshape(-1, 1).expand(len(x), 1)], dim=1))

    x, count = torch.randn(256, 2), 100
    with torch.no_grad():
        for i in range(count):
            x = x + velocity(torch.tensor(i / count), x) / count

    # A network that was trained on pairs by optimal transport is no denoiser. With time: fit(denoiser, data, nfe=4).
    denoiser = from_torchcfm(velocity)
    plan = Sampler(Mixture.fit(data, components=10), Schedule((0.4, 0.2, 0.1, 0.04, 0.0)), DPMSolverPP2M())
    samples = plan.sample(denoiser, len(x))
    print(f"{len(samples)} samples of {plan.nfe} evaluations each, beside {len(x)} by {count} steps of Euler's method")
    return samples


if __name__ == "__main__":
    main()
