"""``python -m experiments.gmm``: see :mod:`experiments.gmm.run`."""

from experiments.common import command
from experiments.gmm.run import gmm, verdict

command("gmm", gmm, verdict, seeds=3, on_device=False)
