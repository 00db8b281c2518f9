"""Go on from the chosen combination: learn its levels and coefficients, at its horizon and where the start errs little.

With learned coefficients a sampler crosses more noise in the same few steps, so that the best horizon moves up, to
where the start has less to know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headstart.choose.pilot import Pilot
from headstart.choose.race import winner
from headstart.choose.screen import ADMISSIBLE, Option, Tails, contenders, resampled, varied
from headstart.conditions import Split
from headstart.denoiser import Range
from headstart.distill import Parts, Recipe, distill
from headstart.schedule import Distilled

__all__ = ["learn"]

#: Iterations of each objective, and Adam's rate: what fits into a minute on images.
ITERATIONS, RATE = 50, 0.04


def learn(
    pilot: Pilot,
    best: Option,
    options: Sequence[Option],
    tails: Tails,
    split: Split,
) -> tuple[Option, list[Option], str]:
    """The best combination with what was learned from it, all that was piloted, and what won.

    Arguments:
        pilot: draws and scores samples.
        best: the combination to go on from.
        options: what was screened.
        tails: judges the starts' tails.
        split: clean samples and their conditions, some of which only choices see.
    """
    if best.schedule.steps == 1:
        return best, [], "a single step leaves nothing to learn"
    near = [option for option in contenders(options, tails) if option.e_init <= ADMISSIBLE]
    from_here = [best]
    if near and near[0].schedule.horizon != best.schedule.horizon:
        from_here.append(varied(pilot.profile, near[0], kind=best.kind, solver=best.solver))
    size = min(128, pilot.compute.batch_size)
    parts: Parts = "both" if Range.of(pilot.denoiser).levels is None else "coefficients"
    recipe = Recipe(learn=parts, iterations=ITERATIONS, batch_size=size, learning_rate=RATE)
    found, won = [best], {id(best): "as asked, but nothing that was learned is better"}
    for option in from_here:
        learned = distill(
            pilot.denoiser,
            option.start,
            option.schedule,
            option.solver,
            split.whole.samples,
            held_out=split.held_out_rows,
            conditions=split.whole.conditions,
            recipe=recipe,
            seed=pilot.seed % 2**27,
            compute=replace(pilot.compute, batch_size=size),
        )
        if learned.won and learned.schedule.sigma_min >= pilot.profile.sigmas[-1]:  # else nothing is known of its error
            better = resampled(pilot.profile, option, Distilled(), learned.schedule, learned.solver)
            found.append(better)
            won[id(better)] = {"data": "learned from the data", "trajectory": "learned from fine trajectories"}[
                learned.winner.objective
            ]
    scored = pilot(pilot(found), pilot.count)
    place = scored.index(winner(scored))
    return scored[place], scored, won[id(found[place])]
