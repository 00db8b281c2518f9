"""The papers' experiments at a size that a laptop can run, beside what the papers report."""

from collections.abc import Mapping

from headstart.reproduce.base import METRICS, Arm, Experiment, Subject, Table, reproduce
from headstart.reproduce.schedules import SCHEDULES
from headstart.reproduce.starts import STARTS

__all__ = ["EXPERIMENTS", "METRICS", "Arm", "Experiment", "Subject", "Table", "reproduce"]

#: By their names.
EXPERIMENTS: Mapping[str, Experiment] = {experiment.name: experiment for experiment in (SCHEDULES, STARTS)}
