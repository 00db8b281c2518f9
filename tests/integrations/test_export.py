"""Round trips: a framework's own sampler, given what was exported, makes our samples by as many evaluations."""

from __future__ import annotations

import importlib
import importlib.util
import json

import pytest
import torch

from headstart import Sampler, Schedule
from headstart.artefact import read_tensors
from headstart.compare.peers.packages import load as package
from headstart.denoiser import Counted, DiscreteVariancePreserving
from headstart.errors import InputError
from headstart.initialization import Gaussian
from headstart.integrations.azula import to_azula
from headstart.integrations.comfyui import NODE_CLASS_MAPPINGS, PlanNoise
from headstart.integrations.export import EXPORTERS, export
from headstart.integrations.schedulers import to_scheduler
from headstart.noise import Noise
from headstart.schedule import log_linear, rho_grid
from headstart.solver import DPMSolverPP2M, Euler, Heun, UniPC
from headstart.targets import gmm25

LAW = gmm25()
START = Gaussian.fit(LAW.sample(Noise(range(500))))
GRID = rho_grid(6, 9.0, 0.05)
ENDLESS = log_linear(5, 9.0, 0.05, final_zero=False)
SEEDS = range(40, 44)


def close(found, sampler):
    torch.testing.assert_close(found.float(), sampler.sample(LAW, seeds=SEEDS), atol=1e-4, rtol=1e-4)


def called(network, x, sigma):
    return network(x, torch.as_tensor(sigma, dtype=torch.float32).reshape(-1).expand(len(x)))


@pytest.mark.parametrize("grid", [GRID, ENDLESS], ids=repr)
@pytest.mark.parametrize("solver", [Euler(), Heun(), DPMSolverPP2M()], ids=repr)
def test_k_diffusion(solver, grid):
    if importlib.util.find_spec("k_diffusion") is None:
        pytest.skip("k-diffusion is not installed (extra: peers)")
    if solver.name == "heun" and grid is ENDLESS:
        pytest.skip("one level suffices")
    sampler, network = Sampler(START, grid, solver), Counted(LAW)
    found = export(sampler, "k-diffusion", seeds=SEEDS)
    sample = getattr(package("k_diffusion"), found.call)
    model = lambda x, sigma, **_: called(network, x, sigma)  # noqa: E731
    close(sample(model, found.tensors["x"], found.tensors["sigmas"].float(), disable=True), sampler)
    assert network.calls == found.evaluations


@pytest.mark.parametrize(("solver", "grid"), [(Euler(), GRID), (Euler(), ENDLESS), (Heun(), ENDLESS)])
def test_azula(solver, grid):
    pytest.importorskip("azula")
    sampler, network = Sampler(START, grid, solver), Counted(LAW)
    found = export(sampler, "azula", seeds=SEEDS)
    theirs, evaluations = to_azula(sampler, network)
    assert type(theirs).__name__ == found.call
    close(theirs(found.tensors["x"]), sampler)
    assert network.calls == found.evaluations == evaluations


@pytest.mark.parametrize("solver", [Euler(), Heun()], ids=repr)
@pytest.mark.parametrize("grid", [GRID, ENDLESS], ids=repr)
def test_physicsnemo(torchvision, solver, grid):
    pytest.importorskip("physicsnemo", reason="physicsnemo is not installed (extra: physicsnemo)")
    samplers = importlib.import_module("physicsnemo.diffusion.samplers")
    scheduler = importlib.import_module("physicsnemo.diffusion.noise_schedulers").EDMNoiseScheduler()
    sampler, network = Sampler(START, grid, solver), Counted(LAW)
    found = export(sampler, "physicsnemo", seeds=SEEDS)
    denoiser = scheduler.get_denoiser(x0_predictor=lambda x, t: called(network, x, t))
    steps = found.tensors["sigmas"]
    close(samplers.sample(denoiser, found.tensors["x"], scheduler, 0, solver=found.call, time_steps=steps), sampler)
    assert network.calls == found.evaluations


