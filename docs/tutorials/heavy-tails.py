# %% [markdown]
# # Heavy tails
#
# Rain, returns and energies have rare values far out. Noise of any level is Gaussian, and a start without heavy tails
# loses them: the network cannot add what the start lacks, since it was never asked there. Here the data are products of
# Student-t laws with three degrees of freedom, whose denoiser is known exactly.

# %%
import torch

from headstart import Noise, fit
from headstart.targets import t_prod

law = t_prod(d=4, nu=3)
data = law.sample(Noise(range(6000))).float()
print("largest of 24,000 values:", float(data.abs().max()))

# %% [markdown]
# `fit` looks at the quantiles that the data resolve, and does not take a start that misses them while there is another.

# %%
plan = fit(law, data, nfe=4, pilot_samples=128)
gaussian = fit(law, data, nfe=4, initialization="gaussian", pilot_samples=128, profile=plan.profile)
print(plan)
print(gaussian)

# %% [markdown]
# Quantiles of a coordinate's magnitude, of 20,000 samples each and of as many fresh data.

# %%
found = {
    "data": law.sample(Noise(range(10_000, 30_000))).float(),
    plan.initialization.name: plan.sample(law, 20_000, batch_size=4096),
    "gaussian": gaussian.sample(law, 20_000, batch_size=4096),
}
levels = torch.tensor([0.9, 0.99, 0.999, 0.9999])
print(f"{'':12}", *(f"{float(level):>9g}" for level in levels))
quantiles = {name: x.abs().flatten().sort().values for name, x in found.items()}
quantiles = {name: v[(levels * (len(v) - 1)).long()] for name, v in quantiles.items()}
for name, values in quantiles.items():
    print(f"{name:12}", *(f"{float(value):9.2f}" for value in values))

# %%
import matplotlib.pyplot as plt

figure, panel = plt.subplots()
for name, x in found.items():
    ordered = x.abs().flatten().sort(descending=True).values[:8000]
    panel.plot(ordered[::20], torch.arange(1, 8001)[::20] / x.numel(), label=name)
panel.set(xscale="log", yscale="log", xlabel="magnitude of a coordinate", ylabel="share beyond it")
panel.legend()
figure

# %% [markdown]
# The experiment `python -m experiments.heavy_tails` does this in full, up to quantiles of 0.999999.
