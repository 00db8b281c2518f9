"""Plans: a sampler with its evidence, the explanation of it, and the folder that keeps it."""

from headstart.plan.base import Candidate, Conditioning, Guidance, Plan, Record
from headstart.plan.place import check_place

__all__ = ["Candidate", "Conditioning", "Guidance", "Plan", "Record", "check_place"]
