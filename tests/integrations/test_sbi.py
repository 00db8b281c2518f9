"""Plans in posteriors of sbi: its own loops make our samples, by as many evaluations."""

from __future__ import annotations

import pytest
import torch

from headstart import Sampler, Schedule
from headstart.errors import InputError
from headstart.initialization import ConditionalMixture, Gaussian
from headstart.integrations.pipeline import seeds_of
from headstart.integrations.sbi import from_sbi, to_sbi
from headstart.solver import DPMSolverPP2M, Euler, Heun

OBSERVED = torch.tensor([[0.4, -0.2]])
SOLVERS = [Euler(), Heun(), DPMSolverPP2M(), Heun(churn=2)]


@pytest.fixture(scope="module")
def theta():
    return 4 * torch.rand(300, 2, generator=torch.Generator().manual_seed(0)) - 2


@pytest.fixture(scope="module", params=["vp", "ve", "subvp"])
def posterior(request, theta, tmp_path_factory):
    sbi = pytest.importorskip("sbi.inference", reason="sbi is not installed (extra: clients)")
    utils = pytest.importorskip("sbi.utils")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(tmp_path_factory.mktemp("sbi"))  # where it leaves logs
        torch.manual_seed(0)
        prior = utils.BoxUniform(-2 * torch.ones(2), 2 * torch.ones(2))
        trainer = sbi.NPSE(prior, sde_type=request.param, show_progress_bars=False)
        trainer.append_simulations(theta, theta + 0.3 * torch.randn_like(theta))
        return trainer.build_posterior(trainer.train(max_num_epochs=3))


def plan(theta, solver, last=0.0):
    return Sampler(Gaussian.fit(theta), Schedule((2.0, 0.8, 0.3, 0.1, last)), solver)


def counted(posterior, monkeypatch):
    calls, network = [], posterior.vector_field_estimator.net
    monkeypatch.setattr(
        network, "forward", lambda *args, of=network.forward, **named: calls.append(1) or of(*args, **named)
    )
    return calls


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_diffuser_makes_our_samples(posterior, theta, solver, monkeypatch):
    sampler = plan(theta, solver)
    torch.manual_seed(1)
    seeds = seeds_of(torch.default_generator, 20)
    ours = sampler.sample(from_sbi(posterior.vector_field_estimator, OBSERVED), seeds=seeds)
    diffuser, calls = to_sbi(sampler, posterior, OBSERVED), counted(posterior, monkeypatch)
    torch.manual_seed(1)
    theirs = diffuser.run(20, show_progress_bars=False)
    assert theirs.shape == (20, 1, 2)
    torch.testing.assert_close(theirs[:, 0], ours, atol=1e-4, rtol=1e-4)
    assert len(calls) == sampler.nfe
    base = pytest.importorskip("sbi.samplers.score.diffuser").Diffuser
    assert isinstance(diffuser, base)


@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_posterior_samples_by_a_plan_and_rejects_what_the_prior_does(posterior, theta, solver):
    sampler = plan(theta, solver)
    diffuser = to_sbi(sampler, posterior, torch.zeros(1, 2))  # another observation than the one that is asked for
    given = {"x": OBSERVED, "predictor": diffuser.predictor, "ts": diffuser.ts, "show_progress_bars": False}
    torch.manual_seed(1)
    torch.randn(20, 1, 2)  # sbi's own start
    seeds = seeds_of(torch.default_generator, 20)
    ours = sampler.sample(from_sbi(posterior.vector_field_estimator, OBSERVED), seeds=seeds)
    torch.manual_seed(1)
    theirs = posterior.sample((20,), reject_outside_prior=False, **given)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)
    assert posterior.sample((200,), **given).abs().max() <= 2


def test_a_start_of_conditions_gets_each_observation(posterior, theta):
    start = ConditionalMixture.fit(theta, 2, conditions={"observation": theta + 0.01})
    sampler = Sampler(start, Schedule((0.5, 0.0)), Euler())
    many = torch.tensor([[1.5, 1.5], [-1.5, 0.0], [0.0, -1.5]])
    diffuser = to_sbi(sampler, posterior, many)
    states = diffuser.run(400, save_intermediate=True, show_progress_bars=False)
    assert states.shape == (400, 2 * 3, 2)
    scale = diffuser.predictor.scales[0]
    torch.testing.assert_close(states[:, :3].mean(0) / scale, many, atol=0.15, rtol=0)
    given = {"predictor": diffuser.predictor, "ts": diffuser.ts, "show_progress_bars": False}
    assert posterior.sample_batched((5,), x=many[:2], **given).shape == (5, 2, 2)


def test_independent_observations_stay_the_matter_of_the_posterior(posterior, theta):
    diffuser = to_sbi(plan(theta, Euler()), posterior, OBSERVED)
    given = {"predictor": diffuser.predictor, "ts": diffuser.ts, "show_progress_bars": False}
    several = OBSERVED + torch.tensor([[0.1, 0.0], [0.0, 0.1], [-0.1, -0.1]])
    assert posterior.sample((5,), x=several, iid_method="fnpe", **given).isfinite().all()


def test_what_a_plan_does_not_know_is_refused(posterior, theta):
    sampler = plan(theta, Euler())
    with pytest.raises(InputError, match="no score estimator of sbi"):
        to_sbi(sampler, object())
    with pytest.raises(InputError, match=r"is of shape \(B, 2\), given or set by set_default_x: got none"):
        to_sbi(sampler, posterior)
    with pytest.raises(InputError, match=r"got shape \(1, 3\)"):
        to_sbi(sampler, posterior, torch.zeros(1, 3))
    with pytest.raises(InputError, match="for samples of shape"):
        to_sbi(plan(torch.zeros(10, 3).normal_(), Euler()), posterior, OBSERVED)
    with pytest.raises(InputError, match="got a level of 10000"):
        to_sbi(Sampler(sampler.initialization, Schedule((1e4, 0.1, 0.0)), Euler()), posterior, OBSERVED)
    diffuser = to_sbi(sampler, posterior, OBSERVED)
    given = {"x": OBSERVED, "predictor": diffuser.predictor, "show_progress_bars": False}
    for times in (None, diffuser.ts[1:], diffuser.ts.flip(0)):
        with pytest.raises(InputError, match=r"give ts=diffuser\.ts"):
            posterior.sample((5,), ts=times, **given)
    with pytest.raises(InputError, match="use no corrector"):
        posterior.sample((5,), ts=diffuser.ts, corrector="langevin", **given)


def test_a_level_that_is_not_0_ends_in_the_units_of_sbi(posterior, theta):
    sampler = plan(theta, Euler(), last=0.05)
    torch.manual_seed(1)
    seeds = seeds_of(torch.default_generator, 20)
    ours = sampler.sample(from_sbi(posterior.vector_field_estimator, OBSERVED), seeds=seeds)
    diffuser = to_sbi(sampler, posterior, OBSERVED)
    torch.manual_seed(1)
    theirs = diffuser.run(20, show_progress_bars=False)[:, 0]
    alpha = posterior.vector_field_estimator.mean_t_fn(diffuser.ts[-1:]).item()
    torch.testing.assert_close(theirs, alpha * ours, atol=1e-4, rtol=1e-4)
