"""Tables 1 to 3 of *Score-Optimal Diffusion Schedules*: schedules with Heun's method, at 10 to 100 points.

References:
    Williams et al., *Score-Optimal Diffusion Schedules*, NeurIPS 2024, arXiv 2412.07877, Tables 1 to 3.

    Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, arXiv 2206.00364.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from headstart.compute import Compute
from headstart.initialization import Isotropic
from headstart.predictor import measure_predictor
from headstart.profile import Profile
from headstart.reproduce.base import Entry, Experiment, Subject, Table, in_units
from headstart.sampler import Sampler
from headstart.schedule import Schedule, equidistribute, log_linear, rho_grid
from headstart.solver import Heun

__all__ = ["SCHEDULES"]

#: EDM's lowest noise level.
LOW = 0.002

#: Points of the grids; 18 is what EDM uses on CIFAR-10.
POINTS = (10, 18, 20, 30, 50, 100)

#: The rows of the paper's two costs, of which it argues for the first.
PROPOSED, PREDICTOR = "corrector-optimised", "predictor-optimised"

#: Levels of the dense grid that costs are measured on, and samples: of the corrector cost, and of the predictor cost.
LEVELS, CORRECTED, PREDICTED = 32, 192, 16

Grid = Callable[[int], Schedule]


def entries(subject: Subject) -> list[Entry]:
    """Heun's method from N(0, 80^2), or as high as the network knows, on every schedule, few points first."""
    grids = _grids(subject)
    points = (3, 4) if subject.quick else POINTS
    start = Isotropic(tuple(subject.fitting.shape[1:]))
    return [
        Entry(name, str(count), Sampler(start, grid(count), Heun())) for count in points for name, grid in grids.items()
    ]


def _grids(subject: Subject) -> dict[str, Grid]:
    """The schedules by their names in the tables."""
    high = subject.highest
    levels = np.geomspace(high, LOW, 8 if subject.quick else LEVELS)
    levels[0], levels[-1] = high, LOW
    device, progress = subject.device, subject.progress
    few = 8 if subject.quick else CORRECTED
    profile = Profile.measure(
        subject.denoiser,
        subject.fitting,
        sigmas=levels,
        samples=few,
        cost_samples=few,
        device=device,
        batch_size=subject.batch_size,
        progress=progress,
    )
    corrector = profile.length("corrector")
    few = 2 if subject.quick else PREDICTED
    taken = subject.fitting[:: max(1, len(subject.fitting) // few)][:few]
    compute = Compute(device, batch_size=min(32, subject.batch_size), progress=progress)
    predictor = measure_predictor(subject.denoiser, taken, levels, compute=compute).length()
    return {
        "rho = 3": lambda count: rho_grid(count, high, LOW, rho=3),
        "rho = 7": lambda count: rho_grid(count, high, LOW),
        "rho = 100": lambda count: rho_grid(count, high, LOW, rho=100),
        "log-linear": lambda count: log_linear(count, high, LOW),
        PROPOSED: lambda count: equidistribute(corrector, count, high, LOW),
        PREDICTOR: lambda count: equidistribute(predictor, count, high, LOW),
    }


def found(table: Table) -> str:
    """The verdict on the paper's claims: the costs need no tuning, and lose little to the best rho."""
    said = []
    for place in sorted({0, len(table.columns) - 1}):
        values = {name: row[place] for name, row in table.rows.items()}
        known = [value for name, value in values.items() if name.startswith("rho") and value is not None]
        best = min(known)
        ours, theirs, worst = (in_units(value, best) for value in (values[PROPOSED], values[PREDICTOR], max(known)))
        said.append(
            f"{ours} at {table.columns[place]} points, where the {PREDICTOR} has {theirs} and the worst rho {worst}"
        )
    return f"By {table.title}, with the best of rho = 3, 7 and 100 as 1, the {PROPOSED} schedule has {'; '.join(said)}."


_POINTS = ("10", "20", "30", "50", "100")

SCHEDULES = Experiment(
    name="schedules",
    title="Schedules with Heun's method, at 10 to 100 points",
    paper="Williams et al., Score-Optimal Diffusion Schedules, NeurIPS 2024, arXiv 2412.07877, Tables 1 to 3",
    set_up="Pre-trained EDM networks and EDM's Heun sampler from N(0, 80²) down to 0.002, in EDM's number of steps for "
    "Table 1 (18 on CIFAR-10, 40 on FFHQ and AFHQv2, 256 with churn on ImageNet); FID of 50,000 images.",
    published=(
        Table(
            "Table 1: FID",
            "schedule",
            ("CIFAR-10", "FFHQ", "AFHQv2", "ImageNet"),
            {
                "rho = 3": (5.47, 2.80, 2.05, 1.46),
                "rho = 7": (1.96, 2.46, 2.05, 1.42),
                "log-linear": (2.05, 2.42, 2.06, 1.45),
                "convex": (22.1, 2.43, 2.48, 1.64),
                "corrector-optimised": (1.99, 2.46, 2.05, 1.44),
                "predictor-optimised": (1.99, 2.48, 2.05, None),
            },
        ),
        Table(
            "Table 2: FID on CIFAR-10, by points",
            "schedule",
            _POINTS,
            {
                "corrector-optimised": (2.46, 2.02, 2.04, 2.06, 2.07),
                "rho = 3": (50.75, 3.92, 2.09, 2.01, 2.05),
                "rho = 7": (2.70, 2.00, 2.06, 2.05, 2.07),
                "rho = 100": (3.09, 2.06, 2.05, 2.06, 2.07),
            },
        ),
        Table(
            "Table 3: sFID on CIFAR-10, by points",
            "schedule",
            _POINTS,
            {
                "corrector-optimised": (3.94, 3.78, 3.80, 3.81, 3.81),
                "rho = 3": (24.08, 4.90, 3.80, 3.77, 3.80),
                "rho = 7": (4.02, 3.76, 3.78, 3.80, 3.81),
                "rho = 100": (4.31, 3.81, 3.81, 3.81, 3.81),
            },
        ),
    ),
    corner="schedule",
    ours="The same sampler on the same grids, with 18 points for Table 1: 2 T - 1 evaluations of the network at T "
    "points. Costs are measured with the network on data that the reference does not hold: the corrector cost from the "
    "score at both levels, the predictor cost of Euler's step without bias. All samplers share their seeds. Sliced "
    "Wasserstein distances, of the samples as they are, stand where the paper has sFID.",
    differences=(
        "Other data, another network and other features: levels do not compare, only order and ratios. Give the "
        "network, the data and the Inception features of the paper to compare levels.",
        "Fewer samples: Fréchet distances are biased upwards, all samplers alike since they share n.",
        "The predictor cost of a consistent step falls with the fourth power of its length, and its fourth root is "
        "shared out; the paper shares out the square root. The paper's own single-probe estimate is biased.",
        'The formula of the paper\'s "convex" schedule is not known to us, and it is left out.',
    ),
    proposed=PROPOSED,
    entries=entries,
    found=found,
)