@pytest.mark.parametrize(("solver", "grid"), [(Euler(), GRID), (Euler(), ENDLESS), (Heun(), ENDLESS)])
def test_deepinv(torchvision, solver, grid):
    deepinv = pytest.importorskip("deepinv", reason="deepinv is not installed (extra: clients)")
    sampler, network = Sampler(START, grid, solver), Counted(LAW)
    found = export(sampler, "deepinv", seeds=SEEDS)
    assert any("minus_one_one=False" in note for note in found.notes)

    class Network(torch.nn.Module):
        def forward(self, x, sigma, *_, **__):
            return called(network, x, sigma)

    steps = found.tensors["sigmas"]
    sde = deepinv.sampling.EDMDiffusionSDE(
        sigma_t=lambda t: t,
        variance_exploding=True,
        alpha=0,
        denoiser=Network(),
        solver=getattr(deepinv.sampling, found.call)(timesteps=steps),
        minus_one_one=False,
    )
    close(sde.sample(x_init=found.tensors["x"], timesteps=steps), sampler)
    assert network.calls == found.evaluations


def stepped(scheduler, found, x, network, answer, seen):
    """A pipeline's loop: latents times init_noise_sigma, scaled, answered, stepped."""
    scheduler.set_timesteps(**found.arguments)
    z = found.latents(x) * getattr(scheduler, "init_noise_sigma", 1.0)
    for t, sigma in zip(scheduler.timesteps, found.sigmas, strict=False):
        z_in = scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z
        state = seen(z_in, sigma)
        z = scheduler.step(answer(state, called(network, state, sigma), sigma), t, z).prev_sample
    return z


def preserved(z, sigma):
    return z * (1 + sigma**2) ** 0.5


@pytest.mark.parametrize("grid", [GRID, ENDLESS], ids=repr)
def test_euler_of_diffusers(diffusers, grid):
    sampler, network = Sampler(START, grid, Euler()), Counted(LAW)
    scheduler = diffusers.EulerDiscreteScheduler(timestep_spacing="leading")
    found = to_scheduler(sampler, scheduler)
    x = START.sample(Noise(SEEDS), sampler.horizon)
    close(stepped(scheduler, found, x, network, lambda x, clean, s: (x - clean) / s, preserved), sampler)
    assert network.calls == found.evaluations == sampler.nfe


def raw(x, clean, s, c=0.5):
    skip, out = c**2 / (c**2 + s**2), s * c / (c**2 + s**2) ** 0.5
    return (clean - skip * x) / out


@pytest.mark.parametrize("rho", [7.0, 3.0])
def test_edm_euler_of_diffusers(diffusers, rho):
    sampler, network = Sampler(START, GRID, Euler()), Counted(LAW)
    scheduler = diffusers.EDMEulerScheduler(rho=rho, sigma_min=0.002, sigma_max=80.0)
    found = to_scheduler(sampler, scheduler)
    x = START.sample(Noise(SEEDS), sampler.horizon)
    seen = lambda z, s: z * (0.25 + s**2) ** 0.5  # noqa: E731
    close(stepped(scheduler, found, x, network, raw, seen), sampler)
    assert network.calls == found.evaluations == sampler.nfe


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_of_diffusers(diffusers, shift):
    """Euler's step in t, whose velocity is that of z: Euler's in sigma, at the same levels."""
    sampler, network = Sampler(START, GRID, Euler()), Counted(LAW)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    found = to_scheduler(sampler, scheduler)
    x = START.sample(Noise(SEEDS), sampler.horizon)
    velocity = lambda x, clean, s: (x - clean) / s - clean  # noqa: E731
    end = stepped(scheduler, found, x, network, velocity, lambda z, s: z * (1 + s))
    close(end, sampler)
    assert network.calls == found.evaluations == sampler.nfe


def test_dpm_solver_of_diffusers_visits_the_nearest_timesteps(diffusers):
    scheduler = diffusers.DPMSolverMultistepScheduler(lower_order_final=True, euler_at_final=False)
    table = DiscreteVariancePreserving(scheduler.alphas_cumprod.double().tolist(), rounded=True)
    rounded = table.nearest(torch.tensor([s for s in GRID.sigmas if s > 0], dtype=torch.float64))
    sampler, network = Sampler(START, GRID, DPMSolverPP2M()), Counted(LAW)
    found = to_scheduler(sampler, scheduler)
    torch.testing.assert_close(torch.tensor(found.sigmas[:-1]).double(), rounded, rtol=1e-4, atol=0)
    assert found.sigmas[-1] == 0
    x = START.sample(Noise(SEEDS), found.sigmas[0])
    nearest = Sampler(START, Schedule(found.sigmas), DPMSolverPP2M())
    close(stepped(scheduler, found, x, network, lambda x, clean, s: (x - clean) / s, preserved), nearest)
    assert network.calls == found.evaluations


