"""Distances between samples and real data, with their noise floor; tails; and whether samples are new."""

from headstart.metrics.frechet import GaussianStatistics, frechet_distance
from headstart.metrics.novelty import Novelty, nearest, novelty
from headstart.metrics.scores import Features, Reference, Scores, evaluate, floor
from headstart.metrics.tails import Quantile, TailGap, TailLevel, quantile_table, tail_gap
from headstart.metrics.views import ViewReference, Views
from headstart.metrics.wasserstein import SlicedDistances, max_sliced_wasserstein, sliced, sliced_wasserstein

__all__ = [
    "Features",
    "GaussianStatistics",
    "Novelty",
    "Quantile",
    "Reference",
    "Scores",
    "SlicedDistances",
    "TailGap",
    "TailLevel",
    "ViewReference",
    "Views",
    "evaluate",
    "floor",
    "frechet_distance",
    "max_sliced_wasserstein",
    "nearest",
    "novelty",
    "quantile_table",
    "sliced",
    "sliced_wasserstein",
    "tail_gap",
]
