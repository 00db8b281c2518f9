"""Sample any pre-trained score or diffusion model in a handful of network evaluations, without retraining it."""

from headstart.budget import Budget, Estimate
from headstart.choose import fit
from headstart.conditions import Conditions, own, shared
from headstart.data import Dataset, load_data
from headstart.denoiser import (
    Check,
    Counted,
    Denoiser,
    DiscreteVariancePreserving,
    RectifiedFlow,
    VarianceExploding,
    VariancePreserving,
    adapt,
    check,
    guide,
)
from headstart.errors import HeadstartError
from headstart.models import load_denoiser
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.progress import Progress
from headstart.sampler import Sampler
from headstart.schedule import Schedule

__all__ = [
    "Budget",
    "Check",
    "Conditions",
    "Counted",
    "Dataset",
    "Denoiser",
    "DiscreteVariancePreserving",
    "Estimate",
    "HeadstartError",
    "Noise",
    "Plan",
    "Profile",
    "Progress",
    "RectifiedFlow",
    "Sampler",
    "Schedule",
    "VarianceExploding",
    "VariancePreserving",
    "adapt",
    "check",
    "fit",
    "guide",
    "load_data",
    "load_denoiser",
    "own",
    "shared",
]

__version__ = "0.2.0"
