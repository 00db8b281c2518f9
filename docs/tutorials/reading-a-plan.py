# %% [markdown]
# # Reading a plan
#
# A plan says what was chosen, from what, by how much, and how sure that is. Noise levels (sigma) are standard deviations
# in the units of the data. The *horizon*, sigma_T, is the one to start at; a *nat* is the unit of the divergence between
# two laws with the natural logarithm; and the *pilot* draws a few hundred samples of each candidate and measures how far
# they are from held-out data.

# %%
from headstart import Noise, fit
from headstart.targets import gmm25

law = gmm25()
plan = fit(law, law.sample(Noise(range(3000))).float(), nfe=5)
print(plan.explain())

# %% [markdown]
# ## The three parts
#
# Where it starts, which levels it visits, how it moves between them. All are values with a `repr` for people. In brackets
# behind each, `explain` says what decided: the pilot, the budget, or you. *As good from ... to ...* is the range of
# horizons among which the pilot sees no difference. A solver called *distilled* has weights of its own for each step;
# *turned by* is how far the pilot moved the last of them, which costs nothing.

# %%
print(plan.initialization)
print(plan.schedule)
print(plan.solver)

# %% [markdown]
# ## The budget
#
# The error of the start, E_init, with its standard error, and the errors of the steps, in nats. E_init is estimated
# against the network, so it can be below 0: then the start knows the noised data better than the network does, or chance
# says so where the standard error is as large. The errors of the steps have those of two other samplers beside them. The
# budget screens candidates, and the pilot decides: nats also count detail that is imperceptible, so that a plan is not
# the one with the least of them.

# %%
print(plan.budget)

# %% [markdown]
# ## The candidates
#
# Every start at every horizon was looked at; those with a number under `pilot` were sampled. Their distances are
# corrected for the number of samples, so that small ones may come out below 0. The few best were sampled more often, and
# `explain` lists these with their last distances, and which was chosen. It need not be the first: of those that chance
# alone may have put in this order, it has the best start, the shortest horizon, and the highest last level.

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
