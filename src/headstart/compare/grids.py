"""EDM's Heun sampler, and grids of others that are measured or learned, with DPM-Solver++(2M) from noise.

The measured grids end at 0.05 standard deviations of the data and a step to 0, and LD3 begins with such an end, as ours
do: with few evaluations that makes them better. How much goes into them is a
:class:`~headstart.compare.setting.Sizes`. By default:

* **GITS** follows as many trajectories as its release, 256, by DPM-Solver++(2M) in place of iPNDM.
* **LD3** moves levels alone, by 100 steps of Adam over 512 pairs in batches of 128. Our own distilled plans take as
  many pairs, in such batches, and 50 steps for each of two objectives, from one or two plans.
* **Align Your Steps** is reduced. The paper estimates its bound on 8,192 samples, we on 32; its first grid has 10 steps
  that are halved twice, ours 5 that are halved three times; and it stops early by an image metric, we at the bound's
  minimum. It is measured once for all numbers of evaluations, as 40 steps that are interpolated.

Where the methods themselves differ from what was published, :mod:`headstart.schedule` and :mod:`headstart.distill` say.

References:
    Chen et al., *On the Trajectory Regularity of ODE-based Diffusion Sampling* (GITS), ICML 2024, arXiv 2405.11326.

    Tong et al., *Learning to Discretize Denoising Diffusion ODEs* (LD3), ICLR 2025, arXiv 2405.15506.

    Sabour, Fidler and Kreis, *Align Your Steps*, ICML 2024, arXiv 2404.14507.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

from headstart.citation import citations
from headstart.compare.methods import Method, Prepared, odd, of_sampler, solving
from headstart.compare.setting import Setting
from headstart.distill import Recipe, distill
from headstart.initialization import Isotropic
from headstart.sampler import Sampler
from headstart.schedule import Descent, Schedule, align_your_steps, interpolate, rho_grid
from headstart.solver import DPMSolverPP2M, Heun

__all__ = ["GRIDS", "HEUN", "HEUN_35"]

#: Steps of the grid that Align Your Steps is interpolated from, as it was published for several numbers of steps.
ALIGNED = 40


def _heun(setting: Setting, nfe: int) -> Prepared:
    schedule = setting.edm(Heun().steps_for(nfe))
    draw = solving(Isotropic(setting.shape), schedule, Heun())
    cited = citations("isotropic", schedule.name, "heun")
    return Prepared(draw, f"N(0, {setting.sigma_max:g}^2) start, {schedule.name} levels, heun", cited=cited)


def _gits(setting: Setting, nfe: int) -> Prepared:
    def made() -> tuple[Schedule, float]:
        gits, seconds = setting.gits
        return gits.schedule(nfe), seconds

    return _on(setting, *setting.kept_grid(f"gits-{nfe}", made))


def _aligned(setting: Setting, nfe: int) -> Prepared:
    def made() -> tuple[Schedule, float]:
        sizes, first = setting.sizes, setting.few_sigma_min
        samples = min(sizes.aligned, len(setting.split[1]))
        descent = Descent(samples, coarse=sizes.coarse, subdivisions=sizes.halvings, sweeps=sizes.sweeps)
        began = time.perf_counter()
        schedule = align_your_steps(
            setting.denoiser,
            setting.data[setting.split[1]],
            ALIGNED,
            setting.sigma_max,
            first,
            final_zero=False,
            descent=descent,
            seed=setting.seed,
            compute=setting.compute,
        )
        return schedule, time.perf_counter() - began

    schedule, seconds = setting.kept_grid("align-your-steps", made)
    return _on(setting, interpolate(schedule, nfe), seconds)


def _ld3(setting: Setting, nfe: int) -> Prepared:
    def made() -> tuple[Schedule, float]:
        sizes, schedule = setting.sizes, rho_grid(nfe, setting.sigma_max, setting.few_sigma_min)
        recipe = Recipe(
            objectives=("trajectory",),
            learn="levels",
            iterations=sizes.iterations,
            batch_size=min(sizes.batch, setting.compute.batch_size),
            pairs=sizes.pairs,
            judged=sizes.judged,
        )
        began = time.perf_counter()
        result = distill(
            setting.denoiser,
            Isotropic(setting.shape),
            schedule,
            DPMSolverPP2M(),
            setting.data,
            recipe=recipe,
            held_out=setting.split[1],
            seed=setting.seed,
            compute=replace(setting.compute, batch_size=recipe.batch_size),
        )
        # Nobody decides in LD3: what it learns is taken, better or not, if the network stands its samples.
        learned = result.candidates[1]
        chosen = learned if math.isfinite(learned.gain) else result.winner
        return Schedule(chosen.schedule.sigmas, "LD3"), time.perf_counter() - began

    return _on(setting, *setting.kept_grid(f"ld3-{nfe}", made))


def _on(setting: Setting, schedule: Schedule, seconds: float) -> Prepared:
    """DPM-Solver++(2M) from noise on a grid that took so long."""
    return of_sampler(Sampler(Isotropic(setting.shape), schedule, DPMSolverPP2M()), seconds)


HEUN = Method("heun", "EDM Heun", "peer", "EDM", _heun, affordable=odd)

#: The sampler with many evaluations that few are compared with.
HEUN_35 = Method("heun-35", "EDM Heun, 35", "reference", "EDM", _heun, only=35)

GRIDS = (
    Method("align-your-steps", "Align Your Steps", "peer", "learned grids", _aligned),
    Method("gits", "GITS", "peer", "learned grids", _gits),
    Method("ld3", "LD3", "peer", "learned grids", _ld3),
)
