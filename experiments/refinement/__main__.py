"""``python -m experiments.refinement``; see :mod:`experiments.refinement.run`."""

from experiments.common import command
from experiments.refinement.run import refinement, verdict

command("refinement", refinement, verdict, seeds=3)
