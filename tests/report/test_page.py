"""The report: well-formed, self-contained, complete, and honest about who wins."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.errors import ArtefactError, InputError
from headstart.report import figures, image_grid, save_png, verdict, write_demo_report
from headstart.report.drawing import DARK, LIGHT
from headstart.report.text import number

VOID = {"meta", "img", "br", "link", "input", "hr"}

# Arm, NFE, Frechet distance, seconds for 1,000 images, levels.
METHODS: list[tuple[str, int, float, float, list[float]]] = [
    ("plan", 3, 9.21, 4.1, [0.7, 0.2, 0.05, 0.0]),
    ("plan", 4, 5.07, 5.3, [1.2, 0.5, 0.2, 0.05, 0.0]),
    ("plan", 6, 3.98, 8.0, [4.0, 1.6, 0.7, 0.3, 0.1, 0.03, 0.0]),
    ("edm-heun", 35, 6.04, 38.9, [80 * 0.62**i for i in range(18)] + [0.0]),
    ("dpm++2m", 4, 812.0, 5.2, [80.0, 9.7, 0.47, 0.002, 0.0]),
    ("dpm++2m", 6, 203.0, 7.7, [80.0, 22.0, 4.5, 0.6, 0.035, 0.002, 0.0]),
    ("dpm++2m", 10, 6.9, 12.4, [80.0 * 0.3**i for i in range(10)] + [0.0]),
    ("noise, our schedule", 4, 141.0, 5.2, [80.0, 2.5, 0.6, 0.05, 0.0]),
    ("noise, our schedule", 6, 17.3, 7.8, [80.0, 3.5, 1.3, 0.5, 0.2, 0.05, 0.0]),
    ("gaussian start", 4, 24.6, 5.2, [6.0, 1.3, 0.4, 0.05, 0.0]),
    ("gaussian start", 6, 8.8, 7.8, [10.0, 3.0, 1.2, 0.5, 0.2, 0.05, 0.0]),
]


def synthetic_results() -> dict[str, Any]:
    """A demo's results of the shape that the page is given, with values as they are seen on Fashion-MNIST."""
    rows = [
        {
            "method": method,
            "initialization": {"plan": "mixture", "gaussian start": "gaussian"}.get(method, "isotropic"),
            "horizon": sigmas[0],
            "schedule": "rho 7" if method in ("edm-heun", "dpm++2m") else "defect",
            "solver": "heun" if method == "edm-heun" else "dpm++2m",
            "nfe": nfe,
            "n": 1000,
            "seed": 0,
            "frechet": frechet,
            "swd": 0.02 + frechet / 4000,
            "max_swd": 0.05 + frechet / 2000,
            "sample_seconds": seconds,
            "fit_seconds": 21.4 if method == "plan" else None,
            "sigmas": sigmas,
        }
        for method, nfe, frechet, seconds, sigmas in METHODS
    ]
    horizons = [0.5, 0.7, 1.2, 2.0, 4.0, 6.0, 10.0]
    e_init = {
        "isotropic": [348, 170, 64, 16.4, 3.1, 1.17, 0.38],
        "gaussian": [27.3, 15.0, 6.0, 1.5, 0.2, 0.06, 0.04],
        "mixture": [9.1, 2.9, 0.2, -0.27, -0.01, 0.02, 0.03],
    }
    plans = []
    for nfe, horizon, steps in [(3, 0.7, [9.0, 8.8, 5.1]), (4, 1.2, [6.0, 5.9, 6.1, 3.4]), (6, 4.0, [4.0] * 5 + [1.2])]:
        curve = [
            {
                "initialization": family,
                "horizon": sigma,
                "e_init": value,
                "e_init_error": 0.1,
                "nats": (max(value, 0) ** 0.5 + (30 * (1 + 0.8 * np.log(sigma / 0.4)) / nfe) ** 0.5 * 2) ** 2,
                "pilot": 0.03 + 0.01 * abs(np.log(sigma / horizon)) if value < 4 else None,
            }
            for family, values in e_init.items()
            for sigma, value in zip(horizons, values, strict=True)
        ]
        plans.append(
            {
                "nfe": nfe,
                "horizon": horizon,
                "initialization": "mixture",
                "schedule": "defect",
                "sigmas": next(row[4] for row in METHODS if row[:2] == ("plan", nfe)),
                "solver": "dpm++2m",
                "fit_seconds": 21.4,
                "explanation": f"Plan for {nfe} evaluations\n"
                "  start     mixture, 60 components in 40 directions\n"
                f"  horizon   {horizon:g}, decided by a pilot of 300 samples\n"
                "  error     initialization 0.2 +- 0.1 nats",
                "budget": {"initialization": [0.2, 0.1], "discretization": steps, "total": sum(steps) * 2.9},
                "curve": curve,
                "flat_region": [horizon / 1.4, horizon * 1.4],
            }
        )
    sigmas = np.geomspace(0.002, 80, 40)
    loss = 784 * 0.25 * sigmas**2 / (sigmas**2 + 0.25) * 0.2
    return {
        "rows": rows,
        "floor": {"frechet": 0.93, "swd": 0.021, "max_swd": 0.043, "n": 1000, "seed": 0},
        "environment": {
            "headstart": "0.1.0",
            "torch": "2.13.0",
            "python": "3.11.2",
            "threads": 2,
            "seed": 0,
            "budget": 7.5,
        },
        "plans": plans,
        "profile": {
            "sigmas": sigmas.tolist(),
            "loss": loss.tolist(),
            "corrector": (40 * np.exp(-(np.log(sigmas / 0.3) ** 2) / 4)).tolist(),
            "defect": [None, *(12 * np.exp(-(np.log(sigmas[1:] / 0.5) ** 2) / 3)).tolist()],
        },
        "data": "fashion-mnist",
        "seconds": 252.0,
    }


