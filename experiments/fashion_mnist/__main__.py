"""``python -m experiments.fashion_mnist``: see :mod:`experiments.fashion_mnist.run`."""

from experiments.common import command
from experiments.fashion_mnist.run import fashion_mnist, verdict

command("fashion_mnist", fashion_mnist, verdict, seeds=3)
