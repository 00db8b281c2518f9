"""``python -m experiments.posterior``: see :mod:`experiments.posterior.run`."""

from experiments.common import command
from experiments.posterior.run import posterior, verdict

command("posterior", posterior, verdict, seeds=3)
