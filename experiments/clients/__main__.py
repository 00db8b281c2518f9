"""``python -m experiments.clients``: see :mod:`experiments.clients.run`."""

from experiments.clients.run import CLIENTS, clients, verdict
from experiments.common import command

command("clients", clients, verdict, seeds=3, on_device=False, parts=[client.name for client in CLIENTS])
