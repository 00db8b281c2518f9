"""Distances between samples and real data, with their noise floor."""

from headstart.metrics.frechet import GaussianStatistics, frechet_distance
from headstart.metrics.scores import Features, Reference, Scores, evaluate, floor
from headstart.metrics.wasserstein import SlicedDistances, max_sliced_wasserstein, sliced, sliced_wasserstein

__all__ = [
    "Features",
    "GaussianStatistics",
    "Reference",
    "Scores",
    "SlicedDistances",
    "evaluate",
    "floor",
    "frechet_distance",
    "max_sliced_wasserstein",
    "sliced",
    "sliced_wasserstein",
]
