"""Citations of a plan: the references of the methods that it uses, in BibTeX.

Every reference is written down once, in ``references.bib`` beside this module. A start and a solver say on their
classes which of them they stand on, as ``cites``; a table here says it of the kinds of schedule. Any start but noise
cites the paper on learned starts, and a schedule that is cut from a measured length the paper on optimal schedules:

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
from headstart.solver import SOLVERS as REGISTERED

__all__ = [
    "BUDGET",
    "IMAGES",
    "PACKAGES",
    "PILOT",
    "SCHEDULES",
    "bibtex",
    "citations",
    "references",
]

#: The kinds of schedule, by what the schedule's name begins with; parameters follow.
SCHEDULES: Mapping[str, tuple[str, ...]] = {
    "defect": ("williams2024score",),
    "corrector": ("williams2024score",),
    "optimal": ("williams2024score",),
    "least error": ("williams2024score",),
    "rho": ("karras2022elucidating",),
    "log-linear": ("song2021denoising", "lu2022dpm"),
    "cosine": ("nichol2021improved",),
    "linear VP": ("song2021score",),
    "tangent": ("sabour2024align",),
    "align your steps": ("sabour2024align",),
    "GITS": ("chen2024trajectory",),
    "dynamic": ("watson2021learning", "sabour2024align"),
    "dynamic opt": ("watson2021learning", "sabour2024align", "bao2022analytic"),
    "constant rate": ("okada2026constant",),
    "LD3": ("tong2025learning",),
    "distilled": ("tong2025learning",),
    "distilled from data": ("tong2025learning", "szekely2013energy", "bellemare2017cramer"),
}

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
    return tuple(dict.fromkeys((*start, *SCHEDULES.get(_kind(schedule), ()), *moves)))


def _kind(schedule: str) -> str:
    """The longest kind that the name begins with, word by word; nothing if there is none."""
    name = f"{_plain(schedule)} "
    return max((kind for kind in SCHEDULES if name.startswith(f"{_plain(kind)} ")), key=len, default="")


def _plain(name: str) -> str:
    """The name as it is said: a kind that is asked for as "log_linear" makes a schedule called "log-linear"."""
    return re.sub("[-_]", " ", name).casefold()


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
    known: Mapping[str, Mapping[str, Any]] = {"STARTS": INITIALIZATIONS, "SOLVERS": REGISTERED}
    if name not in known:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(
        f"headstart.citation.{name} is deprecated: a part says what it cites", DeprecationWarning, stacklevel=2
    )
    return {part: known[name][part].cites for part in known[name]}
