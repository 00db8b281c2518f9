"""Citations of a plan: the references of the methods that it uses, in BibTeX.

Every reference is written down once, in ``references.bib`` beside this module, and the tables here say by name which
of them a start, a schedule and a solver stand on. Any start but noise cites the paper on learned starts, and a schedule
that is cut from a measured length the paper on optimal schedules:

>>> citations("isotropic", "rho 7", "heun")
('song2021score', 'karras2022elucidating')

A part that is not headstart's own cites nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

__all__ = [
    "BUDGET",
    "IMAGES",
    "PACKAGES",
    "PILOT",
    "SCHEDULES",
    "SOLVERS",
    "STARTS",
    "bibtex",
    "citations",
    "references",
]

#: The starts, by name.
STARTS: Mapping[str, tuple[str, ...]] = {
    "isotropic": ("song2021score",),
    "shifted": ("fassina2026initialization",),
    "diagonal": ("fassina2026initialization",),
    "gaussian": ("fassina2026initialization", "wang2024unreasonable"),
    "teleportation": ("fassina2026initialization", "wang2024unreasonable"),
    "mixture": ("fassina2026initialization", "lucke2010expectation", "fraley2007bayesian"),
    "student-t": (
        "fassina2026initialization",
        "lange1989robust",
        "liu1995ml",
        "liu1998parameter",
        "pandey2024heavy",
    ),
    "flow": ("fassina2026initialization", "durkan2019neural", "dinh2017density"),
    "autoregressive": ("fassina2026initialization", "zhai2024normalizing", "papamakarios2017masked"),
    "generator": ("fassina2026initialization", "lyu2022accelerating"),
    "generated": ("fassina2026initialization", "lyu2022accelerating"),
    "empirical": ("fassina2026initialization",),
}

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

#: The solvers, by name.
SOLVERS: Mapping[str, tuple[str, ...]] = {
    "euler": ("song2021denoising",),
    "heun": ("karras2022elucidating",),
    "dpm++2m": ("lu2022dpmpp",),
    "dpm++3m": ("lu2022dpmpp",),
    "unipc": ("zhao2023unipc",),
    "deis": ("zhang2023fast",),
    "ipndm": ("zhang2023fast", "liu2022pseudo"),
    "ddpm": ("ho2020denoising", "bao2022analytic"),
    "euler-maruyama": ("song2021score", "chen2023sampling"),
    "predictor-corrector": ("song2021score",),
    "distilled": ("frankel2025s4s",),
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
    keys = (*STARTS.get(initialization, ()), *SCHEDULES.get(_kind(schedule), ()), *SOLVERS.get(solver, ()))
    return tuple(dict.fromkeys(keys))


def _kind(schedule: str) -> str:
    """The longest kind that the name begins with, word by word; nothing if there is none."""
    name = f"{_plain(schedule)} "
    return max((kind for kind in SCHEDULES if name.startswith(f"{_plain(kind)} ")), key=len, default="")


def _plain(name: str) -> str:
    """The name as it is said: a kind that is asked for as "log_linear" makes a schedule called "log-linear"."""
    return re.sub("[-_]", " ", name).casefold()


def bibtex(keys: Iterable[str]) -> str:
    """The entries of these keys, each once and in their order.

    Raises:
        KeyError: if there is no such reference.
    """
    entries = references()
    return "\n\n".join(entries[key] for key in dict.fromkeys(keys))


@cache
def references() -> Mapping[str, str]:
    """Every reference, by its key: the entries of ``references.bib``."""
    text = resources.files("headstart").joinpath("references.bib").read_text(encoding="utf-8")
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in re.split(r"\n\n(?=@)", text.strip())}
