"""Citations of a plan: the references of the methods that it uses, in BibTeX.

Every reference is written down once, in ``references.bib`` beside this module. A start and a solver say on their
classes which of them they stand on, as ``cites``, and so does a kind of schedule, which a schedule's name says. Any
start but noise cites the paper on learned starts, and a schedule that is cut from a measured length the paper on
optimal schedules:

>>> citations("isotropic", "rho 7", "heun")
('song2021score', 'karras2022elucidating')

A part that is not registered cites nothing; one of another distribution may cite whole BibTeX entries in place of keys.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from headstart.initialization import INITIALIZATIONS
from headstart.schedule import RULES, split_name
from headstart.solver import SOLVERS as REGISTERED

__all__ = [
    "BUDGET",
    "IMAGES",
    "PACKAGES",
    "PILOT",
    "bibtex",
    "citations",
    "references",
]

#: The packages whose samplers plans are compared with, by what is imported.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "diffusers": ("vonplaten2022diffusers",),
    "k_diffusion": ("crowson2022kdiffusion",),
    "azula": ("theprobabilists2024azula",),
}

#: The error budget of a plan, the distance of its pilot, and what is added to that distance for images.
BUDGET = ("fassina2026initialization",)
PILOT = ("bonneel2015sliced",)
IMAGES = ("burt1983laplacian", "karras2018progressive")


def citations(initialization: str, schedule: str, solver: str) -> tuple[str, ...]:
    """The keys of what the three parts of a plan stand on, each once.

    Arguments:
        initialization: name of the family of starts.
        schedule: name of the schedule, its parameters included, or of its kind.
        solver: name of the solver.
    """
    start = INITIALIZATIONS[initialization].cites if initialization in INITIALIZATIONS else ()
    moves = REGISTERED[solver].cites if solver in REGISTERED else ()
    kind, parameters = split_name(schedule)
    levels = () if kind is None else kind.cited(*parameters)
    return tuple(dict.fromkeys((*start, *levels, *moves)))


def bibtex(keys: Iterable[str]) -> str:
    """The entries of these keys, each once and in their order; a whole entry stands for itself.

    Raises:
        KeyError: if there is no such reference.
    """
    entries = references()
    return "\n\n".join(key if key.startswith("@") else entries[key] for key in dict.fromkeys(keys))


@cache
def references() -> Mapping[str, str]:
    """Every reference, by its key: the entries of ``references.bib``."""
    text = resources.files("headstart").joinpath("references.bib").read_text(encoding="utf-8")
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in re.split(r"\n\n(?=@)", text.strip())}


def __getattr__(name: str) -> Mapping[str, tuple[str, ...]]:
    """The tables that the parts' ``cites`` replaced, for one version more."""
    known: Mapping[str, Mapping[str, Any]] = {"STARTS": INITIALIZATIONS, "SCHEDULES": RULES, "SOLVERS": REGISTERED}
    if name not in known:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"headstart.citation.{name} is deprecated: a part says what it cites", DeprecationWarning, stacklevel=2
    )
    return {part: known[name][part].cites for part in known[name]}
