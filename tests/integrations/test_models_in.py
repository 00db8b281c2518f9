"""Models of other frameworks give the exact denoiser of N(0.3, 0.25), whose networks are known in closed form.

What cannot be installed beside this PyTorch, or is large, is represented by stand-ins of the same interface.
"""

from __future__ import annotations

import importlib
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from headstart import adapt
from headstart.denoiser import denoise
from headstart.errors import DenoiserError, InputError
from headstart.integrations.arrays import numpy_network
from headstart.integrations.azula import from_azula
from headstart.integrations.flows import from_flow_matching, from_torchcfm
from headstart.integrations.k_diffusion import from_k_diffusion
from headstart.integrations.lucidrains import from_lucidrains
from headstart.integrations.process import Path
from headstart.integrations.sbi import from_sbi
from headstart.integrations.treeffuser import from_treeffuser

MEAN, VARIANCE = 0.3, 0.25
X = 3 * torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
LEVELS = [0.05, 1.0, 8.0]


def exact(x, s):
    s = torch.as_tensor(s, dtype=x.dtype).reshape(-1, 1)
    return (s**2 * MEAN + VARIANCE * x) / (VARIANCE + s**2)


def agrees(denoiser, levels=LEVELS, **conditions):
    for s in levels:
        torch.testing.assert_close(denoise(denoiser, X, s, **conditions), exact(X, s), atol=2e-4, rtol=2e-4)


def score(z, alpha, sigma):
    return (alpha * MEAN - z) / (alpha**2 * VARIANCE + sigma**2)


def cosine(t):
    return torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)


def column(pair):
    return tuple(part.reshape(-1, 1) for part in pair)


@pytest.mark.parametrize("reverse", [False, True])
def test_any_path(reverse):
    """Also one whose time runs to the data."""
    at = (lambda t: cosine(1 - t)) if reverse else cosine
    first, last = (1.0, 0.0) if reverse else (0.0, 1.0)
    path = Path(lambda t: at(t)[0], lambda t: at(t)[1], first, last)
    agrees(adapt(lambda z, t: score(z, *column(at(t.double()))).float(), "score", path))
    s = torch.tensor([0.1, 1.0, 5.0], dtype=torch.float64)
    t = path.time(s)
    torch.testing.assert_close(at(t)[1] / at(t)[0], s)
    torch.testing.assert_close(path.scale(s), (1 + s**2).rsqrt())


def test_a_path_on_which_noise_falls_is_refused():
    with pytest.raises(InputError, match="must rise from time 0"):
        Path(torch.ones_like, lambda t: t * (1.2 - t))
    with pytest.raises(InputError, match="must rise"):
        Path(lambda t: cosine(1 - t)[0], lambda t: cosine(1 - t)[1])


def the_package():
    for part in ("denoise", "noise", "linalg.covariance"):
        pytest.importorskip(f"azula.{part}", reason="azula is not installed (extra: peers)")
    return pytest.importorskip("azula")


@pytest.mark.parametrize("name", ["VPSchedule", "VESchedule", "CosineSchedule", "RectifiedSchedule"])
def test_azula(name):
    azula = the_package()
    schedule = getattr(azula.noise, name)()

    class Exact(azula.denoise.Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t, t):
            alpha, sigma = (part.reshape(-1, 1) for part in schedule(t))
            return azula.denoise.DiracPosterior(mean=exact(x_t / alpha, sigma / alpha))

    agrees(from_azula(Exact()), [s for s in LEVELS if name != "VESchedule" or s > 0.001])


def test_azula_by_its_own_gaussian():
    azula = the_package()
    covariance = azula.linalg.covariance.IsotropicCovariance(torch.tensor(VARIANCE))
    agrees(from_azula(azula.denoise.GaussianDenoiser(torch.full((2,), MEAN), covariance, azula.noise.VPSchedule())))


def table():
    return torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)


class Noise(nn.Module):
    """The exact epsilon of what it sees at a whole or fractional time of the table."""

    def forward(self, z, t, self_cond=None):
        levels = (0.5 * ((1 - table()) / table()).log()).numpy()
        s = torch.from_numpy(np.exp(np.interp(t.double().numpy(), np.arange(1000), levels))).float().reshape(-1, 1)
        x = z * (1 + s**2).sqrt()
        return (x - exact(x, s)) / s


