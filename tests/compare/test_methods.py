"""Every method samples the network that it is given, from the noise that all share, and spends what it says."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import headstart.compare
from headstart.compare import METHODS, QUICK, Setting, Sizes, saved
from headstart.compare.methods import draw, scored
from headstart.compare.peers import azula, diffusers, k_diffusion, load, packages
from headstart.compute import Compute
from headstart.denoiser import expand
from headstart.distill import Recipe
from headstart.errors import ArtefactError, DenoiserError, MissingExtraError
from headstart.metrics import Reference
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.schedule import Schedule, log_linear, rho_grid
from headstart.solver import DPMSolverPP2M, Euler, Heun, Solver, UniPC
from headstart.targets import GaussianMixture

LAW = GaussianMixture([0.5, 0.5], [[-1.0, 0.5], [1.0, 0.5]], 0.04)
DATA = LAW.sample(Noise(range(120))).float()
SEEDS = range(6)
FROM_NOISE = ("EDM", "diffusers", "k-diffusion", "azula", "learned grids")
NOISY = [method for method in METHODS.values() if method.family in FROM_NOISE]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(LAW, DATA, 0, tmp_path, sizes=QUICK)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(LAW, DATA, 0, tmp_path_factory.mktemp("plans"), sizes=QUICK)


def needed(package: str | None) -> None:
    if package is not None:
        try:
            load(package)
        except MissingExtraError as error:
            pytest.skip(str(error))


def two_clusters(x: Tensor, sigma: Any) -> Tensor:
    """The exact denoiser of N(-1, 0.04) and N(1, 0.04) in equal parts, by coordinate."""
    variance = 0.04 + expand(torch.as_tensor(sigma), x) ** 2
    centre = torch.tanh(x / variance)
    return centre + 0.04 / variance * (x - centre)


STEPS = 5
KARRAS, LOG_SNR = rho_grid(STEPS, 80.0, 0.002), log_linear(STEPS, 80.0, 0.002)
TO_SIGMA_MIN = rho_grid(STEPS, 80.0, 0.002, final_zero=False)
SAME: list[tuple[str, Any, tuple[Any, ...], Solver, Schedule]] = [
    ("diffusers", diffusers.dpm_solver, (2, "karras"), DPMSolverPP2M(), KARRAS),
    ("diffusers", diffusers.dpm_solver, (2, "exponential"), DPMSolverPP2M(), LOG_SNR),
    ("diffusers", diffusers.unipc, (2, "karras"), UniPC(points=2), KARRAS),
    ("diffusers", diffusers.unipc, (2, "exponential"), UniPC(points=2), LOG_SNR),
    ("k_diffusion", k_diffusion.sample, ("heun",), Heun(), KARRAS),
    ("k_diffusion", k_diffusion.sample, ("dpmpp_2m",), DPMSolverPP2M(), KARRAS),
    ("azula", azula.sample, ("DDIMSampler",), Euler(), TO_SIGMA_MIN),
    ("azula", azula.sample, ("HeunSampler",), Heun(), TO_SIGMA_MIN),
]


@pytest.mark.parametrize(
    ("package", "run", "arguments", "solver", "schedule"), SAME, ids=[f"{s[0]} {s[2]}" for s in SAME]
)
def test_a_peer_ends_where_our_own_solver_does(
    package: str, run: Any, arguments: tuple[Any, ...], solver: Solver, schedule: Schedule
) -> None:
    needed(package)
    x = 80.0 * torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    found = run(*arguments, 80.0, 0.002, STEPS, two_clusters, x)
    expected = solver.solve(two_clusters, x, schedule)
    # Theirs compute their steps in float32, from states of 80: 1e-4 is what that leaves of the largest samples.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - x).abs().max() > 10


@pytest.mark.parametrize("method", NOISY, ids=lambda method: method.name)
@pytest.mark.parametrize("nfe", [4, 5])
def test_a_method_from_noise_begins_with_the_shared_noise_and_spends_what_it_can(
    method: Any, nfe: int, shared: Setting
) -> None:
    needed(method.package)
    first: list[Tensor] = []
    levels: list[float] = []

    def watched(x: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        first.append(x.clone())
        levels.append(float(sigma[0]))
        return LAW(x, sigma)

    spent = method.affordable(method.only or nfe)
    sampler = method.prepare(shared, spent)
    drawn = draw(sampler, watched, SEEDS, Compute(batch_size=len(SEEDS)))
    torch.testing.assert_close(first[0], 80 * Noise(SEEDS).normal((2,)), rtol=1e-5, atol=1e-4)
    assert levels[0] == pytest.approx(80, rel=1e-6)
    assert min(levels) >= 0.002 * (1 - 1e-5)
    assert drawn.evaluations == len(levels) == spent
    assert drawn.samples.shape == (len(SEEDS), 2)
    assert str(80) in sampler.how or "isotropic" in sampler.how


@pytest.mark.parametrize("name", ["dpm++2m-karras", "unipc-logsnr", "k-lms", "azula-zab", "heun"])
def test_a_sample_does_not_depend_on_its_batch(name: str, setting: Setting) -> None:
    needed(METHODS[name].package)
    sampler = METHODS[name].prepare(setting, 3)
    whole, parts = (draw(sampler, LAW, SEEDS, Compute(batch_size=size)).samples for size in (6, 4))
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)


def test_what_is_counted_is_what_the_network_was_asked(setting: Setting) -> None:
    """Not what the method says: a method that evaluates twice a step is found out."""
    sampler = METHODS["heun"].prepare(setting, 5)
    calls = 0

    def twice(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += len(x)
        return LAW(x, sigma)

    assert draw(sampler, twice, SEEDS, Compute(batch_size=4)).evaluations == calls / len(SEEDS) == 5


def test_samples_that_are_not_finite_are_an_error(setting: Setting) -> None:
    sampler = METHODS["heun"].prepare(setting, 3)
    with pytest.raises(DenoiserError, match="NaN or Inf"):
        draw(sampler, lambda x, sigma: x * float("nan"), SEEDS, Compute(batch_size=6))


def test_a_plan_is_fitted_once_for_a_number_of_evaluations_and_a_seed(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = METHODS["gaussian"].prepare(setting, 3)
    assert first.prepare_seconds > 0
    folder = next(setting.folder.glob("gaussian-3-*"))
    assert Plan.load(folder).nfe == 3
    for name in ("headstart.compare.ours.fit", "headstart.profile.Profile.measure"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("made again"))
    again = Setting(LAW, DATA, 0, setting.folder, sizes=QUICK)
    second = METHODS["gaussian"].prepare(again, 3)
    a, b = (draw(sampler, LAW, SEEDS, Compute(batch_size=6)).samples for sampler in (first, second))
    assert torch.equal(a, b)
    assert (second.how, second.prepare_seconds) == (first.how, first.prepare_seconds)

    plan = saved(folder)
    assert (plan.only, plan.kind) == (3, "saved")
    assert torch.equal(draw(plan.prepare(again, 3), LAW, SEEDS, Compute(batch_size=6)).samples, a)


@pytest.mark.parametrize("name", ["gits", "ld3", "plan", "align-your-steps"])
def test_no_method_asks_the_network_for_more_at_once_than_it_may(name: str, tmp_path: Path) -> None:
    most = 0

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal most
        most = max(most, len(x))
        return LAW(x, sigma)

    METHODS[name].prepare(Setting(watched, DATA, 0, tmp_path, sizes=QUICK, compute=Compute(batch_size=3)), 3)
    assert most == 3


def test_what_others_learn_from_is_no_less_than_what_we_do() -> None:
    """LD3 as much as our own distilled plans, and GITS as much as its release."""
    sizes, own = Sizes(), Recipe()
    assert sizes.batch >= own.batch_size
    assert sizes.pairs >= own.pairs
    assert sizes.trajectories >= 256


def test_scores_are_numbers_or_an_error() -> None:
    reference = Reference.of(DATA, lambda x: x)
    assert scored(DATA[:20], reference).swd >= 0
    with pytest.raises(DenoiserError, match=r"values up to 3e\+38 are too large"):
        scored(torch.full((4, 2), 3e38), Reference.of(DATA))
    with pytest.raises(DenoiserError, match="1 of 20 samples are not finite"):
        scored(torch.where(torch.arange(20)[:, None] == 3, torch.nan, DATA[:20]), reference)


def test_what_methods_rest_on_is_made_once_and_kept(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    profile, seconds = setting.measured
    start, fitting = setting.start("gaussian")
    first = METHODS["gits"].prepare(setting, 3)
    for name in ("headstart.compare.setting.fit_starts", "headstart.compare.setting.GITS.of"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("made again"))
    monkeypatch.setattr("headstart.profile.Profile.measure", lambda *_, **__: pytest.fail("made again"))
    again = Setting(LAW, DATA, 0, setting.folder, sizes=QUICK)
    assert again.measured[1] == seconds > 0
    assert (again.profile.losses == profile.losses).all()
    kept, took = again.start("gaussian")
    assert took == fitting > 0
    assert torch.equal(kept.sample(Noise(SEEDS), 1.0), start.sample(Noise(SEEDS), 1.0))
    second = METHODS["gits"].prepare(again, 3)
    assert (second.how, second.prepare_seconds, second.cited) == (first.how, first.prepare_seconds, first.cited)
    assert torch.equal(*(draw(method, LAW, SEEDS, Compute(batch_size=6)).samples for method in (first, second)))


@pytest.mark.parametrize("text", ["{", "{}", '{"name": "x", "sigmas": [1, 0], "seconds": NaN}'])
def test_a_damaged_grid_is_named(text: str, setting: Setting) -> None:
    (setting.folder / "gits-3-seed0.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"gits-3-seed0\.json is damaged"):
        METHODS["gits"].prepare(setting, 3)


def test_the_sampler_of_a_method_has_an_old_name() -> None:
    with pytest.warns(DeprecationWarning, match="is now Prepared"):
        assert headstart.compare.Sampler is headstart.compare.Prepared


def test_the_oracle_writes_no_training_data_down(setting: Setting) -> None:
    first = METHODS["oracle"].prepare(setting, 3)
    assert Plan.load(next(setting.folder.glob("oracle-3-*"))).initialization.name == "isotropic"
    again = METHODS["oracle"].prepare(Setting(LAW, DATA, 0, setting.folder, sizes=QUICK), 3)
    a, b = (draw(sampler, LAW, SEEDS, Compute(batch_size=6)).samples for sampler in (first, again))
    assert torch.equal(a, b)
    assert first.how.startswith("empirical start")


def test_noise_with_our_schedule_keeps_its_horizon(setting: Setting) -> None:
    assert " levels 80 > " in METHODS["isotropic"].prepare(setting, 3).how


@pytest.mark.parametrize("package", ["diffusers", "k_diffusion", "azula"])
def test_a_missing_package_says_which_extra_brings_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    packages.load.cache_clear()
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    try:
        with pytest.raises(MissingExtraError, match=r"pip install .*headstart\[peers\]"):
            load(package)
    finally:
        packages.load.cache_clear()


def test_importing_the_samplers_of_k_diffusion_leaves_no_stand_ins() -> None:
    needed("k_diffusion")
    packages.load.cache_clear()
    before = dict(sys.modules)
    load("k_diffusion")
    names = [name for name in sys.modules if name.split(".")[0] in ("k_diffusion", "torchvision")]
    assert all(sys.modules[name] is before.get(name) for name in names)
