# %% [markdown]
# # Your own network
#
# Here a small network is trained on points in the plane, as yours was on its data, and then sampled in four evaluations.
# All of it takes some seconds.

# %%
import torch
from torch import nn

from headstart import Noise, Sampler, check, fit
from headstart.initialization import Isotropic
from headstart.metrics import sliced_wasserstein
from headstart.schedule import rho_grid
from headstart.solver import Heun

torch.manual_seed(0)


def spirals(n, seed):
    """Two spiral arms in the plane."""
    noise = Noise(range(seed, seed + n))
    turn = 3.0 * noise.uniform((1,)).sqrt() + 0.5
    arm = torch.where(noise.uniform((1,)) < 0.5, 1.0, -1.0)
    x = arm * turn * torch.cat([(2 * turn).cos(), (2 * turn).sin()], 1) / 2
    return (x + 0.03 * noise.normal((2,))).float()


data, test = spirals(4000, 0), spirals(2000, 10_000)

# %% [markdown]
# ## The network
#
# Any architecture, any training. This one predicts the noise in $x_0 + \sigma \varepsilon$, with EDM's scaling of its
# input.

# %%


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = [2 + 16, 128, 128, 128, 2]
        pairs = zip(sizes[:-1], sizes[1:])
        self.layers = nn.Sequential(*[part for a, b in pairs for part in (nn.Linear(a, b), nn.SiLU())][:-1])

    def forward(self, x, sigma):
        sigma = torch.as_tensor(sigma).expand(len(x)).reshape(-1, 1)
        waves = sigma.log() * torch.linspace(0.25, 4.0, 8)
        return self.layers(torch.cat([x / (1 + sigma**2).sqrt(), waves.sin(), waves.cos()], 1))


network = Network()
optimiser = torch.optim.Adam(network.parameters(), 3e-3)
for step in range(1500):
    x = data[torch.randint(len(data), (256,))]
    sigma, noise = torch.exp(1.6 * torch.randn(256, 1) - 0.3), torch.randn(256, 2)
    loss = (network(x + sigma * noise, sigma[:, 0]) - noise).square().mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / 1500)

# %% [markdown]
# ## A denoiser of it
#
# headstart wants one thing: `denoiser(x, sigma)`, an estimate of the clean data. `adapt` makes one of a network that
# predicts the noise, and a check of a few hundred evaluations tells whether that is what it is.

# %%
from headstart import adapt

denoiser = adapt(network, "epsilon")
print(check(denoiser, data))

# %% [markdown]
# ## A plan

# %%
plan = fit(denoiser, data, nfe=4, sigma_max=20.0)  # the highest level that it has seen often enough
print(plan.explain())

# %% [markdown]
# ## Samples
#
# The same network, four evaluations from the plan's start beside 35 of EDM's sampler from noise. The distance is to
# points that nobody was fitted to; real points have one too, since there are finitely many of them.

# %%
heun = Sampler(Isotropic((2,)), rho_grid(18, 20.0, 0.002), Heun())
samples = {"plan, 4 evaluations": plan.sample(denoiser, 2000), "Heun, 35": heun.sample(denoiser, 2000)}
samples["real points"] = spirals(2000, 20_000)
for name, x in samples.items():
    print(f"{name:22} {sliced_wasserstein(x, test, seed=0):.4f}")

# %%
import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, 3, sharex=True, sharey=True)
for panel, (name, x) in zip(panels, samples.items()):
    panel.scatter(x[:, 0], x[:, 1], s=0.6)
    panel.set(title=name, xticks=[], yticks=[], aspect="equal", xlim=(-2.2, 2.2), ylim=(-2.2, 2.2))
figure

# %% [markdown]
# `plan.save("folder")` keeps it, and `Plan.load("folder")` needs no data and no fit to sample again. On the command line
# the network is named by its import path: see [ten minutes](../start.md).