@pytest.mark.parametrize("objective", ["pred_noise", "pred_x0", "pred_v"])
def test_lucidrains_by_a_stand_in(objective):
    noise = Noise()

    def model(z, t):
        epsilon = noise(z, t)
        levels = (0.5 * ((1 - table()) / table()).log()).numpy()
        s = torch.from_numpy(np.exp(np.interp(t.double().numpy(), np.arange(1000), levels))).float().reshape(-1, 1)
        clean = z * (1 + s**2).sqrt() - s * epsilon
        return {"pred_noise": epsilon, "pred_x0": clean, "pred_v": (epsilon - s * clean) / (1 + s**2).sqrt()}[objective]

    agrees(from_lucidrains(SimpleNamespace(model=model, objective=objective, alphas_cumprod=table())))
    with pytest.raises(InputError, match="'pred_magic' is not known"):
        from_lucidrains(SimpleNamespace(objective="pred_magic"))


def test_lucidrains_elucidated_by_a_stand_in():
    agrees(from_lucidrains(SimpleNamespace(preconditioned_network_forward=exact)))


def test_k_diffusion_says_what_it_knows():
    levels = ((1 - table()) / table()).sqrt()

    class Wrapped:
        sigmas = levels

        def __call__(self, x, sigma, scale):
            assert sigma.shape == (len(x),)
            return scale * exact(x, sigma)

    denoiser = from_k_diffusion(Wrapped(), scale=1.0)
    agrees(denoiser)
    assert denoiser.sigma_max == pytest.approx(float(levels[-1]))
    assert from_k_diffusion(lambda x, sigma: x).sigma_max is None


def velocity(z, t):
    """Of the straight path to the data."""
    t = t.reshape(-1, 1)
    s = (1 - t) / t
    x = z / t
    clean = exact(x, s)
    return clean - (x - clean) / s


def test_torchcfm_and_flow_matching():
    agrees(from_torchcfm(lambda t, x: velocity(x, t)))
    agrees(from_flow_matching(velocity))


def test_the_wrapper_of_torchcfm_by_a_stand_in():
    """It repeats one time for all samples, and its network takes points and times as columns of one tensor."""

    class torch_wrapper(nn.Module):  # noqa: N801
        def __init__(self):
            super().__init__()
            self.model = lambda columns: velocity(columns[:, :-1], columns[:, -1])

        def forward(self, t, x):
            return self.model(torch.cat([x, t.repeat(len(x))[:, None]], dim=1))

    agrees(from_torchcfm(torch_wrapper()))
    denoiser, levels = from_torchcfm(torch_wrapper()), torch.tensor([0.1, 0.5, 1.0, 2.0, 8.0])
    torch.testing.assert_close(denoiser(X, levels), exact(X, levels), atol=2e-4, rtol=2e-4)


def test_flow_matching_on_another_path_by_a_stand_in():
    """Its schedulers return the coefficients and their derivatives; data are at time 1."""

    def scheduler(t):
        angle = t * math.pi / 2
        up, down = math.pi / 2 * torch.cos(angle), -math.pi / 2 * torch.sin(angle)
        return SimpleNamespace(alpha_t=torch.sin(angle), sigma_t=torch.cos(angle), d_alpha_t=up, d_sigma_t=down)

    def network(z, t):
        at = scheduler(t.reshape(-1, 1))
        clean = exact(z / at.alpha_t, at.sigma_t / at.alpha_t)
        return at.d_alpha_t * clean + at.d_sigma_t * (z - at.alpha_t * clean) / at.sigma_t

    agrees(from_flow_matching(network, scheduler))


class Estimator:
    """The interface of sbi's variance-preserving score estimator."""

    t_min, t_max = 1e-3, 1.0

    def mean_t_fn(self, t):
        return torch.exp(-0.25 * t**2 * 9.99 - 0.5 * t * 0.01).unsqueeze(-1)

    def std_fn(self, t):
        return (1 - torch.exp(-0.5 * t**2 * 9.99 - t * 0.01)).sqrt().unsqueeze(-1)

    def __call__(self, z, condition, t):
        assert condition.shape == (len(z), 3)
        return score(z, self.mean_t_fn(t), self.std_fn(t)) + 0 * condition[:, :1]


def test_sbi_by_a_stand_in():
    agrees(from_sbi(Estimator(), torch.zeros(1, 3)))
    with pytest.raises(InputError, match="no score estimator"):
        from_sbi(SimpleNamespace(), torch.zeros(1, 3))
    for wrong in (torch.zeros(3), torch.zeros(1), torch.zeros(()), torch.zeros(2, 3)):
        with pytest.raises(InputError, match=r"expected one, of shape \(1, ...\)"):
            from_sbi(Estimator(), wrong)


