"""``python -m experiments.brightness``: see :mod:`experiments.brightness.run`."""

from experiments.brightness.run import brightness, verdict
from experiments.common import command

command("brightness", brightness, verdict, seeds=3)
