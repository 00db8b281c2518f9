"""Laws whose log density, score and denoiser are exact at every noise level: the oracles of tests and experiments."""

from headstart.targets.base import Target
from headstart.targets.empirical import Empirical
from headstart.targets.joint import JointMixture
from headstart.targets.mixture import Gaussian, GaussianMixture
from headstart.targets.presets import bimodal, cantor, gmm25, gmm_paper, t_mix2, t_mix10, t_prod
from headstart.targets.student import ProductT, StudentTMixture

__all__ = [
    "Empirical",
    "Gaussian",
    "GaussianMixture",
    "JointMixture",
    "ProductT",
    "StudentTMixture",
    "Target",
    "bimodal",
    "cantor",
    "gmm25",
    "gmm_paper",
    "t_mix2",
    "t_mix10",
    "t_prod",
]
