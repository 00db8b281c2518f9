# %% [markdown]
# # Reading a plan
#
# A plan says what was chosen, from what, by how much, and how sure that is.

# %%
from headstart import Noise, fit
from headstart.targets import gmm25

law = gmm25()
plan = fit(law, law.sample(Noise(range(3000))).float(), nfe=5)
print(plan.explain())

# %% [markdown]
# ## The three parts
#
# Where it starts, which levels it visits, how it moves between them. All are values with a `repr` for people.

# %%
print(plan.initialization)
print(plan.schedule)
print(plan.solver)

# %% [markdown]
# ## The budget
#
# What the start errs by, in nats, with its standard error, and what the steps err by. It screens candidates, and the
# pilot decides: nats count detail that nobody sees.

# %%
print(plan.budget)

# %% [markdown]
# ## The candidates
#
# Every start at every horizon was looked at; those with a number under `pilot` were sampled.

# %%
piloted = sorted((c for c in plan.record.candidates if c.pilot is not None), key=lambda c: c.pilot)
for c in piloted[:8]:
    print(f"{c.initialization:10} at {c.horizon:6.3g}   {c.schedule:22} {c.solver:9} distance {c.pilot:.4f}")
print("horizons that cannot be told from the chosen one:", plan.equivalent)

# %%
import matplotlib.pyplot as plt

figure, panel = plt.subplots()
for name in dict.fromkeys(c.initialization for c in plan.record.candidates):
    own = sorted((c for c in plan.record.candidates if c.initialization == name), key=lambda c: c.horizon)
    panel.plot([c.horizon for c in own], [max(c.e_init, 1e-4) for c in own], label=name)
panel.axvline(plan.horizon, color="#6b7380", linewidth=1)
panel.set(xscale="log", yscale="log", xlabel="horizon", ylabel="error of the start, nats")
panel.legend()
figure

# %% [markdown]
# ## Is it copying?
#
# The test asks whether its samples are nearer to the data that the start was fitted on than to others.

# %%
print(plan.record.novelty)

# %% [markdown]
# `headstart inspect PLAN --page FILE` writes all of it as a page, with samples beside their nearest data. What to cite is
# `plan.citation()`.
