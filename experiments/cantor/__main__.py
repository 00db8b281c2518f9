"""``python -m experiments.cantor``: see :mod:`experiments.cantor.run`."""

from experiments.cantor.run import cantor
from experiments.common import command

command("cantor", cantor, seeds=3)