def test_sbi_amortised_takes_an_observation_for_each_sample():
    class Shifted(Estimator):
        """The score of the law that the observation shifts."""

        def __call__(self, z, condition, t):
            alpha = self.mean_t_fn(t)
            return score(z - alpha * condition[:, :1], alpha, self.std_fn(t))

    x, observation = torch.randn(5, 2), torch.randn(5, 1)
    amortised, sigma = from_sbi(Shifted()), torch.tensor(0.7)
    alone = [from_sbi(Shifted(), observation[i : i + 1])(x[i : i + 1], sigma) for i in range(5)]
    torch.testing.assert_close(amortised(x, sigma, observation=observation), torch.cat(alone))
    torch.testing.assert_close(
        amortised(x, sigma, observation=observation[:1])[1:2], from_sbi(Shifted(), observation[:1])(x[1:2], sigma)
    )
    with pytest.raises(InputError, match="needs the condition observation"):
        amortised(x, sigma)


def test_the_old_place_of_two_loaders_says_the_new_one():
    old = importlib.import_module("headstart.integrations.posteriors")
    with pytest.warns(DeprecationWarning, match=r"posteriors\.from_sbi is now headstart\.integrations\.sbi\.from_sbi"):
        assert old.from_sbi is from_sbi
    with pytest.warns(DeprecationWarning, match="headstart.integrations.treeffuser"):
        assert old.from_treeffuser is from_treeffuser


def test_treeffuser_by_a_stand_in():
    def coefficients(y0, t):
        return y0 * np.exp(-2 * t), (1 - np.exp(-4 * t)) ** 0.5 * np.ones_like(y0)

    def of(y, X, t):
        assert X.shape == (len(y), 4)
        alpha, sigma = coefficients(np.ones_like(t), t)
        return (alpha * MEAN - y) / (alpha**2 * VARIANCE + sigma**2)

    model = SimpleNamespace(
        score_model=SimpleNamespace(score=of),
        sde=SimpleNamespace(get_mean_std_pt_given_y0=coefficients, T=1.0),
        _x_scaler=SimpleNamespace(transform=lambda X: 2 * X),
    )
    agrees(from_treeffuser(model), [0.1, 1.0, 5.0], X=torch.zeros(5, 4))
    with pytest.raises(InputError, match="fit it first"):
        from_treeffuser(SimpleNamespace())


@pytest.mark.parametrize("batch", [None, 1, 2, 4, 5, 16])
def test_functions_of_arrays(batch):
    """Of a fixed batch, they see no other one."""
    seen = []

    def function(z, time, shift, name):
        seen.append(z.shape)
        assert (z.dtype, time.shape, shift.shape, name) == (np.float32, z.shape[:1], z.shape[:1], "n")
        s = time[:, None]
        return ((s**2 * MEAN + VARIANCE * z) / (VARIANCE + s**2)).astype(np.float64) + shift[:, None]

    denoiser = adapt(numpy_network(function, batch), "x0")
    shift = torch.arange(5.0)
    found = denoiser(X, 2.0, shift=shift, name="n")
    torch.testing.assert_close(found, exact(X, 2.0) + shift[:, None])
    assert set(seen) == {(batch or 5, 2)}


def test_functions_of_images_with_the_channels_last():
    x = torch.randn(2, 3, 4, 5)

    def function(z, time):
        assert z.shape == (2, 4, 5, 3)
        z = z * np.array([1.0, 2.0, 3.0], dtype=np.float32)
        z.setflags(write=False)
        return z

    found = numpy_network(function, layout="last")(x, 1.0)
    torch.testing.assert_close(found, x * torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1))
    half = numpy_network(function, layout="last")(x.bfloat16(), 1.0)
    assert half.dtype == torch.bfloat16


def test_functions_that_return_no_numbers_are_named():
    with pytest.raises(DenoiserError, match="int64"):
        numpy_network(lambda z, time: np.ones(z.shape, dtype=np.int64))(X, 1.0)
    for wrong in (lambda z, time: z[:1], lambda z, time: np.concatenate([z, z])):
        with pytest.raises(DenoiserError, match="for 2 samples: expected a row for each"):
            numpy_network(wrong, batch=2)(X, 1.0)
    with pytest.raises(InputError, match="1 sample or more"):
        numpy_network(lambda z, time: z, batch=0)
    with pytest.raises(InputError, match="first or last"):
        numpy_network(lambda z, time: z, layout="middle")
