"""``python -m experiments.heavy_tails``: see :mod:`experiments.heavy_tails.run`."""

from experiments.common import command
from experiments.heavy_tails.run import heavy_tails, verdict

command("heavy_tails", heavy_tails, verdict, seeds=2, on_device=False)
