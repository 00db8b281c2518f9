"""``python -m experiments.schedules``: see :mod:`experiments.schedules.run`."""

from experiments.common import command
from experiments.schedules.run import schedules, verdict

command("schedules", schedules, verdict, seeds=3)
