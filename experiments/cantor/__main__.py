"""``python -m experiments.cantor``: see :mod:`experiments.cantor.run`."""

from experiments.cantor.run import cantor, verdict
from experiments.common import command

command("cantor", cantor, verdict, seeds=3, on_device=False)
