"""A program in several processes of its own, as a launcher starts them; and what the tests have it do.

It is a module of its own, since every process imports it anew.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def environments(count: int) -> Iterator[dict[str, str]]:
    """What a launcher puts into the environment of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = os.pathsep.join(map(str, [ROOT / "src", ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]))
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    for index in range(count):
        own = {"RANK": str(index), "LOCAL_RANK": str(index), "MASTER_PORT": str(port)}
        yield os.environ | shared | own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths}


@contextmanager
def begun(count: int, *command: str | Path) -> Iterator[list[subprocess.Popen[str]]]:
    """A command in several processes; those that are left in the end are killed."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    every = [subprocess.Popen([sys.executable, *map(str, command)], env=env, **pipes) for env in environments(count)]
    try:
        yield every
    finally:
        for process in every:
            process.kill()
            process.communicate()


def ended(every: list[subprocess.Popen[str]], seconds: float = 600) -> list[tuple[int, str, str]]:
    """The exit code, standard output and standard error of each."""
    said = [process.communicate(timeout=seconds) for process in every]
    return [(process.returncode, *streams) for process, streams in zip(every, said, strict=True)]


@contextmanager
def together_in(count: int, program: Callable[[Path], Any], folder: Path) -> Iterator[Callable[[], list[Any]]]:
    """A program of a folder in several processes; call what is yielded for what it returns in each."""
    name = f"{program.__module__}:{program.__name__}"
    folder.mkdir(parents=True, exist_ok=True)

    def results() -> list[Any]:
        for code, _, error in ended(every):
            assert code == 0, error
        return [pickle.loads((folder / f"{index}.pkl").read_bytes()) for index in range(count)]

    with begun(count, "-m", "tests.together", name, folder) as every:
        yield results


def main(name: str, folder: Path) -> None:
    """Do a program in this process, with the others, and keep what it returns."""
    import torch

    from headstart.processes import index, together

    torch.set_num_threads(1)
    module, _, function = name.partition(":")
    with together():
        found = getattr(import_module(module), function)(folder)
        (folder / f"{index()}.pkl").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
