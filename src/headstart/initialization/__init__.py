"""Where the reverse process starts: laws for the data noised at a short horizon."""

from headstart.initialization.base import Initialization
from headstart.initialization.empirical import Empirical
from headstart.initialization.gaussian import Diagonal, Gaussian, Isotropic, Shifted
from headstart.initialization.mixture import Mixture
from headstart.initialization.subspace import Subspace

__all__ = [
    "INITIALIZATIONS",
    "Diagonal",
    "Empirical",
    "Gaussian",
    "Initialization",
    "Isotropic",
    "Mixture",
    "Shifted",
    "Subspace",
]

#: The families, by the name under which a plan stores them.
INITIALIZATIONS: dict[str, type[Initialization]] = {
    family.name: family for family in (Isotropic, Shifted, Diagonal, Gaussian, Mixture, Empirical)
}
