"""``python -m benchmarks.readme``: the numbers and pictures of the README and the docs, from the stored results.

Whatever stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` on a page is written here and nowhere else; a test
holds the pages against the results. ``--samples`` first draws the samples that the README shows, from the bundled
network, which takes about two minutes.
"""

from __future__ import annotations

import argparse
import ast
import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from benchmarks.pictures import draw_samples, pictures
from experiments.clients.run import table
from experiments.fashion_mnist.run import headline
from headstart.files import atomic_write
from headstart.report import results_table
from headstart.report.comparison import NAMES, comparison_headline
from headstart.report.text import listed, number

__all__ = ["PARTS", "fill", "found_in", "main"]

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"

#: The rows of the README's table: families of a comparison, by what a reader calls them.
RIVALS = {
    "other starts": "levels and solver by the choice of version 0.1, nothing learned",
    "diffusers": "diffusers",
    "k-diffusion": "k-diffusion",
    "azula": "azula",
    "learned grids": "learned grids: GITS, LD3, Align Your Steps",
}

#: The numbers of evaluations of its columns, of those that were measured.
COLUMNS = (3, 4, 6, 8, 10)

COUNTS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 8: "eight", 10: "ten"}

Results = Mapping[str, Any]


def read(path: str) -> Any:
    """A stored result."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def comparisons() -> list[Results]:
    """All stored comparisons: that on Fashion-MNIST, and one of every other network."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("comparison*/results.json"))]


def distance(row: Mapping[str, Any], metric: str) -> float:
    """The mean over the seeds; infinite if a seed failed."""
    return float(row["scores"][metric]["mean"]) if row["scores"] else math.inf


def best(results: Results, nfe: int, *, family: str | None = None, method: str | None = None) -> float:
    """The least distance of a family, or that of one method, after so many evaluations."""
    rows = [
        row for row in results["summary"] if row["nfe"] == nfe and (row["family"] == family or row["method"] == method)
    ]
    return min((distance(row, results["metric"]) for row in rows), default=math.nan)


def times_the_plan(results: Results, nfe: int, family: str) -> float:
    """The best distance of a family over the plan's."""
    return best(results, nfe, family=family) / best(results, nfe, method="plan")


def times(value: float) -> str:
    """A ratio as it is printed."""
    return f"{number(value, 2, padded=True)} ×"


