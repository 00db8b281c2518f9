"""The methods that :func:`headstart.fit` makes: our plans, other starts with our schedules, and noised data.

Every one is chosen by the same function with the same care, on the training samples alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from headstart.choose import fit
from headstart.choose.constraints import DISTILLED
from headstart.compare.methods import Kind, Method, Prepared, of_plan
from headstart.compare.setting import Setting
from headstart.plan import Plan

__all__ = ["OURS", "saved"]

#: What a plan chooses its start from.
FAMILIES = ("isotropic", "gaussian", "mixture")


def _chosen(
    name: str, families: tuple[str, ...], schedule: str | None, from_noise: bool, setting: Setting, nfe: int
) -> Prepared:
    """The sampler of the plan that is fitted for so many evaluations, with the seconds of all that it rests on."""
    oracle = setting.start("empirical")[0] if families == ("empirical",) else None

    def chosen() -> Plan:
        starts = [setting.start(family) for family in families]
        plan = fit(
            setting.denoiser,
            setting.data,
            nfe,
            profile=setting.profile,
            initialization=[start for start, _ in starts],
            horizon=setting.sigma_max if from_noise else None,
            schedule=schedule,
            pilot_samples=setting.sizes.pilot,
            seed=setting.seed,
            device=setting.compute.device,
            batch_size=setting.compute.batch_size,
            progress=setting.compute.progress,
        )
        shared = setting.measured[1] + sum(seconds for _, seconds in starts)
        return replace(plan, record=replace(plan.record, fit_seconds=plan.record.fit_seconds + shared))

    return of_plan(setting.kept(f"{name}-{nfe}", chosen, oracle))


def _method(
    name: str,
    label: str,
    kind: Kind,
    family: str,
    families: tuple[str, ...],
    schedule: str | None = None,
    from_noise: bool = False,
) -> Method:
    prepare = partial(_chosen, name, families, schedule, from_noise)
    return Method(name, label, kind, family, prepare, slow=schedule == DISTILLED)


#: All of them; the learned start of a plan is what the others do without.
OURS = (
    _method("plan", "headstart plan", "ours", "ours", FAMILIES),
    _method("plan-distilled", "headstart plan, distilled", "ours", "ours", FAMILIES, DISTILLED),
    _method("isotropic", "noise, our schedule", "peer", "other starts", ("isotropic",), from_noise=True),
    _method("teleportation", "teleportation, our schedule", "peer", "other starts", ("teleportation",)),
    _method("gaussian", "Gaussian start, our schedule", "peer", "other starts", ("gaussian",)),
    _method("oracle", "noised data (oracle)", "oracle", "oracle", ("empirical",)),
)


def saved(path: str | Path) -> Method:
    """A plan that was saved before, as a method of its own number of evaluations.

    Nobody knows whether it was fitted on what samples are scored against: it counts neither for us nor for the others.

    Arguments:
        path: its folder.

    Raises:
        ArtefactError: if it is missing, damaged, or newer than this version of headstart.
    """
    folder = Path(path)
    plan = Plan.load(folder)
    name = f"saved-{folder.resolve().name}"
    kind: Kind = "oracle" if plan.initialization.oracle else "saved"
    sampler = of_plan(plan)
    return Method(
        name, f"saved plan {folder.name}", kind, kind, lambda *_: sampler, only=plan.nfe, identity=plan.digest
    )