@pytest.mark.parametrize(
    ("scheduler", "solver", "said"),
    [
        (lambda d: d.DDIMScheduler(), Euler(), "takes no levels"),
        (lambda d: d.EulerDiscreteScheduler(), Heun(), "no sampler that moves as Heun"),
        (lambda d: d.EulerDiscreteScheduler(use_karras_sigmas=True), Euler(), "its own levels"),
        (lambda d: d.EDMEulerScheduler(sigma_schedule="exponential"), Euler(), "its own levels"),
        (lambda d: d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), Euler(), "shifts by the size"),
        (lambda d: d.DPMSolverMultistepScheduler(solver_order=3), DPMSolverPP2M(), "solver_order=2"),
        (lambda d: d.EulerDiscreteScheduler(num_train_timesteps=0), Euler(), "with these settings takes no levels"),
        (lambda d: d.DPMSolverMultistepScheduler(num_train_timesteps=0), DPMSolverPP2M(), "with these settings takes"),
    ],
)
def test_a_scheduler_that_cannot_is_refused(diffusers, scheduler, solver, said):
    with pytest.raises(InputError, match=said):
        to_scheduler(Sampler(START, GRID, solver), scheduler(diffusers))


def test_levels_that_fall_on_one_timestep_are_refused(diffusers):
    fine = Sampler(START, Schedule([5.0, 4.999, 1.0, 0.0]), DPMSolverPP2M())
    with pytest.raises(InputError, match="too fine"):
        to_scheduler(fine, diffusers.DPMSolverMultistepScheduler())


@pytest.mark.parametrize("name", [name for name in EXPORTERS if name != "diffusers"])
def test_every_export_states_its_evaluations_and_its_end(name, tmp_path):
    sampler = Sampler(START, GRID, Euler())
    found = export(sampler, name)
    assert found.evaluations == sampler.nfe
    assert "0" in found.notes[0]
    assert found.about["sigmas"] == list(GRID.sigmas)
    found.save(tmp_path / "levels")
    text = (tmp_path / "levels").read_text()
    if name == "csv":
        assert [float(row) for row in text.splitlines()[1:]] == list(GRID.sigmas)
    elif name == "comfyui":
        assert [float(part) for part in text.split(",")] == pytest.approx(list(GRID.sigmas), rel=1e-7)
    else:
        assert json.loads(text) == found.about


@pytest.mark.parametrize("name", sorted(EXPORTERS.keys() - {"diffusers"}))
def test_options_that_a_form_does_not_take_are_named(name):
    with pytest.raises(InputError, match=f"the form '{name}' takes no scheduler: leave it out"):
        export(Sampler(START, GRID, Euler()), name, scheduler="folder")


def test_starts_go_with_their_levels_into_one_file(tmp_path):
    sampler = Sampler(START, GRID, Euler())
    export(sampler, "k-diffusion", seeds=SEEDS).save(tmp_path / "starts")
    values, tensors = read_tensors(tmp_path / "starts", "headstart-export", 1)
    assert values["evaluations"] == sampler.nfe
    assert torch.equal(tensors["x"], START.sample(Noise(SEEDS), 9.0))


@pytest.mark.parametrize("solver", [UniPC(), Heun(churn=5), DPMSolverPP2M(eta=1)], ids=repr)
def test_a_solver_that_a_framework_has_not_is_refused(solver):
    with pytest.raises(InputError, match="no sampler that moves as"):
        export(Sampler(START, GRID, solver), "k-diffusion")
    assert export(Sampler(START, GRID, solver), "json").evaluations == solver.nfe(GRID)


@pytest.mark.parametrize("name", ["azula", "deepinv"])
def test_a_division_by_the_last_level_is_refused(name):
    with pytest.raises(InputError, match="divides by the last level"):
        export(Sampler(START, GRID, Heun()), name)


@pytest.mark.parametrize("flow", [False, True])
def test_comfyui_begins_at_the_start(flow):
    """With its two ways to add noise to a latent."""
    sampler = Sampler(START, GRID, Euler())
    latent = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    n = PlanNoise(sampler, seed=40).generate_noise({"samples": latent})
    s = sampler.horizon
    t = s / (1 + s)
    x = (t * n + (1 - t) * latent) * (1 + s) if flow else latent + s * n
    torch.testing.assert_close(x, START.sample(Noise(range(40, 43)), s))
    node = NODE_CLASS_MAPPINGS["HeadstartStart"]
    assert callable(getattr(node(), node.FUNCTION))
    assert set(node.INPUT_TYPES()["required"]) == {"plan", "seed"}
