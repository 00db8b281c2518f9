"""Where the reverse process starts: laws for the data noised at a short horizon."""

from headstart.initialization.autoregressive import Autoregressive
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.conditional import ConditionalMixture
from headstart.initialization.empirical import Empirical
from headstart.initialization.features import Features
from headstart.initialization.flow import Flow
from headstart.initialization.gaussian import Diagonal, Gaussian, Isotropic, Shifted
from headstart.initialization.generator import Generated, Generator
from headstart.initialization.mixture import Mixture
from headstart.initialization.network_mean import NetworkMean
from headstart.initialization.regression import LinearMean, Regression
from headstart.initialization.student import StudentT
from headstart.initialization.subspace import Subspace
from headstart.initialization.teleportation import Teleportation
from headstart.initialization.training import Training

__all__ = [
    "INITIALIZATIONS",
    "Autoregressive",
    "ConditionalMixture",
    "Diagonal",
    "Empirical",
    "Features",
    "Flow",
    "Gaussian",
    "Generated",
    "Generator",
    "Initialization",
    "Isotropic",
    "LinearMean",
    "Mixture",
    "NetworkMean",
    "Regression",
    "Shifted",
    "StudentT",
    "Subspace",
    "Teleportation",
    "Training",
]
