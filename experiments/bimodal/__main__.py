"""``python -m experiments.bimodal``: see :mod:`experiments.bimodal.run`."""

from experiments.bimodal.run import bimodal, verdict
from experiments.common import command

command("bimodal", bimodal, verdict, seeds=3, on_device=False)
