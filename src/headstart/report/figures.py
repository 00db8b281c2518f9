"""The figures of a report, each a pure function from plain values to one SVG element.

A figure with nothing to draw is the empty string. The parts are those of :mod:`headstart.report.drawing`.
Figures are 360 units wide, or 300 where three stand side by side, with letters of 11: they can be read on a phone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.deprecation import renamed
from headstart.report.drawing import (
    LEGEND,
    LIGHT,
    SIGMA,
    annotate,
    as_svg,
    axis_ticks,
    label_lines,
    new_figure,
    round_ticks,
    style,
    titles,
    widen,
)
from headstart.report.text import number

__all__ = [
    "error_budget",
    "horizon_curve",
    "measured_profile",
    "method_colours",
    "quality_against_nfe",
    "quality_against_seconds",
    "schedules",
]

#: A name of an earlier version.
__getattr__ = renamed(__name__, {"arm_colours": "headstart.report.figures:method_colours"})

#: A method's or a family's colour and marker, by the first of these words that its name holds.
MARKS = {
    "plan": ("plan", "o"),
    "mixture": ("plan", "o"),
    "heun": ("heun", "D"),
    "dpm": ("dpm", "s"),
    "noise": ("noise", "^"),
    "isotropic": ("noise", "^"),
    "gaussian": ("gaussian", "v"),
}

Row = Mapping[str, Any]


def method_colours(names: Sequence[str]) -> dict[str, str]:
    """The colour of every method, or of every family, as a name in :data:`headstart.report.drawing.LIGHT`."""
    return {name: _mark(name)[0] for name in names}


def quality_against_nfe(rows: Sequence[Row], floor: Row) -> str:
    """Frechet distance against network evaluations, one line a method, with the floor of real against real.

    Arguments:
        rows: one mapping for each method and NFE, with "method", "nfe" and "frechet".
        floor: a mapping with "frechet".
    """
    ticks = sorted({float(row["nfe"]) for row in rows})
    return _quality(
        rows, floor, [row["nfe"] for row in rows], ticks, "network evaluations for an image", nfe_labels=False
    )


def quality_against_seconds(rows: Sequence[Row], floor: Row) -> str:
    """Frechet distance against seconds for 1,000 images, start included; see :func:`quality_against_nfe`.

    Arguments:
        rows: as there, with "sample_seconds" and "n".
        floor: as there.
    """
    return _quality(
        rows, floor, [seconds_per_thousand(row) for row in rows], None, "seconds for 1,000 images", nfe_labels=True
    )


def seconds_per_thousand(row: Row) -> float | None:
    """Seconds that a method takes for 1,000 samples."""
    return 1000 * row["sample_seconds"] / row["n"] if row.get("sample_seconds") and row.get("n") else None


def _quality(
    rows: Sequence[Row],
    floor: Row,
    places: Sequence[float | None],
    ticks: Sequence[float] | None,
    label: str,
    nfe_labels: bool,
) -> str:
    points = [(row, x) for row, x in zip(rows, places, strict=True) if _positive(row.get("frechet")) and _positive(x)]
    if not points:
        return ""
    with style():
        figure, (ax,) = new_figure(300, [1], left=38, bottom=40, top=24)
        xs = [float(x or 0) for _, x in points]
        ys = [float(row["frechet"]) for row, _ in points] + [floor["frechet"]] * _positive(floor.get("frechet"))
        ax.set(xscale="log", yscale="log", xlim=widen(xs, 1.18), ylim=(min(ys) / 1.4, max(ys) * 2))
        axis_ticks(ax, "x", ticks or round_ticks(min(xs), max(xs)))
        axis_ticks(ax, "y", round_ticks(*ax.get_ylim()))
        titles(ax, "Fréchet distance, log scale (lower is better)", label)
        if _positive(floor.get("frechet")):
            ax.axhline(floor["frechet"], color=LIGHT["floor"], linewidth=1.2, linestyle=(0, (4, 3)))
            annotate(ax, (0, floor["frechet"]), "real against real images", LIGHT["floor"], (5, 4), across=True)

        labels: list[tuple[float, float, str, str]] = []
        for method in dict.fromkeys(str(row["method"]) for row, _ in points):
            colour, marker = LIGHT[_mark(method)[0]], _mark(method)[1]
            own = sorted(
                (float(x or 0), float(row["frechet"]), int(row["nfe"])) for row, x in points if row["method"] == method
            )
            x, y, nfes = zip(*own, strict=True)
            strong = method == "plan"
            ax.plot(x, y, color=colour, marker=marker, linewidth=2.6 if strong else 1.6, zorder=4 if strong else 3)
            if len(own) == 1:
                ax.axhline(y[0], color=colour, linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
            for at in own if nfe_labels and len(own) > 1 else ():
                annotate(ax, at[:2], str(at[2]), colour, (0, 7), size=9.5, align="center")
            labels.append((x[-1], y[-1], method if len(own) > 1 else f"{method} {nfes[0]}", colour))
        label_lines(ax, labels)
        return as_svg(figure, f"Fréchet distance against {label}", f"quality-{label}")


def schedules(rows: Sequence[Row]) -> str:
    """The noise levels that every method visits, a row for each NFE, on a logarithmic axis with 0 at its left edge.

    Arguments:
        rows: mappings with "method", "nfe" and "sigmas"; those without levels are left out.
    """
    rows = [row for row in rows if any(_positive(s) for s in row.get("sigmas") or ())]
    if not rows:
        return ""
    levels = [float(s) for row in rows for s in row["sigmas"] if s > 0]
    low, high = math.log10(min(levels)), math.log10(max(levels))
    zero = low - 0.09 * max(high - low, 1)
    with style(grid="x"):
        figure, (ax,) = new_figure(56 + 31 * len(rows), [1], left=14, bottom=40, top=6, right=14)
        ax.set(ylim=(len(rows) - 0.45, -0.8), xlim=(zero - 0.06, high + 0.1))
        ticks = round_ticks(10**low, 10**high, dense=False)
        axis_ticks(ax, "x", [zero, *(math.log10(t) for t in ticks)], ["0", *(f"{t:g}" for t in ticks)])
        axis_ticks(ax, "y", [])
        ax.spines["left"].set_visible(False)
        titles(ax, "", f"noise level {SIGMA}, log scale; sampling runs from right to left")
        for y, row in enumerate(rows):
            colour, marker = LIGHT[_mark(str(row["method"]))[0]], _mark(str(row["method"]))[1]
            xs = [math.log10(s) if s > 0 else zero for s in row["sigmas"]]
            ax.plot(xs, [y] * len(xs), color=colour, linewidth=1.1, alpha=0.55)
            ax.plot(xs, [y] * len(xs), color=colour, marker=marker, linestyle="none", markersize=5.5, clip_on=False)
            bold = "bold" if row["method"] == "plan" else "normal"
            ax.text(zero, y - 0.3, f"{row['method']} {row['nfe']}", color=colour, fontweight=bold, va="bottom")
        return as_svg(figure, "Noise levels visited by every method", "schedules")


def error_budget(plans: Sequence[Row]) -> str:
    """The parts of every plan's error bound in nats: initialization, then the steps.

    Arguments:
        plans: mappings with "nfe" and "budget", which holds "initialization" (value and standard error),
            "discretization" (a value a step).
    """
    plans = [plan for plan in plans if plan.get("budget")]
    if not plans:
        return ""
    parts = [
        (_pair(plan["budget"].get("initialization")), _clean(plan["budget"].get("discretization"))) for plan in plans
    ]
    low = min(0.0, *(start for (start, _), _ in parts))
    high = max(max(start, 0.0) + sum(steps) for (start, _), steps in parts) or 1.0
    with style(grid="x"):
        figure, (ax,) = new_figure(66 + 54 * len(plans), [1], left=14, bottom=40, top=22, right=14)
        span = high - low
        ax.set(ylim=(len(plans) - 0.5, -0.75), xlim=(low - 0.02 * span, high + 0.03 * span))
        ax.axvline(0, color=LIGHT["muted"], linewidth=0.8)
        axis_ticks(ax, "y", [])
        ax.spines["left"].set_visible(False)
        titles(ax, "", "nats")
        unit = ax.get_window_extent().width / (1.05 * span)
        for y, (plan, ((start, error), steps)) in enumerate(zip(plans, parts, strict=True)):
            ax.barh(y + 0.08, start, height=0.34, color=LIGHT["plan"])
            left = max(start, 0.0)
            for step, value in enumerate(steps):
                ax.barh(y + 0.08, value, left=left, height=0.34, color=LIGHT["dpm"], alpha=(0.95, 0.65)[step % 2])
                if value * unit > 16:
                    ax.text(
                        left + value / 2,
                        y + 0.08,
                        str(step + 1),
                        color=LIGHT["card"],
                        ha="center",
                        va="center",
                        size=10,
                    )
                left += value
            if error:
                ax.plot([start - error, start + error], [y + 0.08] * 2, color=LIGHT["ink"], linewidth=1, marker="|")
            ax.text(0, y - 0.16, f"{plan['nfe']} evaluations", va="bottom", fontweight="bold")
            first = number(start if plan["budget"].get("initialization") else None)
            parts_of = f"{first} and {number(sum(steps))}"
            ax.text(high, y - 0.16, parts_of, va="bottom", ha="right", color=LIGHT["muted"])
        names = [("initialization", LIGHT["plan"]), ("discretization, step by step", LIGHT["dpm"])]
        handles = [ax.barh(0, 0, color=colour, label=name) for name, colour in names]
        figure.legend(handles=handles, loc="upper left", ncols=2, bbox_to_anchor=(0, 1), **LEGEND)
        return as_svg(figure, "Error budget of every plan in nats", "budget")


def horizon_curve(plan: Row) -> str:
    """The error of every candidate start against the horizon: E_init, B_ODE and pilot distance, one line a family.

    The first axis is linear between -1 and 1 nat and logarithmic beyond, since an E_init from the network's own loss
    can be negative. The chosen horizon is a line, the flat region around it a band.

    Arguments:
        plan: a mapping with "nfe", "horizon", "initialization", "curve" and "flat_region"; an entry of the curve has
            "initialization", "horizon", "e_init", "e_init_error", "nats" and "pilot".
    """
    curve = [entry for entry in plan.get("curve") or () if _positive(entry.get("horizon"))]
    if not curve:
        return ""
    panels = [("e_init", "initialization error E_init, nats"), ("nats", "whole budget B_ODE, nats")]
    if any(_positive(entry.get("pilot")) for entry in curve):
        panels.append(("pilot", "pilot: distance to held-out data"))
    families = list(dict.fromkeys(str(entry["initialization"]) for entry in curve))
    horizons = [float(entry["horizon"]) for entry in curve]
    with style():
        figure, axes = new_figure(
            62 + 125 * len(panels), [1] * len(panels), left=36, bottom=40, top=42, gap=30, width=300
        )
        for ax, (key, title) in zip(axes, panels, strict=True):
            if all(_positive(edge) for edge in plan.get("flat_region") or [None]):
                ax.axvspan(*plan["flat_region"], color=LIGHT["plan"], alpha=0.1, linewidth=0)
            if _positive(plan.get("horizon")):
                ax.axvline(plan["horizon"], color=LIGHT["plan"], linewidth=1, linestyle=(0, (3, 2)))
            for family in families:
                own = sorted(
                    (entry for entry in curve if entry["initialization"] == family and entry.get(key) is not None),
                    key=lambda entry: float(entry["horizon"]),
                )
                colour, marker = LIGHT[_mark(family)[0]], _mark(family)[1]
                x, y = [float(e["horizon"]) for e in own], [float(e[key]) for e in own]
                ax.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.5, label=family)
                if key == "e_init":
                    error = [float(e.get("e_init_error") or 0) for e in own]
                    ax.errorbar(x, y, yerr=error, ecolor=colour, elinewidth=0.8, fmt="none")
                for entry in own:
                    if family == plan.get("initialization") and entry["horizon"] == plan.get("horizon"):
                        ring: dict[str, Any] = {
                            "markersize": 12,
                            "markerfacecolor": "none",
                            "color": LIGHT["ink"],
                        }
                        ax.plot(entry["horizon"], entry[key], marker="o", **ring)
            ax.set(xscale="log", xlim=widen(horizons, 1.12))
            values = [float(entry[key]) for entry in curve if entry.get(key) is not None]
            if key != "e_init" and values and min(values) > 0:
                ax.set(yscale="log", ylim=widen(values, 1.25))
                axis_ticks(ax, "y", round_ticks(*ax.get_ylim()))
            elif values:
                ax.set_yscale("symlog", linthresh=1)
                ax.set_ylim(min(-0.3, 1.3 * min(values)), max(1.3, 1.6 * max(values)))
                steps = [0.0] + [sign * 10.0**power for sign in (-1, 1) for power in range(7)]
                axis_ticks(ax, "y", [t for t in steps if ax.get_ylim()[0] <= t <= ax.get_ylim()[1]])
            axis_ticks(ax, "x", round_ticks(min(horizons), max(horizons)))
            ax.tick_params(labelbottom=ax is axes[-1])
            titles(ax, title, f"horizon {SIGMA}, log scale" if ax is axes[-1] else "")
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="upper left", ncols=min(len(names), 4), bbox_to_anchor=(0, 1), **LEGEND)
        return as_svg(figure, f"Cost against horizon at {plan['nfe']} evaluations", f"horizon-{plan['nfe']}")


def measured_profile(profile: Row) -> str:
    """The measured denoising loss, and the two costs that schedules are made from, against the noise level.

    Arguments:
        profile: a mapping with "sigmas" and, of the same length or one less (a value an interval), "loss",
            "corrector" and "defect".
    """
    sigmas = np.asarray([s for s in profile.get("sigmas") or () if _positive(s)], dtype=np.float64)
    series = {key: _series(sigmas, profile.get(key) or ()) for key in ("loss", "corrector", "defect")}
    series = {key: (x, y) for key, (x, y) in series.items() if np.isfinite(y).any()}
    panels = [[key for key in keys if key in series] for keys in (["loss"], ["corrector", "defect"])]
    panels = [keys for keys in panels if keys]
    if not panels:
        return ""
    colours = {"loss": LIGHT["ink"], "corrector": LIGHT["dpm"], "defect": LIGHT["plan"]}
    with style():
        figure, axes = new_figure(62 + 130 * len(panels), [1] * len(panels), left=44, bottom=40, top=24, gap=30)
        for ax, keys in zip(axes, panels, strict=True):
            values = np.concatenate([series[key][1] for key in keys])
            height = widen(values[np.isfinite(values)].tolist(), 1.5)
            ax.set(xscale="log", yscale="log", xlim=widen(sigmas.tolist(), 1.1), ylim=height)
            for key in keys:
                x, y = series[key]
                ax.plot(x, y, color=colours[key], label=key)
            axis_ticks(ax, "y", round_ticks(*ax.get_ylim(), dense=False))
            axis_ticks(ax, "x", round_ticks(float(sigmas.min()), float(sigmas.max()), dense=False))
            ax.tick_params(labelbottom=ax is axes[-1])
            title = "denoising loss" if keys == ["loss"] else "cost of a step"
            if keys != ["loss"]:
                ax.legend(loc="lower right", ncols=2, bbox_to_anchor=(1, 1.01), **LEGEND)
            titles(ax, title + ", log scale", f"noise level {SIGMA}, log scale" if ax is axes[-1] else "")
        return as_svg(figure, "Measured profile against the noise level", "profile")


def _series(sigmas: NDArray[Any], values: Sequence[float | None]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Places and values for a log axis; values that are missing or not positive become gaps."""
    y = np.asarray([v if _positive(v) else np.nan for v in values], dtype=np.float64)
    x = np.sqrt(sigmas[:-1] * sigmas[1:]) if len(y) == len(sigmas) - 1 else sigmas
    return (x, y) if len(x) == len(y) else (sigmas, np.full(len(sigmas), np.nan))


def _mark(name: str) -> tuple[str, str]:
    """Colour and marker of a method or a family."""
    return next((mark for word, mark in MARKS.items() if word in name.lower()), ("other", "X"))


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _pair(value: Sequence[float | None] | None) -> tuple[float, float]:
    first, second = (*(value or ()), None, None)[:2]
    return float(first or 0), float(second or 0)


def _clean(values: Sequence[float | None] | None) -> list[float]:
    return [float(value or 0) for value in values or ()]
