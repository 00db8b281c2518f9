"""Samples from the start to the end, by several samplers side by side: a picture of every level, for a page to play.

States at the level sigma spread by sigma around the data. They are shown as

.. math:: c + \\frac{x - c}{\\sqrt{1 + (\\sigma / r)^2}},

with the middle c and a quarter r of the range of the samples, so that noise of every level has the contrast of data.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn.functional import avg_pool2d

from headstart.compute import Compute
from headstart.denoiser import Denoiser
from headstart.errors import InputError
from headstart.report.images import data_uri, image_grid, is_images
from headstart.report.text import number
from headstart.sampler import CLASSIC_NFE, Sampler, classic

__all__ = ["SHOWN", "Entry", "beside_classic", "lanes", "pictured"]

Lane = Mapping[str, Any]

#: Samples of a lane, and in a row of its picture; the side from which on half as many images are shown, and the largest
#: side of an image on the page.
SHOWN, COLUMNS, FEWER, LARGEST = 8, 4, 33, 64

#: The track of a lane, in its own units: its width and height, its ends, the place of the lowest level above 0.
WIDTH, HEIGHT, LEFT, RIGHT, LOWEST = 180, 34, 7, 173, 157


@dataclass(frozen=True)
class Entry:
    """A sampler of a lane.

    Attributes:
        name: of the lane, for programs.
        label: on the page.
        title: what it is, in a sentence.
        sampler: it.
        colour: by its name in :data:`headstart.report.drawing.LIGHT`.
    """

    name: str
    label: str
    title: str
    sampler: Sampler
    colour: str


def beside_classic(plan: Sampler, denoiser: Denoiser) -> list[Entry]:
    """A plan, and EDM's sampler from noise with at most as many evaluations and with 35."""
    shape = plan.initialization.shape
    start = f"{plan.initialization.name} start at {number(plan.horizon)}, {plan.solver.name}"
    equal, published = (classic(shape, nfe, denoiser) for nfe in (plan.nfe, CLASSIC_NFE))
    return [
        Entry("plan", "The plan", start, plan, "plan"),
        Entry("equal", "Classic, as many", "noise, Heun's method, at most as many evaluations", equal, "heun"),
        Entry("classic", f"Classic, {CLASSIC_NFE}", "noise, Heun's method, as published", published, "heun"),
    ]


