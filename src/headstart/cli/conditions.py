"""Conditions of a network from files: ``--condition NAME=FILE`` with a row a sample, ``--shared NAME=FILE`` for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from headstart.errors import InputError

__all__ = ["ConditionFiles", "SharedFiles", "in_turn", "read_conditions"]

ConditionFiles = Annotated[
    list[str] | None,
    typer.Option(
        "--condition",
        metavar="NAME=FILE",
        help="Call MODEL with NAME from a file of arrays, a row a sample (when sampling, in turn by seed). Repeatable.",
    ),
]
SharedFiles = Annotated[
    list[str] | None,
    typer.Option("--shared", metavar="NAME=FILE", help="Call MODEL with all of FILE as NAME, for every sample alike."),
]


def read_conditions(rows: Sequence[str] | None, alike: Sequence[str] | None, *taken: str) -> dict[str, Any]:
    """The conditions by name, marked as going with the samples or as shared.

    Arguments:
        rows: NAME=FILE each, of those with a row a sample.
        alike: of those that are shared.
        taken: names that are given otherwise.

    Raises:
        InputError: if one is no NAME=FILE, or a name is given twice.
        DataError: if a file cannot be read.
    """
    from headstart.conditions import own, shared
    from headstart.data import load_arrays

    found: dict[str, Any] = {}
    for mark, given in ((own, rows), (shared, alike)):
        for text in given or ():
            name, equals, file = text.partition("=")
            if not (name and equals and file):
                raise InputError(f"{text!r} is no condition: expected NAME=FILE, as in text=embeddings.npy")
            if name in found or name in taken:
                raise InputError(f"the condition {name!r} is given twice: give it once")
            found[name] = mark(load_arrays(file))
    return found


def in_turn(conditions: dict[str, Any], seeds: Sequence[int]) -> dict[str, Any]:
    """The same with one row for each seed: row s mod R of R rows, so that those of a seed are its own.

    Raises:
        InputError: if the parts of a condition have no rows, or different numbers of them.
    """
    import torch

    from headstart.conditions import Conditions, Own, leaves, own

    found = dict(conditions)
    for name, value in conditions.items():
        if not isinstance(value, Own):
            continue
        counts = {len(leaf) if leaf.ndim else 0 for leaf in leaves(value.value)}
        if len(counts) != 1 or 0 in counts:
            raise InputError(f"the condition {name!r} has parts of {sorted(counts)} rows: expected one number above 0")
        (count,) = counts
        rows = torch.tensor([seed % count for seed in seeds])
        found[name] = own(Conditions.of({name: value}, count).take(rows)[name])
    return found
