# %% [markdown]
# # Classes and guidance
#
# A network that takes classes, and a plan whose start knows them too.

# %%
import torch

from headstart import Counted, Noise, check, fit, guide
from headstart.targets import GaussianMixture

#: Three classes in the plane, each of two modes. Exact denoisers stand for the network.
centres = torch.tensor([[[-2.0, 0.0], [-1.2, 1.2]], [[1.2, 1.2], [2.0, 0.0]], [[-0.6, -1.6], [0.6, -1.6]]])
laws = [GaussianMixture([0.5, 0.5], pair, 0.15**2) for pair in centres.tolist()]
every = GaussianMixture([1.0] * 6, centres.flatten(0, 1), 0.15**2)


def network(x, sigma, label=None):
    """E[x0 | x, label]; without a label, E[x0 | x]."""
    if label is None:
        return every(x, sigma)
    answers = torch.stack([law(x, sigma) for law in laws])
    return answers[label.long(), torch.arange(len(x))]


labels = torch.arange(3000) % 3
data = torch.stack([laws[int(label)].sample(Noise([seed]))[0] for seed, label in enumerate(labels)]).float()
print(check(network, data, labels=labels))

# %% [markdown]
# With `labels=` the network is measured with `label=`, and the mixture gets components for each class.

# %%
plan = fit(network, data, nfe=3, labels=labels)
print(plan)
mine = plan.sample(network, 600, label=torch.arange(600) % 3)

# %% [markdown]
# One class for all, and the seeds of before: sample 4 is of class 1 in both, and so the same.

# %%
ones = plan.sample(network, 600, label=1)
print(float((ones[4] - mine[4]).abs().max()))

# %% [markdown]
# ## Guidance
#
# `guide(network, scale)` is classifier-free guidance, and a scale of 1 means none. Fit without it and sample with it: a
# guided network is no denoiser of the data. It calls the network twice an evaluation, which `Counted` counts.

# %%
counted = Counted(network)
guided = plan.sample(guide(counted, 2.0), 600, label=torch.arange(600) % 3)
print(f"{counted.samples / 600:g} evaluations of the network for a sample of a plan of {plan.nfe}")

# %%
import matplotlib.pyplot as plt

figure, panels = plt.subplots(1, 3, sharex=True, sharey=True)
for panel, (name, x) in zip(panels, {"data": data[:600], "plan": mine, "guided by 2": guided}.items()):
    for label in range(3):
        panel.scatter(*x[torch.arange(600) % 3 == label].T, s=1.5)
    panel.set(title=name, xticks=[], yticks=[], aspect="equal")
figure

# %% [markdown]
# Guidance sharpens: samples move away from where the other classes are. That is a choice of taste, and no score says
# which scale is right.