def ratio_table(found: Sequence[Results]) -> str:
    """How many times the plan's distance the best sampler of every family has: the geometric mean over networks."""
    columns = [nfe for nfe in COLUMNS if all(nfe in results["settings"]["nfe"] for results in found)]
    lines = [["distance, in units of the plan's", *map(str, columns)], ["---", *["--:"] * len(columns)]]
    for family, name in RIVALS.items():
        lines.append(
            [name]
            + [times(geometric_mean(times_the_plan(results, nfe, family) for results in found)) for nfe in columns]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def reference(results: Results) -> Mapping[str, Any]:
    """The mark of EDM's sampler at its full number of evaluations."""
    return next(row for row in results["summary"] if row["kind"] == "reference")


def gain(results: Results) -> str:
    """The headline: the plan's shortest chain beside the reference's long one."""
    mark, metric = reference(results), results["metric"]
    nfe = min(results["settings"]["nfe"])
    plan = next(row for row in results["summary"] if row["method"] == "plan" and row["nfe"] == nfe)
    return (
        f"{str(COUNTS.get(nfe, nfe)).capitalize()} evaluations from a learned start have "
        f"**{distance(plan, metric) / distance(mark, metric):.2f} times the {NAMES[metric]}** of {mark['nfe']} "
        "evaluations of EDM's Heun sampler from noise."
    )


def by_count(results: Results, value: Callable[[int], float]) -> str:
    """A ratio for every number of evaluations, in words."""
    return listed([f"{number(value(nfe), 2, padded=True)} at {COUNTS.get(nfe, nfe)}" for nfe in counts(results)])


def counts(results: Results) -> list[int]:
    """The numbers of evaluations of a comparison."""
    return list(results["settings"]["nfe"])


def span(values: Sequence[float], digits: int = 2) -> str:
    """The least and the greatest of some numbers."""
    low, high = number(min(values), digits), number(max(values), digits)
    return low if low == high else f"{low} to {high}"


def findings(results: Results) -> str:
    """A comparison in five points: against packages, like for like, how sure, what it costs, what is left."""
    packages = [name for name in RIVALS if name != "other starts"]

    def ahead(nfe: int) -> float:
        return min(times_the_plan(results, nfe, name) for name in packages)

    minutes = {
        method: span([row["prepare_seconds"] / 60 for row in results["summary"] if row["method"] == method])
        for method in ("plan", "ld3", "align-your-steps")
    }
    oracle = [
        row["scores"][results["metric"]] for row in results["rows"] if row["method"] == "oracle" and row["scores"]
    ]
    points = {
        "Against packages and learned grids": "diffusers, k-diffusion and azula themselves, GITS, LD3 and Align Your "
        f"Steps: the best of them has so many times the distance of the plan: {by_count(results, ahead)} evaluations.",
        "Nothing learned": "with levels and solver by the choice of version 0.1, the best of noise, a Gaussian start "
        "and teleportation has so many times the distance of the plan: "
        f"{by_count(results, lambda nfe: times_the_plan(results, nfe, 'other starts'))} evaluations. More evaluations "
        "need less of the start.",
        "How sure it is": f"{results['verdict']} It is ahead where the 95 % interval of the paired difference over "
        f"{len(results['settings']['seeds'])} seeds leaves out 0.",
        "What it costs, once, on one core": f"choosing a plan {minutes['plan']} minutes, beside other work; LD3 "
        f"{minutes['ld3']}; Align Your Steps {minutes['align-your-steps']}.",
        "What is left": "an oracle that starts from noised training images, and hands them back, has "
        f"{span(oracle)} over all seeds, {number(median(oracle), 2)} in the median. The remaining error comes from "
        "the start.",
    }
    return "\n".join(f"* **{name}**: {text}" for name, text in points.items())


def labels_table(guided: bool) -> str:
    """Samplers with labels: the distances of all images and within classes, and their ratios to EDM's Heun sampler."""
    with (RESULTS / "classes" / "summary.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (float(row["guidance"]) != 1) == guided]
    lines = ["| sampler | evaluations | all images | to Heun's 35 | within classes | to Heun's 35 |"]
    lines.append("|---|--:|--:|--:|--:|--:|")
    for row in rows:
        cells = [f"{row['method']}, guidance {float(row['guidance']):g}" if guided else row["method"]]
        cells.append(row["evaluations"] if row["evaluations"] != "0" else "")
        for name in ("frechet", "within"):
            error = f" ± {float(row[f'{name}_error']):.2g}" if row[f"{name}_error"] else ""
            cells += [number(float(row[name]), 3) + error, f"{float(row[f'{name}_ratio']):.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


#: The experiments of the gallery: the folder of their results, the picture, and the command.
GALLERY = (
    ("gmm", "exact", "experiments.gmm"),
    ("heavy_tails", "quantiles", "experiments.heavy_tails"),
    ("fashion_mnist", "sweep", "experiments.fashion_mnist"),
    ("cantor", "w1", "experiments.cantor"),
    ("bimodal", "bimodal", "experiments.bimodal"),
    ("schedules", "images", "experiments.schedules"),
    ("classes", "nearest", "experiments.classes"),
    ("clients", "ratios", "experiments.clients"),
    ("refinement", "scores", "experiments.refinement"),
    ("returns", "quantiles", "experiments.returns"),
    ("posterior", "c2st", "experiments.posterior"),
    ("latents", "images", "experiments.latents"),
    ("brightness", "brightness", "experiments.brightness"),
)


def gallery() -> str:
    """One picture, one command and what came out, of every experiment."""
    parts = []
    for folder, picture, module in GALLERY:
        title, verdict = folder.replace("_", " ").capitalize(), read(f"{folder}/results.json")["verdict"]
        parts.append(
            f"### {title}\n\n{verdict}\n\n```console\n$ python -m {module}\n```\n\n"
            f"![{title}](../benchmarks/results/{folder}/{picture}.svg)\n\n"
            f"[Tables, figures and references](../benchmarks/results/{folder}/index.html)"
        )
    return "\n\n".join(parts)


def examples() -> str:
    """One command and what it shows, of every example."""
    rows = ["| command | shows |", "|---|---|"]
    for path in sorted((ROOT / "examples").glob("*.py")):
        about = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
        rows.append(f"| `python examples/{path.name}` | {about.replace('``', '`').replace(chr(10), ' ')} |")
    return "\n".join(rows)


def behind() -> str:
    """The networks on which plans are behind, and why."""
    reasons = read("clients/results.json")["reasons"]
    return "\n".join(f"* **{name}**: {reason}." for name, reason in reasons.items()) or "None."


#: What is written between the marks of a page: the page, the mark, and what makes the text.
PARTS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("README.md", "gain", lambda: gain(read("plans/results.json"))),
    ("README.md", "ratios", lambda: ratio_table(comparisons())),
    ("docs/index.md", "gain", lambda: gain(read("plans/results.json"))),
    ("docs/results.md", "gain", lambda: gain(read("plans/results.json"))),
    ("docs/results.md", "plans-table", lambda: comparison_headline(read("plans/results.json"))),
    ("docs/results.md", "comparison-table", lambda: comparison_headline(read("comparison/results.json"))),
    ("docs/results.md", "findings", lambda: findings(read("comparison/results.json"))),
    ("docs/results.md", "labels-table", lambda: labels_table(guided=False)),
    ("docs/results.md", "guided-table", lambda: labels_table(guided=True)),
    ("docs/results.md", "demo-table", lambda: results_table(read("demo.json")["rows"], read("demo.json")["floor"])),
    ("docs/gallery.md", "experiments", gallery),
    ("docs/gallery.md", "examples", examples),
    ("docs/clients.md", "swd", lambda: table(read("clients/results.json")["summary"], "swd")),
    ("docs/clients.md", "energy", lambda: table(read("clients/results.json")["summary"], "energy")),
    ("docs/clients.md", "behind", behind),
    ("docs/starts.md", "fashion-table", lambda: headline(read("fashion_mnist/results.json"))),
)


def pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name} -->\n).*(\n<!-- /{name} -->)", re.DOTALL)


def found_in(page: str, name: str) -> str:
    """The text that stands between the marks of a page."""
    match = pattern(name).search(page)
    if match is None:
        raise ValueError(f"there are no marks <!-- {name} --> and <!-- /{name} -->")
    return match[0].removeprefix(match[1]).removesuffix(match[2])


def fill(page: str, name: str, text: str) -> str:
    """The page with a text between its marks."""
    found_in(page, name)
    return pattern(name).sub(lambda match: match[1] + text + match[2], page)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the pages and the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__)
    parser.add_argument("--samples", action="store_true", help="draw the samples of the README anew")
    if parser.parse_args(arguments).samples:
        draw_samples(RESULTS / "samples")
    for page, name, text in PARTS:
        path = ROOT / page
        atomic_write(fill(path.read_text(encoding="utf-8"), name, text()).encode(), path)
    for name, svg in pictures(read("comparison/results.json"), RESULTS / "samples").items():
        atomic_write(svg.encode(), ROOT / "docs" / "images" / name)


if __name__ == "__main__":
    main()