def lanes(
    entries: Sequence[Entry],
    denoiser: Denoiser,
    seeds: Sequence[int] | None = None,
    conditions: Mapping[str, Any] | None = None,
    compute: Compute | None = None,
) -> list[dict[str, Any]]:
    """The trajectories of a few samples, as plain values.

    Arguments:
        entries: the samplers, of samples of one shape.
        denoiser: the network, on the device.
        seeds: one a sample, the same for all; by default 0 to 7, or 0 to 3 where images are large.
        conditions: handed to the network, as in :meth:`headstart.Sampler.sample`.
        compute: where the network works.

    Returns:
        For each sampler "lane" (its name), "label", "title", "colour", "nfe", "seeds" and "frames". A frame has
        "sigma", "evaluations", "seconds", and "image", the address of a picture, or "points", the first two coordinates
        of every sample.

    Raises:
        InputError: if there is no sampler.
        DenoiserError: as sampling.
    """
    if not entries:
        raise InputError("there is no sampler to show: give at least one entry")
    shape = entries[0].sampler.initialization.shape
    large = len(shape) == 3 and max(shape[1:]) >= FEWER
    chosen = list(range(SHOWN // (1 + large)) if seeds is None else seeds)
    found = [entry.sampler.trajectory(denoiser, chosen, conditions, compute=compute) for entry in entries]
    final = found[0][-1].x.float()
    middle, half = float(final.max() + final.min()) / 2, max(float(final.max() - final.min()) / 2, 1e-12)
    return [
        {
            "lane": entry.name,
            "label": entry.label,
            "title": entry.title,
            "colour": entry.colour,
            "nfe": entry.sampler.nfe,
            "seeds": list(map(int, chosen)),
            "frames": [
                {
                    "sigma": state.sigma,
                    "evaluations": state.evaluations,
                    "seconds": state.seconds,
                    **_shown(_contrast(state.x.float(), state.sigma, middle, half), middle, half),
                }
                for state in states
            ],
        }
        for entry, states in zip(entries, found, strict=True)
    ]


def _contrast(x: Tensor, sigma: float, middle: float, half: float) -> Tensor:
    """States in the range of the data: the formula at the top."""
    return middle + (x - middle) / math.sqrt(1 + (2 * sigma / half) ** 2)


def _shown(x: Tensor, middle: float, half: float) -> dict[str, Any]:
    if not is_images(x):
        return {"points": x.flatten(1)[:, :2].double().tolist()}
    if (times := math.ceil(max(x.shape[2:]) / LARGEST)) > 1:
        x = avg_pool2d(x, times, ceil_mode=True)
    grid = image_grid(x.clamp(middle - half, middle + half), min(len(x), COLUMNS), (middle - half, middle + half), 1)
    return {"image": _webp(grid)}


def _webp(grid: Any) -> str:
    """A picture as the address of itself, as small as looks alike: noise does not compress."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(grid).save(buffer, "WEBP", quality=70, method=6)
    return data_uri(buffer.getvalue(), "webp")


def pictured(found: Sequence[Lane], clock: str = "evaluations") -> list[dict[str, Any]]:
    """Lanes as the page's template takes them: what is said at every level, and the levels drawn.

    Arguments:
        found: made by :func:`lanes`.
        clock: what goes on alike in all lanes: "evaluations" or "seconds".
    """
    if not found:
        return []
    sigmas = [frame["sigma"] for lane in found for frame in lane["frames"] if frame["sigma"] > 0]
    ends = max(sigmas), min(sigmas)
    points = [point for frame in found[0]["frames"] for point in frame.get("points", ())]
    shown = []
    for lane in found:
        frames = [
            {
                "image": frame.get("image"),
                "at": frame[clock],
                "said": _said(frame, lane["nfe"], clock),
            }
            for frame in lane["frames"]
        ]
        places = [_place(frame["sigma"], *ends) for frame in lane["frames"]]
        shown.append(
            {
                **{key: lane[key] for key in ("label", "title", "nfe", "colour")},
                "frames": frames,
                "track": _track(places),
                "paths": _paths(lane["frames"], places, points, clock) if points else None,
            }
        )
    return shown


def _said(frame: Mapping[str, Any], nfe: int, clock: str) -> str:
    """The words beside the clock while a state is shown."""
    noise = f"noise {number(frame['sigma'])}" if frame["sigma"] else "done"
    return noise if clock == "evaluations" else f"{frame['evaluations']} of {nfe} evaluations, {noise}"


def _place(sigma: float, high: float, low: float) -> float:
    """Where a level is on the track: by its logarithm from left to right, 0 at the end."""
    if sigma <= 0:
        return RIGHT
    return LEFT + (LOWEST - LEFT) * math.log(high / sigma) / math.log(high / low) if high > low else LEFT


def _track(places: Sequence[float]) -> str:
    """The levels from the highest of all lanes to 0, those that are visited as dots, and a mark that the page moves."""
    middle = HEIGHT // 2
    dots = "".join(f'<circle class="level" cx="{place:.1f}" cy="{middle}" r="3"/>' for place in places)
    return (
        f'<svg class="track" viewBox="0 0 {WIDTH} {HEIGHT}" aria-hidden="true">'
        f'<path class="way" d="M{LEFT} {middle}H{RIGHT}"/>'
        f'<path class="own" d="M{places[0]:.1f} {middle}H{places[-1]:.1f}"/>{dots}'
        f'<circle class="mark" cx="{places[-1]:.1f}" cy="{middle}" r="6"/></svg>'
    )


def _paths(
    frames: Sequence[Mapping[str, Any]], places: Sequence[float], scale: Sequence[Sequence[float]], clock: str
) -> str:
    """The paths of points, with a dot at every level; a single coordinate is drawn over the levels.

    The scale is that of the first lane, and what other lanes have beyond is cut off.
    """
    flat = len(scale[0]) == 1
    low, high = ([pick(point[axis] for point in scale) for axis in range(len(scale[0]))] for pick in (min, max))
    wide = max(b - a for a, b in zip(low, high, strict=True)) or 1.0
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]

    def at(point: Sequence[float], place: float) -> tuple[float, float]:
        if flat:
            return 5 + 90 * (place - LEFT) / (RIGHT - LEFT), 50 - 90 * (point[0] - middle[0]) / wide
        return 50 + 90 * (point[0] - middle[0]) / wide, 50 - 90 * (point[1] - middle[1]) / wide

    states = [[at(p, place) for p in frame["points"]] for frame, place in zip(frames, places, strict=True)]
    drawn = []
    for path in zip(*states, strict=True):
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in path)
        dots = "".join(f'<circle class="level" cx="{x:.1f}" cy="{y:.1f}" r="1"/>' for x, y in path)
        drawn.append(f'<polyline class="own" points="{corners}"/>{dots}')
    for i, (frame, state) in enumerate(zip(frames, states, strict=True)):
        on = " on" if i == len(states) - 1 else ""
        marks = "".join(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in state)
        drawn.append(f'<g class="frame{on}" data-at="{frame[clock]:.6g}">{marks}</g>')
    return f'<svg class="paths" viewBox="0 0 100 100" aria-hidden="true">{"".join(drawn)}</svg>'
