"""The two pictures of the README, each for light and for dark pages: a strip of samples, and quality by evaluations.

An SVG that is shown as an image knows nothing of the page around it: so there are two files of each.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from headstart import fit, load_data, load_denoiser
from headstart.files import atomic_write
from headstart.report.comparison import FAMILIES, NAMES
from headstart.report.drawing import (
    DARK,
    LIGHT,
    annotate,
    as_svg,
    axis_ticks,
    new_figure,
    round_ticks,
    style,
    titles,
)
from headstart.report.images import data_uri, image_grid, png
from headstart.sampler import classic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_samples", "pictures"]

MODEL, NFE, SHOWN = "builtin:fashion-mnist", 4, 12

#: The strip: its width, and the height of a row's words.
WIDE, WORDS = 720, 24

#: No figure shows more than so many times its smallest distance.
SPAN = 40.0


def draw_samples(folder: Path) -> None:
    """Draw the samples of the strip, and keep a PNG file of every row and what it shows."""
    denoiser, data = load_denoiser(MODEL), load_data(MODEL)
    plan = fit(denoiser, data, nfe=NFE)
    heun = classic(data.samples.shape[1:])
    scale = float(data.samples.min()), float(data.samples.max())
    rows = []
    for name, sampler, words in (
        ("plan", plan, f"{plan.nfe} evaluations, from a learned start"),
        ("heun", heun, f"{heun.nfe} evaluations of EDM's Heun sampler, from noise"),
    ):
        images = sampler.sample(denoiser, seeds=range(SHOWN))
        atomic_write(png(image_grid(images, SHOWN, scale, padding=1)), folder / f"{name}.png")
        rows.append({"file": f"{name}.png", "words": words, "how": repr(sampler)})
    about = {"model": MODEL, "seeds": [0, SHOWN - 1], "rows": rows}
    atomic_write((json.dumps(about, indent=1) + "\n").encode(), folder / "about.json")


def pictures(results: Mapping[str, Any], samples: Path) -> dict[str, str]:
    """The files of ``docs/images``, by their names.

    Arguments:
        results: of a comparison.
        samples: the folder of :func:`draw_samples`.
    """
    drawn = {"samples": strip(samples), "quality": quality(results)}
    return {
        f"{name}-{mode}.svg": coloured(svg, colours)
        for name, svg in drawn.items()
        for mode, colours in (("light", LIGHT), ("dark", DARK))
    }


def coloured(svg: str, colours: Mapping[str, str]) -> str:
    """The SVG with its CSS variables replaced by colours."""
    return re.sub(r"var\(--(\w+), #\w+\)", lambda match: colours[match[1]], svg) + "\n"


def strip(folder: Path) -> str:
    """The rows of samples, each below its words."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    parts, top = [], 0.0
    for i, row in enumerate(about["rows"]):
        file = (folder / row["file"]).read_bytes()
        with Image.open(folder / row["file"]) as image:
            height = WIDE * image.height / image.width
        colour = "var(--ink, #1c2028)" if i == 0 else "var(--muted, #5f6775)"
        weight = "600" if i == 0 else "400"
        parts.append(
            f'<text x="0" y="{top + WORDS - 8:g}" style="fill: {colour}" font-size="14" font-weight="{weight}">'
            f"{escape(row['words'])}</text>\n"
            f'<image x="0" y="{top + WORDS:g}" width="{WIDE}" height="{height:.1f}" '
            f'style="image-rendering: pixelated" href="{data_uri(file)}"/>'
        )
        top += WORDS + height + 10
    title = f"Samples of the same network: {' beside '.join(row['words'] for row in about['rows'])}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {math.ceil(top - 10)}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif">\n<title>{escape(title)}</title>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


def best_of(rows: Sequence[Mapping[str, Any]], metric: str) -> list[tuple[int, float]]:
    """The least distance of some methods at every number of evaluations."""
    found: dict[int, float] = {}
    for row in rows:
        if row["scores"]:
            found[row["nfe"]] = min(found.get(row["nfe"], math.inf), float(row["scores"][metric]["mean"]))
    return sorted(found.items())


def place_names(ax: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names right of the ends of lines, pushed apart where they would meet."""
    order = sorted(ends, key=lambda end: end[1])
    at = [float(ax.transData.transform((x, y))[1]) for x, y, _, _ in order]
    for _ in range(200):
        for i in range(len(at) - 1):
            push = max(0.0, 15.0 - (at[i + 1] - at[i])) / 2
            at[i], at[i + 1] = at[i] - push, at[i + 1] + push
    right = ax.get_window_extent().x1
    for height, (x, y, name, colour) in zip(at, order, strict=True):
        ax.annotate(
            name,
            (x, y),
            xytext=(right + 14, height),
            textcoords="figure pixels",
            color=colour,
            fontweight="bold" if name == "plan" else "normal",
            va="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 4},
            annotation_clip=False,
        )


def quality(results: Mapping[str, Any]) -> str:
    """The distance against evaluations: the plan, the best of every other family, and the marks, as one SVG."""
    metric, rows = results["metric"], results["summary"]
    mark = next(row for row in rows if row["kind"] == "reference")
    lines = {"plan": best_of([row for row in rows if row["method"] == "plan"], metric)}
    names = {"other starts": "nothing learned"}
    for family in ("other starts", "learned grids", "diffusers", "k-diffusion", "azula"):
        lines[names.get(family, family)] = best_of([row for row in rows if row["family"] == family], metric)
    families = {"plan": "ours", **{shown: name for name, shown in names.items()}}
    low = min(value for points in lines.values() for _, value in points)
    counts = results["settings"]["nfe"]
    with style():
        figure, (ax,) = new_figure(330, [1], left=42, bottom=40, top=26, right=150, width=WIDE)
        ax.set(xscale="log", yscale="log", xlim=(counts[0] / 1.06, counts[-1] * 1.04), ylim=(low / 1.5, low * SPAN))
        axis_ticks(ax, "x", counts)
        axis_ticks(ax, "y", round_ticks(*ax.get_ylim()))
        titles(ax, f"{NAMES[metric]}, log scale (lower is better)", "network evaluations for a sample")
        level = float(mark["scores"][metric]["mean"])
        ax.axhline(level, color=LIGHT["heun"], linewidth=1.1, linestyle=(0, (6, 3)), zorder=1)
        words = f"{mark['nfe']} evaluations of Heun, from noise"
        annotate(ax, (0.0, level), words, LIGHT["heun"], (4, -14), size=10, across=True)
        ends = []
        for name, points in lines.items():
            colour, marker = FAMILIES[families.get(name, name)]
            ours = name == "plan"
            ax.plot(
                [nfe for nfe, _ in points],
                [value for _, value in points],
                color=LIGHT[colour],
                marker=marker,
                linewidth=2.6 if ours else 1.3,
                markersize=6 if ours else 4,
                zorder=5 if ours else 3,
            )
            ends.append((points[-1][0], points[-1][1], name, LIGHT[colour]))
        place_names(ax, ends)
        return as_svg(figure, f"{NAMES[metric]} against network evaluations for a sample", "readme-quality")
