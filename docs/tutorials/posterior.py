# %% [markdown]
# # A posterior
#
# Parameters $\theta$ with a prior of 25 modes are seen through noise, $y = \theta + 0.5\,n$. A network that was trained on
# pairs of both is a denoiser of $\theta$ given $y$, and a plan draws from the posterior of any observation.
#
# The exact network is one line. To see $\theta$ at noise level $\sigma$ and through $y$ at level 0.5 is to see it once, at
# the level and place that add up their precisions.

# %%
import torch

from headstart import Noise, fit
from headstart.targets import gmm25

prior = gmm25()
seen = 0.5


def network(x, sigma, y):
    """E[theta | theta + sigma * noise = x, theta + 0.5 * noise = y]."""
    sigma = torch.as_tensor(sigma, dtype=x.dtype)
    level = (1 / sigma**2 + 1 / seen**2) ** -0.5
    weight = ((level / sigma) ** 2).reshape(-1, *[1] * (x.ndim - 1))
    return prior(weight * x + (1 - weight) * y, level)


theta = prior.sample(Noise(range(4000))).float()
y = theta + seen * Noise(range(10_000, 14_000)).normal((2,)).float()

# %% [markdown]
# Conditions that are as long as the data go with them. One plan serves all observations.

# %%
plan = fit(network, theta, nfe=4, conditions={"y": y})
print(plan)

# %% [markdown]
# Draws for one observation, beside the exact posterior: a mixture of the same modes, reweighted by how likely each makes
# the observation.

# %%
observed = torch.tensor([0.7, -0.4])
draws = plan.sample(network, 4000, conditions={"y": observed.expand(4000, 2)})

pairs = theta[(y - observed).norm(dim=1) < 0.25]
print("posterior mean, exact:", network(torch.zeros(1, 2), 1e4, observed)[0])
print("of the plan's draws:  ", draws.mean(0))
print("of simulations near y:", pairs.mean(0), f"({len(pairs)} of 4000)")

# %%
import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, 2, sharex=True, sharey=True)
for panel, (name, x) in zip(panels, {"draws for one y": draws, "simulations with y near it": pairs}.items()):
    panel.scatter(*theta[:1500].T, s=0.5, alpha=0.3, color="#6b7380")
    panel.scatter(*x.T, s=1.5)
    panel.plot(*observed, "k+", markersize=12)
    panel.set(title=name, xticks=[], yticks=[], aspect="equal")
figure

# %% [markdown]
# A pilot compares distances: what is far narrower than the prior is a point to it. Where the shape of such a posterior
# counts, let the budget choose, which is in nats, down to a last level below that shape:

# %%
fine = fit(network, theta, nfe=4, conditions={"y": y}, criterion="budget", sigma_min=0.02)
print(fine)

# %% [markdown]
# Score estimators of sbi come in by `from_sbi`, and tree models by `from_treeffuser`: see
# [integrations](../integrations.md).
