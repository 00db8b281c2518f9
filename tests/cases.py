"""A law with its data, starts fitted on them and solvers, for the tests of samplers and plans."""

from __future__ import annotations

from headstart.initialization import Empirical, Gaussian, Isotropic, Mixture
from headstart.noise import Noise
from headstart.solver import DDPM, DPMSolverPP2M, Euler, Heun
from headstart.targets import gmm25

TARGET = gmm25()
DATA = TARGET.sample(Noise(range(300)))
LABELS = (DATA[:, 0] > 0).long()

STARTS = {
    "isotropic": Isotropic((2,)),
    "gaussian": Gaussian.fit(DATA),
    "mixture": Mixture.fit(DATA, 5, 2),
    "by class": Mixture.fit(DATA, 6, 2, labels=LABELS),
    "empirical": Empirical.fit(DATA),
    "empirical by class": Empirical.fit(DATA, labels=LABELS),
}
SOLVERS = [Euler(), Heun(churn=3.5, churn_max=50), DPMSolverPP2M(), DDPM()]
