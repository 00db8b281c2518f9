"""``python -m experiments.latents``: see :mod:`experiments.latents.run`."""

from experiments.common import command
from experiments.latents.run import latents, verdict

command("latents", latents, verdict, seeds=3)
