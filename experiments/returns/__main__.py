"""``python -m experiments.returns``: see :mod:`experiments.returns.run`."""

from experiments.common import command
from experiments.returns.run import returns, verdict

command("returns", returns, verdict, seeds=3)
