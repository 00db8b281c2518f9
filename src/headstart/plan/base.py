"""The plan as a value: a sampler with the evidence for its start, its schedule and its solver.

A plan is chosen by :func:`headstart.fit` and samples any denoiser of the same data. :mod:`headstart.plan.explain` says
in words why it was chosen, and :mod:`headstart.plan.file` keeps it.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from headstart.budget import Budget
from headstart.citation import BUDGET, IMAGES, PILOT
from headstart.denoiser import Denoiser, guided_in
from headstart.denoiser.contract import is_finite
from headstart.errors import DenoiserError, InputError
from headstart.latents import Codec, Space, rows_of
from headstart.metrics import Novelty
from headstart.noise import Noise
from headstart.profile import Profile
from headstart.sampler import Sampler

__all__ = ["Candidate", "Conditioning", "Guidance", "Plan", "Record"]


@dataclass(frozen=True)
class Candidate:
    """One combination that was looked at on the way to a plan.

    Attributes:
        initialization: name of the family.
        horizon: sigma_T.
        schedule: name of the kind of schedule.
        sigma_min: its last level above 0.
        solver: name of the solver.
        e_init: the start's error in nats, or None if it has no density.
        e_init_error: its standard error.
        nats: the whole budget: :math:`B_\\text{ODE}`, or J for "ddpm" and "euler-maruyama".
        pilot: distance of pilot samples to held-out data (:mod:`headstart.choose.judge`), or None if it was not
            piloted.
        tail: logarithm of the start's far quantiles over those of the noised data; below 0, the start misses the tails.
        flat: whether its budget is as good as the best one of the chosen start, up to 5 % or the Monte-Carlo error.
        pilot_flat: whether the pilot cannot tell it from the chosen combination.
        final: the same of more samples, for the few that came far; values by unlike counts do not compare.
        turn: by how much the last row of the solver's weights was turned (:mod:`headstart.choose.pilot`).
    """

    initialization: str
    horizon: float
    schedule: str
    sigma_min: float
    solver: str
    e_init: float | None
    e_init_error: float | None
    nats: float
    pilot: float | None = None
    tail: float | None = None
    flat: bool = False
    pilot_flat: bool = False
    final: float | None = None
    turn: float = 0.0

    @property
    def rank(self) -> tuple[float, float, float]:
        """Sorts candidates: by their last scores first, then by those of the pilot, then by their budgets."""
        return tuple(math.inf if value is None else value for value in (self.final, self.pilot, self.nats))  # type: ignore[return-value]


@dataclass(frozen=True)
class Conditioning:
    """The part that conditions other than classes have in a plan.

    Attributes:
        knows: the names of those that its start looks at.
        ignores: the names of those that the network takes and the start does not.
        information: :math:`I(X_T; C)` at the plan's horizon and its standard error, in nats: what a start would pay
            there that ignores them (:func:`headstart.budget.condition_information`). None if it was not told.
    """

    knows: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()
    information: tuple[float, float] | None = None


@dataclass(frozen=True)
class Guidance:
    """The classifier-free guidance that a plan is for (:func:`headstart.guide`).

    Attributes:
        scale: the guidance scale; 1 means none.
        low: the lowest level that it guides at.
        high: the highest one, or None for all above.
    """

    scale: float
    low: float = 0.0
    high: float | None = None

    def __str__(self) -> str:
        interval = "" if (self.low, self.high) == (0.0, None) else f" on levels from {self.low:.3g}"
        return f"{self.scale:g}{interval}" + ("" if self.high is None else f" to {self.high:.3g}")


@dataclass(frozen=True)
class Record:
    """How a plan came to be.

    A field that is added here is saved with every plan, and checked when one is loaded; its default stands for what
    older plans do not say.

    Attributes:
        candidates: the combinations that were looked at.
        criterion: what decided: "pilot" or "budget".
        chosen: how the user or the criterion came to each part.
        seed: of everything random in fitting.
        fit_seconds: wall-clock time of fitting, measuring included.
        source: what the plan was fitted on: "data", or samples of the network itself and what they cost.
        start_cost: of drawing a start, in evaluations of the network: counted in operations, or as given; for starts
            that are not in closed form it was taken off the evaluations that were asked for.
        novelty: the test of the plan's samples for copies of the data that the start was fitted on, or None if the data
            were too few.
        doubts: whether the network is a denoiser of these data, in lines (:func:`headstart.check`).
        conditioning: the part that conditions have, or None where there are none but classes.
        guidance: the guidance whose samples it was fitted and judged on, or None without.
        latents: the space that it samples in, if its samples are to be decoded (:meth:`Plan.with_latents`).
    """

    candidates: tuple[Candidate, ...] = ()
    criterion: Literal["pilot", "budget"] = "pilot"
    chosen: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    fit_seconds: float = 0.0
    source: str = "data"
    start_cost: float = 0.0
    novelty: Novelty | None = None
    doubts: tuple[str, ...] = ()
    conditioning: Conditioning | None = None
    guidance: Guidance | None = None
    latents: Space | None = None


def _finite(level: float) -> float | None:
    return None if math.isinf(level) else level


def _of_record(name: str) -> property:
    """A field of the record under its old name, as an attribute of the plan."""

    def read(plan: Plan) -> Any:
        warnings.warn(f"Plan.{name} is now Plan.record.{name}", DeprecationWarning, stacklevel=2)
        return getattr(plan.record, name)

    return property(read, doc=f"The old name of ``record.{name}``.")


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Sampler):
    """A sampler with its evidence: the budget, the measurements, and the record of how its parts were chosen.

    Attributes:
        budget: the error budget in nats, or None if none was drawn up.
        profile: the measurements that the choice rests on.
        record: how the plan came to be.
        latents: decodes what is sampled; a plan never saves code, so that one that was loaded has to be given it anew
            (:meth:`with_latents`).
    """

    budget: Budget | None
    profile: Profile
    record: Record = field(default_factory=Record)
    latents: Codec | None = None

    candidates = _of_record("candidates")
    criterion = _of_record("criterion")
    chosen = _of_record("chosen")
    seed = _of_record("seed")
    fit_seconds = _of_record("fit_seconds")
    source = _of_record("source")
    start_cost = _of_record("start_cost")
    novelty = _of_record("novelty")

    @property
    def flat(self) -> tuple[float, float] | None:
        """The old name of :attr:`equivalent`."""
        warnings.warn("Plan.flat is now Plan.equivalent", DeprecationWarning, stacklevel=2)
        return self.equivalent

    @property
    def equivalent(self) -> tuple[float, float] | None:
        """The lowest and the highest horizon that are statistically indistinguishable from the chosen one.

        By what decided, and with the chosen start; None where nothing was compared.
        """
        same = [c for c in self.record.candidates if c.initialization == self.initialization.name]
        level = [c.horizon for c in same if (c.pilot_flat if self.record.criterion == "pilot" else c.flat)]
        return (min(level), max(level)) if level else None

    @property
    def cited(self) -> tuple[str, ...]:
        """The keys of :meth:`citation`, as in :func:`headstart.citation.references`, each once."""
        keys = [*super().cited]
        keys += BUDGET if self.budget is not None else ()
        if any(candidate.pilot is not None for candidate in self.record.candidates):
            keys += (*PILOT, *IMAGES) if len(self.profile.shape) == 3 else PILOT
        return tuple(dict.fromkeys(keys))

    @property
    def network_calls(self) -> int:
        """Calls of the network a sample: where it is guided, an evaluation of the denoiser is two of them."""
        guidance, levels = self.record.guidance, self._asked_at()
        high = math.inf if guidance is None or guidance.high is None else guidance.high
        guided = 0 if guidance is None else sum(guidance.low <= level <= high for level in levels)
        return len(levels) + guided

    def _asked_at(self) -> list[float]:
        """The level of each evaluation of the denoiser, as the solver makes them."""
        levels: list[float] = []

        def asked(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
            levels.append(float(sigma[0]))
            return torch.zeros_like(x)

        self.solver.solve(asked, torch.zeros(1, 1), self.schedule, Noise([0]))
        return levels

    def with_latents(self, latents: Codec | None) -> Plan:
        """The same plan, whose samples are decoded; or, given None, are the latents themselves.

        Arguments:
            latents: the way back from the latents that the plan was fitted on: a :class:`headstart.latents.Latents`, or
                that of a framework. The plan keeps its numbers and its spec, and never its code.
        """
        return replace(
            self, latents=latents, record=replace(self.record, latents=None if latents is None else latents.space)
        )

    def _returned(self, samples: Tensor) -> Tensor:
        """The samples, decoded where the plan decodes.

        Raises:
            DenoiserError: if what decodes them returns anything but as many samples of finite numbers.
        """
        if self.latents is None:
            return samples
        decoded = rows_of(self.latents.decode(samples), samples, "decoder")
        if not is_finite(decoded):
            raise DenoiserError("what decodes latents returned NaN or infinite values: are scale and shift theirs?")
        return decoded

    def _announce(self, denoiser: Denoiser) -> None:
        """Refuse to return latents for samples, and warn where the denoiser is guided in another way than the samples
        were that the plan rests on.

        Raises:
            InputError: if the plan's samples are to be decoded and nothing does.
        """
        if self.record.latents is not None and self.latents is None:
            spec = self.record.latents.spec
            by = f"load_latents(plan.record.latents), which runs {spec}" if spec else "what they were encoded by"
            raise InputError(
                f"this plan samples latents and was loaded without what decodes them: plan.with_latents({by}); "
                "plan.with_latents(None) returns the latents"
            )
        if self.record.guidance is None:
            return
        found = guided_in(denoiser)
        now = "none" if found is None else str(Guidance(found.scale, found.interval[0], _finite(found.interval[1])))
        if now != str(self.record.guidance):
            warnings.warn(
                f"this plan was fitted for guidance {self.record.guidance}, and the denoiser's is {now}: its start and "
                "its levels were chosen on other samples, and what they cost at this guidance was not measured",
                stacklevel=4,
            )

    def explain(self) -> str:
        """An explanation of what was chosen and why."""
        from headstart.plan.explain import explanation

        return explanation(self)

    def to_dict(self) -> dict[str, Any]:
        """The plan without its tensors, as plain values for JSON."""
        from headstart.plan.file import values_of

        return values_of(self)

    @property
    def digest(self) -> str:
        """Tells the plan from others: SHA-256 over all that it holds, but for how long fitting took."""
        from headstart.plan.file import digest_of

        return digest_of(self)

    def save(self, folder: str | Path) -> None:
        """Write the plan as a folder, whole or not at all. An older plan there is replaced; nothing else ever is.

        Raises:
            ArtefactError: if the folder exists and is not a plan, or cannot be written (no space, no permission).
        """
        from headstart.plan.file import write

        write(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Plan:
        """The plan that :meth:`save` wrote.

        Raises:
            ArtefactError: if it is missing, damaged, or newer than this version of headstart.
        """
        from headstart.plan.file import read

        return read(Path(folder))

    def save_pretrained(self, folder: str | Path, *, repo_id: str | None = None) -> None:
        """Write the plan with a model card, ``README.md``: a folder that can be a repository of the Hugging Face Hub.

        Arguments:
            folder: gets the plan; an older one with its card is replaced.
            repo_id: named in the card.

        Raises:
            ArtefactError: if something else is there, or it cannot be written.
        """
        from headstart.plan.hub import save_pretrained

        save_pretrained(self, folder, repo_id)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push plan using headstart.",
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool | None = None,
        api: Any = None,
    ) -> str:
        """Upload the plan with a model card to the Hugging Face Hub. A plan holds no network, and no data but those of
        an empirical start.

        Arguments:
            repo_id: the repository, ``user/name``; it is made if it is not there.
            commit_message: of the commit.
            private: whether a new repository is private.
            token: of the user; that of ``hf auth login`` by default.
            revision: the branch.
            create_pr: open a pull request instead.
            api: in place of ``huggingface_hub.HfApi()``.

        Returns:
            The address of the commit.

        Raises:
            MissingExtraError: if huggingface_hub is not installed.
        """
        from headstart.plan.hub import push_to_hub

        options = {"token": token, "revision": revision, "create_pr": create_pr}
        return push_to_hub(self, repo_id, commit_message=commit_message, private=private, api=api, **options)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        api: Any = None,
    ) -> Plan:
        """The plan of a folder, or of a repository of the Hugging Face Hub.

        Arguments:
            name_or_path: a folder, or ``user/name``.
            revision: a branch, tag or commit.
            token: of the user.
            cache_dir: where downloads are kept.
            local_files_only: use what was downloaded before alone.
            force_download: download it anew.
            api: in place of the module ``huggingface_hub``.

        Raises:
            ArtefactError: if it is missing, damaged, or newer than this version of headstart.
            MissingExtraError: if it is no folder and huggingface_hub is not installed.
        """
        from headstart.plan.hub import from_pretrained

        return from_pretrained(
            name_or_path,
            api=api,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )

    def _summary(self) -> str:
        start = None if self.budget is None else self.budget.initialization
        return super()._summary() + ("" if start is None else f"; E_init {start!r} nats")
