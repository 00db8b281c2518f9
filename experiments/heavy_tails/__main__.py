"""``python -m experiments.heavy_tails``: see :mod:`experiments.heavy_tails.run`."""

from experiments.common import command
from experiments.heavy_tails.run import heavy_tails

command("heavy_tails", heavy_tails, seeds=2)
