"""Distances between samples and real data, with their errors and noise floor; tails; and whether samples are new."""

from headstart.deprecation import renamed
from headstart.metrics.classes import ClassScores, by_class, floor_by_class, references_by_class
from headstart.metrics.ensembles import crps, energy_score, spread_to_error
from headstart.metrics.features import Features
from headstart.metrics.frechet import GaussianMoments, GaussianStatistics, frechet_distance
from headstart.metrics.kernel import KernelDistance, kernel_distance
from headstart.metrics.manifold import Manifold, manifold
from headstart.metrics.max_sliced import MaxSliced, max_sliced
from headstart.metrics.metric import METRICS, Comparison, Metric, Value
from headstart.metrics.multiscale import Multiscale, MultiscaleReference
from headstart.metrics.novelty import Novelty, nearest, novelty
from headstart.metrics.scores import Reference, Scores, always, evaluate, floor, floor_note, needed
from headstart.metrics.tails import Quantile, TailGap, TailLevel, quantile_table, tail_gap
from headstart.metrics.wasserstein import (
    SlicedDistances,
    bulk_sliced_wasserstein,
    max_sliced_wasserstein,
    sliced,
    sliced_wasserstein,
    tail_sliced_wasserstein,
)

__all__ = [
    "METRICS",
    "ClassScores",
    "Comparison",
    "Features",
    "GaussianMoments",
    "GaussianStatistics",
    "KernelDistance",
    "Manifold",
    "MaxSliced",
    "Metric",
    "Multiscale",
    "MultiscaleReference",
    "Novelty",
    "Quantile",
    "Reference",
    "Scores",
    "SlicedDistances",
    "TailGap",
    "TailLevel",
    "Value",
    "always",
    "bulk_sliced_wasserstein",
    "by_class",
    "crps",
    "energy_score",
    "evaluate",
    "floor",
    "floor_by_class",
    "floor_note",
    "frechet_distance",
    "kernel_distance",
    "manifold",
    "max_sliced",
    "max_sliced_wasserstein",
    "nearest",
    "needed",
    "novelty",
    "quantile_table",
    "references_by_class",
    "sliced",
    "sliced_wasserstein",
    "spread_to_error",
    "tail_gap",
    "tail_sliced_wasserstein",
]

__getattr__ = renamed(
    __name__,
    {
        "SCORES": "headstart.metrics:METRICS",
        "ViewReference": "headstart.metrics:MultiscaleReference",
        "Views": "headstart.metrics:Multiscale",
    },
)
