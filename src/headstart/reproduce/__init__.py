"""The papers' experiments at a size that a laptop can run, beside what the papers report."""

from collections.abc import Mapping

from headstart.deprecation import renamed
from headstart.reproduce.base import METRICS, Entry, Experiment, Subject, Table, reproduce
from headstart.reproduce.schedules import SCHEDULES
from headstart.reproduce.starts import STARTS

__all__ = ["EXPERIMENTS", "METRICS", "Entry", "Experiment", "Subject", "Table", "reproduce"]

#: A name of an earlier version.
__getattr__ = renamed(__name__, {"Arm": "headstart.reproduce:Entry"})

#: By their names.
EXPERIMENTS: Mapping[str, Experiment] = {experiment.name: experiment for experiment in (SCHEDULES, STARTS)}
