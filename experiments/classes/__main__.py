"""``python -m experiments.classes``: see :mod:`experiments.classes.run`."""

from experiments.classes.run import classes, verdict
from experiments.common import command

command("classes", classes, verdict, seeds=3)
