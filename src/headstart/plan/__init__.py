"""Plans: a sampler with its evidence, the explanation of it, and the folder that keeps it."""

from headstart.plan.base import Candidate, Plan, Record
from headstart.plan.place import check_place

__all__ = ["Candidate", "Plan", "Record", "check_place"]