def rows_and_floor() -> dict[str, Any]:
    """The results without what most figures are drawn from, for tests of other things."""
    return {key: value for key, value in synthetic_results().items() if key not in ("plans", "profile")}


def synthetic_grids() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {key: rng.normal(size=(9, 1, 8, 8)) for key in ["real", *(f"{method} {nfe}" for method, nfe, *_ in METHODS)]}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_demo_report(synthetic_results(), synthetic_grids(), path)
    return path.read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Checks that every element is closed in its turn, and gathers attributes and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self._gather(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._gather(tag, attrs)

    def _gather(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element at line {self.getpos()[0]}"

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    parser.close()
    return parser


def test_page_is_balanced_and_its_ids_are_unique(page: str) -> None:
    parsed = outline(page)
    assert parsed.open == []
    assert len(parsed.ids) == len(set(parsed.ids)) > 0


def test_page_refers_to_nothing_outside_itself(page: str) -> None:
    inside = re.compile(r"#|data:image/png;base64,")
    references = [
        (t, n, v) for t, n, v in outline(page).attributes if n in ("src", "href", "xlink:href", "srcset", "action")
    ]
    assert len(references) > 20
    assert [r for r in references if not inside.match(r[2])] == []
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert set(re.findall(r"https?://[^\"\s<]+", page)) <= {"http://www.w3.org/2000/svg"}


def test_page_names_every_method_and_shows_every_row(page: str) -> None:
    parsed = outline(page)
    for method, nfe, frechet, *_ in METHODS:
        assert f"{method} {nfe}" in parsed.text
        assert number(frechet, padded=True) in parsed.text
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    assert body.count("<tr") == len(METHODS) + 1
    assert sum(tag == "img" and name == "src" for tag, name, _ in parsed.attributes) == len(METHODS) + 1
    assert page.count("<svg") == 2 + 1 + 1 + 3 + 1
    assert "60 components in 40 directions" in parsed.text


def test_page_cites_what_its_methods_use(page: str) -> None:
    section = outline(page[page.index("<h2>References</h2>") : page.index("</section>", page.index("<h2>References"))])
    cited = re.findall(r"@\w+\{(\w+),", section.text)
    parts = {
        "fassina2026initialization",  # the approach
        "williams2024score",  # the levels of the plans
        "lucke2010expectation",  # the mixture
        "wang2024unreasonable",  # the Gaussian start
        "song2021score",  # noise, where the baselines start
        "karras2022elucidating",  # Heun on the rho grid
        "lu2022dpmpp",
        "bonneel2015sliced",  # the pilots
    }
    assert parts <= set(cited)
    assert "zhao2023unipc" not in cited
    assert len(cited) == len(set(cited))
    assert f"BibTeX, {len(cited)} references" in section.text


def test_missing_values_are_dashes(page: str) -> None:
    body = page[page.index("<tbody>") : page.index("</tbody>")]
    heun = next(row for row in body.split("</tr>") if "edm-heun" in row)
    assert re.findall(r'data-value="">([^<]*)<', heun) == ["-"]


def test_verdict_holds_the_numbers() -> None:
    results = synthetic_results()
    sentence = verdict(results["rows"], results["floor"])
    assert sentence == (
        "Four evaluations from a learned start reach a Fréchet distance of 5.07, better than the 6.04 of EDM's 35 from "
        "noise, 7.3 times faster; real images against real ones reach 0.93."
    )


@pytest.mark.parametrize(("frechet", "words"), [(12.1, "The baseline wins"), (6.1, "level with"), (5.0, "better than")])
def test_verdict_says_who_wins(frechet: float, words: str) -> None:
    results = synthetic_results()
    results["rows"][1]["frechet"] = frechet
    sentence = verdict(results["rows"], results["floor"])
    assert words in sentence
    assert "6.04" in sentence
    assert number(frechet) in sentence


def test_verdict_says_slower_when_slower() -> None:
    results = synthetic_results()
    results["rows"][1]["sample_seconds"] = 2 * 38.9
    assert "2.0 times slower" in verdict(results["rows"], results["floor"])


def test_page_says_when_another_method_beats_the_plan(tmp_path: Path) -> None:
    results = rows_and_floor()
    next(row for row in results["rows"] if (row["method"], row["nfe"]) == ("gaussian start", 4))["frechet"] = 2.0
    write_demo_report(results, {}, tmp_path / "report.html")
    text = outline((tmp_path / "report.html").read_text(encoding="utf-8")).text
    assert "the best of the other methods, gaussian start, reaches 2 and beats the plan." in text


def test_verdict_of_a_trial_says_so() -> None:
    results = synthetic_results()
    assert not verdict(results["rows"], results["floor"]).startswith("A trial")
    few = [{**row, "n": 64} for row in results["rows"]]
    assert verdict(few, results["floor"]).startswith("A trial of 64 images, too few to judge by. ")


def test_verdict_needs_both_sides() -> None:
    results = synthetic_results()
    assert verdict(results["rows"][:3], results["floor"]).startswith("No verdict")


def test_speed_is_per_image() -> None:
    results = synthetic_results()
    slow = copy.deepcopy(results["rows"])
    slow[3].update(n=500, sample_seconds=38.9 / 2)
    assert verdict(slow, results["floor"]) == verdict(results["rows"], results["floor"])


def test_text_is_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>&$x_1$--"
    curve = [{"initialization": evil, "horizon": h, "e_init": 1.0, "nats": 2.0} for h in (1.0, 2.0)]
    results = {
        **rows_and_floor(),
        "plans": [{"nfe": 4, "explanation": evil, "curve": curve}],
        "environment": {evil: evil},
        "data": evil,
    }
    results["rows"].append({**results["rows"][4], "method": evil})
    write_demo_report(results, {f"{evil} 4": np.zeros((1, 1, 2, 2))}, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = outline(page)
    assert "<script>alert" not in page
    assert parsed.open == []
    # Twice in the data's name, twice in the quality figures, twice in the environment; once in the grid, the schedules,
    # the plan, the curve and the table; and as an attribute, of the grid.
    assert parsed.text.count(evil) == 11
    assert [value for _, name, value in parsed.attributes if name == "alt"] == [f"Grid of images: {evil} 4"]


def test_a_page_of_rows_alone_leaves_the_rest_out(tmp_path: Path) -> None:
    row = {"method": "plan", "nfe": 4, "frechet": None}
    write_demo_report({"rows": [row]}, {}, tmp_path / "report.html")
    parsed = outline((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert parsed.open == []
    assert "svg" not in {tag for tag, _, _ in parsed.attributes}
    assert "No verdict" in parsed.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "five"])
def test_numbers_that_are_none_are_refused_by_name(tmp_path: Path, value: Any) -> None:
    results = rows_and_floor()
    results["rows"][2]["frechet"] = value
    with pytest.raises(InputError, match=r"'plan' 6 holds frechet"):
        write_demo_report(results, {}, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["plans", "profile"])
def test_nan_anywhere_is_refused(tmp_path: Path, key: str) -> None:
    nested = {"plans": [{"nfe": 4, "curve": [{"e_init": float("nan")}]}], "profile": {"loss": [1.0, float("inf")]}}
    with pytest.raises(InputError, match=key):
        write_demo_report({**rows_and_floor(), key: nested[key]}, {}, tmp_path / "report.html")


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one row"):
        write_demo_report({"rows": []}, {}, tmp_path / "report.html")


def test_the_same_results_make_the_same_figures() -> None:
    rows, floor = rows_and_floor()["rows"], rows_and_floor()["floor"]
    assert figures.quality_against_nfe(rows, floor) == figures.quality_against_nfe(rows, floor)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ArtefactError, match="No space left"):
        write_demo_report(rows_and_floor(), {}, path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    save_png(np.zeros((2, 2), np.uint8), tmp_path / "nowhere" / "grid.png")
    assert (tmp_path / "nowhere" / "grid.png").read_bytes().startswith(b"\x89PNG")


def all_figures(results: dict[str, Any]) -> list[str]:
    rows, floor, plans = results["rows"], results["floor"], results["plans"]
    return [
        figures.quality_against_nfe(rows, floor),
        figures.quality_against_seconds(rows, floor),
        figures.schedules(rows),
        figures.error_budget(plans),
        *(figures.horizon_curve(plan) for plan in plans),
        figures.measured_profile(results["profile"]),
    ]


def test_figures_are_xml_with_text_and_the_palette_only() -> None:
    for svg in all_figures(synthetic_results()):
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert len(list(root.iter("{http://www.w3.org/2000/svg}text"))) > 5
        assert not list(root.iter("{http://www.w3.org/2000/svg}style"))
        colours = re.findall(r"(?:fill|stroke): ([^;\"]+)", svg)
        allowed = {f"var(--{name}, {colour})" for name, colour in LIGHT.items()} | {"none"}
        assert set(colours) <= allowed


def test_palettes_agree() -> None:
    assert LIGHT.keys() == DARK.keys()
    assert len(set(LIGHT.values())) == len(LIGHT)


def test_schedule_dots_are_the_levels() -> None:
    row = {"method": "plan", "nfe": 3, "sigmas": [10.0, 1.0, 0.1, 0.0]}
    places = [float(x) for x in re.findall(r'<use [^>]*x="([\d.]+)"[^>]*var\(--plan', figures.schedules([row]))]
    assert len(places) == 4
    right, middle, left, zero = places
    assert right - middle == pytest.approx(middle - left, abs=1e-4)
    assert zero < left


def test_negative_and_large_costs_are_drawn_in_order() -> None:
    curve = [{"initialization": "noise", "horizon": h, "e_init": e} for h, e in [(1.0, 300.0), (2.0, 0.5), (4.0, -0.3)]]
    svg = figures.horizon_curve({"nfe": 4, "curve": curve})
    heights = [float(y) for y in re.findall(r'<use [^>]*y="([\d.]+)"[^>]*var\(--noise', svg)][:3]
    assert heights[0] < heights[1] < heights[2]


positive = st.floats(1e-6, 1e6)


@settings(max_examples=7, deadline=None)
@example(x=[1.0], y=[None, None, None], sigmas=[1.0000000000000002e-06])  # matplotlib finds no limits around these
@example(x=[1.0000000000000002e-06], y=[None, None, None], sigmas=[1.0])
@given(
    x=st.lists(positive, min_size=1, max_size=3),
    y=st.lists(st.one_of(st.none(), st.floats(-1e4, 1e4)), min_size=3, max_size=3),
    sigmas=st.lists(positive, min_size=1, max_size=4),
)
def test_figures_draw_whatever_is_finite(x: list[float], y: list[float | None], sigmas: list[float]) -> None:
    curve = [
        {"initialization": "mixture", "horizon": h, "e_init": e, "e_init_error": None, "nats": e, "pilot": e}
        for h, e in zip(x, y, strict=False)
    ]
    budget = {"initialization": [y[0], y[1]], "discretization": [abs(v or 0) for v in y], "total": y[2]}
    plan = {"nfe": 4, "horizon": x[0], "initialization": "mixture", "curve": curve, "flat_region": [x[0], None]}
    rows = [
        {"method": "plan", "nfe": k + 1, "frechet": v, "sample_seconds": h, "n": 10, "sigmas": [*sigmas, 0.0]}
        for k, (h, v) in enumerate(zip(x, y, strict=False))
    ]
    profile = {"sigmas": sigmas, "loss": sigmas, "corrector": y, "defect": sigmas[1:]}
    for svg in all_figures(
        {"rows": rows, "floor": {"frechet": y[0]}, "plans": [plan | {"budget": budget}], "profile": profile}
    ):
        assert svg == "" or ElementTree.fromstring(svg).tag.endswith("svg")
        assert "nan" not in svg.lower()


def test_figures_with_nothing_to_draw_are_empty() -> None:
    assert figures.quality_against_nfe([{"method": "plan", "nfe": 4, "frechet": None}], {}) == ""
    assert figures.quality_against_seconds([{"method": "plan", "nfe": 4, "frechet": 1.0}], {}) == ""
    assert figures.schedules([{"method": "plan", "nfe": 4}]) == ""
    assert figures.error_budget([]) == ""
    assert figures.horizon_curve({"nfe": 4}) == ""
    assert figures.measured_profile({}) == ""


@given(
    count=st.integers(1, 7),
    columns=st.integers(1, 5),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.sampled_from([1, 3]),
    padding=st.integers(0, 3),
)
def test_grid_places_every_image(count: int, columns: int, size: tuple[int, int], channels: int, padding: int) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, channels, *size), np.uint8)
    grid = image_grid(images, columns, padding=padding)
    height, width = size
    rows = -(-count // columns)
    shape = (rows * (height + padding) + padding, columns * (width + padding) + padding)
    assert grid.shape == (shape if channels == 1 else (*shape, 3))
    assert grid.dtype == np.uint8
    for index, image in enumerate(images):
        top, left = padding + index // columns * (height + padding), padding + index % columns * (width + padding)
        tile = grid[top : top + height, left : left + width]
        np.testing.assert_array_equal(tile, image[0] if channels == 1 else image.transpose(1, 2, 0))
    assert int(grid.sum(dtype=np.int64)) == int(images.sum(dtype=np.int64))


def test_grid_scales_values_and_takes_tensors() -> None:
    images = torch.tensor([-1.0, 0.0, 1.0, 3.0]).reshape(4, 1, 1, 1)
    assert image_grid(images, 4, padding=0).tolist() == [[0, 64, 128, 255]]
    assert image_grid(images, 4, (-1, 1), padding=0).tolist() == [[0, 128, 255, 255]]
    assert image_grid(torch.ones(1, 1, 1, 1), 1, padding=0).tolist() == [[0]]


@pytest.mark.parametrize(
    ("images", "columns", "message"),
    [
        (np.zeros((2, 3, 3)), 1, r"shape"),
        (np.zeros((2, 4, 3, 3)), 1, r"shape"),
        (np.zeros((0, 1, 3, 3)), 1, r"shape"),
        (np.zeros((2, 1, 3, 3)), 0, r"columns"),
        (np.full((2, 1, 3, 3), np.nan), 1, r"18 values"),
    ],
)
def test_grid_refuses(images: np.ndarray, columns: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        image_grid(images, columns)


def test_png_holds_the_array(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    save_png(array, tmp_path / "grid.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "grid.png")), array)
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]
    with pytest.raises(InputError, match="uint8"):
        save_png(array / 255.0, tmp_path / "grid.png")


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (905.4, "905"), (999.7, "1,000"), (12345.0, "12,345"), (0.0231, "0.0231")],
)
def test_numbers_as_people_read_them(value: float | None, text: str) -> None:
    assert number(value) == text
