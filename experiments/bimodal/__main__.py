"""``python -m experiments.bimodal``: see :mod:`experiments.bimodal.run`."""

from experiments.bimodal.run import bimodal
from experiments.common import command

command("bimodal", bimodal, seeds=3)
