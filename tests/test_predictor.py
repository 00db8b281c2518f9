"""The predictor cost against tables and closed forms, its orders, its bias with one probe, and the grids it makes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.budget import euler_log_ratios
from headstart.compute import Compute
from headstart.denoiser import expand
from headstart.errors import DataError, DenoiserError, InputError
from headstart.initialization import Isotropic
from headstart.noise import Noise
from headstart.predictor import (
    ORDERS,
    Inversion,
    PredictorCosts,
    _Solver,
    _Step,
    conjugate_gradients,
    measure_predictor,
    predictor_costs,
    predictor_lengths,
    probe_residuals,
    u_statistic,
)
from headstart.profile import Profile
from headstart.schedule import Length, Schedule, equidistribute, tangent
from headstart.targets import Gaussian, GaussianMixture, bimodal, cantor, gmm25

# a, b, predictor cost of Euler's step with velocity b.
Row = tuple[float, float, float]
GAUSSIAN: list[Row] = [
    (10.0, 5.0, 0.001074255597),
    (2.0, 1.5, 0.0003446850338),
    (1.0, 0.6, 0.002760516547),
    (0.3, 0.1, 0.0005687590234),
]
BIMODAL: list[Row] = [
    (2.0, 1.5, 3.4268209e-4),
    (1.0, 0.8, 1.5319715e-3),
    (0.5, 0.4, 8.1869943e-3),
    (0.2, 0.1, 2.9076131e-3),
]
GMM25: list[Row] = [
    (5.0, 3.0, 2.5906863e-3),
    (2.0, 1.2, 5.9851185e-3),
    (1.0, 0.7, 8.4167034e-4),
    (0.5, 0.35, 0.017139012),
    (0.2, 0.1, 6.8242489e-3),
]
CANTOR: list[Row] = [
    (1.0, 0.5, 5.9435498e-3),
    (0.2, 0.1, 0.088537577),
    (0.05, 0.03, 0.057215672),
    (0.02, 0.01, 0.024005475),
]
#: One coordinate of the 25 modes, over which every quantity adds.
LINE = GaussianMixture(torch.ones(5), 1.25 * torch.arange(-2.0, 3.0)[:, None], 0.25**2)
LAMBDA = torch.tensor([0.25, 1.0, 4.0], dtype=torch.float64)


def quadrature(target: GaussianMixture, a: float, b: float, **options: object) -> float:
    """The cost of a law on the line, by the trapezoid rule."""
    reach = 10 * float((target.variances.max() + a**2).sqrt())
    ends = float(target.means.min()) - reach, float(target.means.max()) + reach
    x = torch.linspace(*ends, 4001, dtype=torch.float64)[:, None]
    mass = target.log_prob(x, a).exp() * (x[1, 0] - x[0, 0])
    kept = mass > 1e-25
    return float(mass[kept] @ predictor_costs(target, x[kept], a, b, **options))


def ends(variances: Tensor, a: float) -> Tensor:
    """Points over which the mean of a quadratic form is that over a centred Gaussian at level a, shape (2 d, d)."""
    points = math.sqrt(len(variances)) * (variances + a**2).sqrt().diag()
    return torch.cat([points, -points])


def closed_form(a: np.ndarray, b: np.ndarray, variance: float, velocity: np.ndarray) -> np.ndarray:
    """Of N(0, variance) in one dimension."""
    c2 = variance
    return velocity**2 * (a - b) ** 4 * c2**2 / ((c2 + a**2) * (c2 + a * b) ** 2 * (c2 + b**2) ** 2)


@pytest.mark.parametrize("row", GAUSSIAN)
@pytest.mark.parametrize("options", [{}, {"probes": 2}, {"probes": 2, "inversion": Inversion(symmetric=True)}], ids=str)
def test_the_table_of_a_gaussian(row: Row, options: dict[str, object]) -> None:
    a, b, expected = row
    found = predictor_costs(Gaussian([0.0] * 3, LAMBDA), ends(LAMBDA, a), a, b, **options)
    assert float(found.mean()) == pytest.approx(expected, rel=1e-8)
    parts = closed_form(np.array(a), np.array(b), LAMBDA.numpy(), np.array(b))
    assert parts.sum() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("target", "row", "coordinates"),
    [(bimodal(), row, 1) for row in BIMODAL]
    + [(LINE, row, 2) for row in GMM25]
    + [(cantor(level=3, tau=0.005), row, 1) for row in CANTOR],
)
def test_the_tables_of_mixtures_by_quadrature(target: GaussianMixture, row: Row, coordinates: int) -> None:
    a, b, expected = row
    assert coordinates * quadrature(target, a, b) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("row", GMM25)
def test_gmm25_by_monte_carlo(row: Row) -> None:
    a, b, expected = row
    noise = Noise(range(1000), dtype=torch.float64)
    x = gmm25().sample(noise) + a * noise.normal((2,))
    found = predictor_costs(gmm25(), x, a, b)
    error = float(found.std()) / math.sqrt(len(found))
    assert abs(float(found.mean()) - expected) < 4 * error < 0.8 * expected


def test_one_cost_by_finite_differences() -> None:
    """The residual without any automatic differentiation: in one dimension log det J is the logarithm of a slope."""
    target, a, b, h = bimodal(), 0.5, 0.4, 1e-3
    x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]

    def step(z: Tensor) -> Tensor:
        return z + (b - a) * (z - target(z, a)) / a

    up, middle, down = step(x + h), step(x), step(x - h)
    slope, bend = (up - down) / (2 * h), (up - 2 * middle + down) / h**2
    residual = target.score(middle, b) - (target.score(x, a) - bend / slope) / slope
    expected = b**2 * residual.square().sum(1)
    torch.testing.assert_close(predictor_costs(target, x, a, b), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("predictor", "order"), [("euler", 4), ("heun", 6)])
@pytest.mark.parametrize("a", [2.0, 1.0])
def test_halving_a_step_shows_the_order(predictor: str, order: int, a: float) -> None:
    assert ORDERS[predictor] == order
    costs = [quadrature(bimodal(), a, a * math.exp(-step), predictor=predictor) for step in (0.1, 0.05)]
    assert math.log2(costs[0] / costs[1]) == pytest.approx(order, abs=0.2)


def test_the_velocity_of_the_noised_data() -> None:
    x = torch.randn(5, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain = predictor_costs(bimodal(), x, 1.0, 0.5)
    marginal = predictor_costs(bimodal(), x, 1.0, 0.5, velocity="marginal", sigma_data=2.0)
    torch.testing.assert_close(marginal, plain * (0.25 + 4) / 0.25)


# Probes.


@pytest.fixture(scope="module")
def probed() -> tuple[Tensor, Tensor]:
    """In eight dimensions, exact costs (20,), and what single probes say, (2, 20, 60, 8): many for every point."""
    target, noise = gmm25(8), Noise(range(20), dtype=torch.float64)
    x = target.sample(noise) + 0.8 * noise.normal((8,))
    exact = predictor_costs(target, x, 0.8, 0.6)
    step = _Step(target, x.repeat_interleave(60, 0), 0.8, 0.6, "euler", {})
    return exact, probe_residuals(step, _Solver(step, Inversion(True, 100)), 2, 0).reshape(2, 20, 60, 8)


def test_the_u_statistic_is_unbiased_where_one_probe_is_not(probed: tuple[Tensor, Tensor]) -> None:
    exact, residuals = probed
    for_each = 0.36 * u_statistic(residuals.flatten(1, 2)).reshape(20, 60)
    gap = (for_each - exact[:, None]).mean(0)
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(60) < 0.5 * float(exact.mean())
    single = 0.36 * residuals.square().sum(-1).mean((0, 1))
    assert float(single.mean()) - 4 * float(single.std()) / math.sqrt(60) > 2 * float(exact.mean())


def test_a_probe_is_unbiased_itself(probed: tuple[Tensor, Tensor]) -> None:
    """The mean of the residuals over probes, in the direction of the exact residual, is as long as it is."""
    exact, residuals = probed
    target, noise = gmm25(8), Noise(range(20), dtype=torch.float64)
    x = target.sample(noise) + 0.8 * noise.normal((8,))
    truth = _Step(target, x, 0.8, 0.6, "euler", {}).residual()
    torch.testing.assert_close(0.36 * truth.square().sum(1), exact)
    shares = (residuals[0] * truth[:, None]).sum(-1).mean(0)
    expected = float(truth.square().sum(1).mean())
    assert abs(float(shares.mean()) - expected) < 4 * float(shares.std()) / math.sqrt(60) < expected


def test_the_u_statistic_in_plain_arithmetic() -> None:
    r = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    pairs = sum((r[i] * r[j]).sum(1) for i in range(3) for j in range(3) if i != j) / 6
    torch.testing.assert_close(u_statistic(r).float(), pairs)


def test_all_ways_of_solving_agree() -> None:
    """The same probes with symmetric and with normal equations; and many samples at once as one by one."""
    target, noise = gmm25(4), Noise(range(6), dtype=torch.float64)
    x = target.sample(noise) + 0.8 * noise.normal((4,))
    normal = predictor_costs(target, x, 0.8, 0.6, probes=3, seed=5)
    torch.testing.assert_close(
        predictor_costs(target, x, 0.8, 0.6, probes=3, seed=5, inversion=Inversion(symmetric=True)), normal
    )
    assert not torch.allclose(predictor_costs(target, x, 0.8, 0.6, probes=3, seed=6), normal)
    exact = predictor_costs(target, x, 0.8, 0.6)
    torch.testing.assert_close(torch.cat([predictor_costs(target, z[None], 0.8, 0.6) for z in x]), exact)


class Twisted(nn.Module):
    """A smooth denoiser whose Jacobian is not symmetric, on samples of any shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        d = math.prod(shape)
        self.matrix = torch.randn(d, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / d

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return (torch.tanh(x.flatten(1) @ self.matrix.T) + 0.5 * x.flatten(1)).reshape(x.shape) / (
            1 + expand(sigma, x) ** 2
        )


@pytest.mark.parametrize("predictor", ["euler", "heun"])
def test_matrix_free_costs_of_a_jacobian_that_is_not_symmetric(predictor: str) -> None:
    """With so many probes that the U-statistic has hardly any noise, on samples of the shape of an image."""
    x = torch.randn(2, 1, 2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    options = {"predictor": predictor, "a": 1.0, "b": 0.6}
    exact = predictor_costs(Twisted((1, 2, 3)), x, **options)
    found = predictor_costs(Twisted((1, 2, 3)), x.repeat(100, 1, 1, 1), **options, probes=4).reshape(100, 2)
    assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / 10 + 1e-12).all()
    assert (found.std(0) < exact).all()


def test_a_thousand_dimensions_in_closed_form() -> None:
    """For a Gaussian no probe is noisy, so that every sample's cost is known; the Jacobian is never formed."""
    variances = torch.arange(1.0, 1001.0, dtype=torch.float64) ** -2
    x = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a, b = 0.5, 0.35
    weights = closed_form(np.array(a), np.array(b), variances.numpy(), np.array(b)) / (variances.numpy() + a**2)
    expected = x.square() @ torch.from_numpy(weights)
    for symmetric in (False, True):
        found = predictor_costs(Gaussian(torch.zeros(1000), variances), x, a, b, inversion=Inversion(symmetric))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_conjugate_gradients_solve_every_sample_of_a_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(3, 5, 5, generator=generator, dtype=torch.float64)
    matrices = roots @ roots.mT + torch.eye(5)
    y = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    y[1] = 0
    solved = conjugate_gradients(lambda w: torch.einsum("bij,bj->bi", matrices, w), y, 50, 1e-12)
    torch.testing.assert_close(solved, torch.linalg.solve(matrices, y))


# Grids.


def test_the_marginal_velocity_makes_the_tangent_grid() -> None:
    """Method.md 11.4: to 3e-7; the costs in closed form, and those of the module where they are compared."""
    sigmas = np.geomspace(80.0, 0.002, 2000)
    a, b = sigmas[:-1], sigmas[1:]
    costs = closed_form(a, b, 1.0, np.sqrt(1 + b**2))
    grid = equidistribute(Length(sigmas, costs, ORDERS["euler"]), 10, 80.0, 0.002, final_zero=False)
    np.testing.assert_allclose(grid.sigmas, tangent(10, 80.0, 0.002, 1.0, final_zero=False).sigmas, rtol=4e-7)
    one = torch.ones(1, dtype=torch.float64)
    for i in (500, 1000, 1500):
        options = {"velocity": "marginal", "sigma_data": 1.0}
        (found, _) = predictor_costs(Gaussian([0.0], one), ends(one, a[i]), a[i], b[i], **options)
        assert float(found) == pytest.approx(costs[i], rel=1e-4)  # the costs are near 1e-12: their digits cancel


def test_the_marginal_corrector_cost_makes_variances_geometric() -> None:
    sigmas = np.geomspace(80.0, 0.002, 2000)
    a, b = sigmas[:-1] ** 2, sigmas[1:] ** 2
    length = Length(sigmas, (a - b) ** 2 / ((1 + a) * (1 + b)), 2)
    grid = equidistribute(length, 10, 80.0, 0.002, final_zero=False)
    np.testing.assert_allclose(grid.sigmas, np.sqrt(np.geomspace(1 + 80.0**2, 1 + 0.002**2, 11) - 1), rtol=3e-6)


LAW = gmm25(weights="chi2")


def divergence(grid: Schedule) -> float:
    """Exact, of Euler's method from pure noise: by quadrature over the data at 0.02."""
    axis = torch.linspace(-3.4, 3.4, 32, dtype=torch.float64)
    x = torch.cartesian_prod(axis, axis)
    mass = LAW.log_prob(x, 0.02).exp()
    kept = mass > 1e-5 * mass.max()
    ratios = euler_log_ratios(LAW, LAW, Isotropic((2,)), grid, x[kept])
    return float(mass[kept] @ ratios / mass[kept].sum())


def test_five_steps_of_eulers_method_on_25_modes() -> None:
    """Method.md 8.3: 0.41 to 0.43 nats on the grid of the fourth root, 0.36 on that of the defect, 0.99 of the root."""
    sigmas = np.geomspace(80.0, 0.02, 90)
    data = LAW.sample(Noise(range(700)))
    measured = measure_predictor(LAW, data, sigmas, compute=Compute(dtype=torch.float64, batch_size=700))
    assert divergence(equidistribute(measured.length(), 5, 80.0, 0.02, final_zero=False)) == pytest.approx(
        0.42, abs=0.03
    )
    square_root = Length(sigmas, measured.mean, 2)
    assert divergence(equidistribute(square_root, 5, 80.0, 0.02, final_zero=False)) > 0.85
    more = {"samples": 700, "cost_samples": 700, "batch_size": 700}
    profile = Profile.measure(LAW, data, sigmas=sigmas, dtype=torch.float64, **more)
    assert divergence(equidistribute(profile.length("defect"), 5, 80.0, 0.02, final_zero=False)) < 0.39


# Measuring.


def test_the_noised_samples_are_those_of_a_profile() -> None:
    data = bimodal().sample(Noise(range(40)))
    sigmas = np.array([2.0, 1.5, 1.0])
    profile = Profile.measure(bimodal(), data, sigmas=sigmas, samples=30, seed=3)
    assert profile.samples is not None
    costs = measure_predictor(bimodal(), profile.samples, sigmas, seed=3, compute=Compute(dtype=torch.float64))
    x = profile.samples.double() + 1.5 * profile.noise.double()
    np.testing.assert_allclose(costs.values[:, 1], predictor_costs(bimodal(), x, 1.5, 1.0).numpy(), rtol=1e-9)
    assert costs.values.shape == (30, 2)
    assert costs.error[0] == pytest.approx(costs.values[:, 0].std(ddof=1) / math.sqrt(30))


@pytest.mark.parametrize("predictor", ["euler", "heun"])
def test_lengths_have_the_exponent_of_their_predictor(predictor: str) -> None:
    data = bimodal().sample(Noise(range(30)))
    length = predictor_lengths(bimodal(), data, [2.0, 1.5, 1.0], predictor=predictor, dtype=torch.float64)
    assert length.exponent == ORDERS[predictor]
    np.testing.assert_array_equal(length.sigmas, [2.0, 1.5, 1.0])
    assert (length.costs > 0).all()


@pytest.mark.parametrize("batch_size", [4, 256])
def test_conditions_go_with_their_samples(batch_size: int) -> None:
    """The exact denoiser of N(label, 1), and data at their labels: a mix-up would show in the costs."""
    label = torch.arange(10.0)

    def denoiser(x: Tensor, sigma: Tensor, label: Tensor, power: int) -> Tensor:
        s2 = expand(sigma, x) ** power
        return (x + s2 * expand(label, x)) / (1 + s2)

    conditions = {"label": label, "power": 2}
    options = {"conditions": conditions, "compute": Compute(dtype=torch.float64, batch_size=batch_size)}
    costs = measure_predictor(denoiser, label[:, None], [3.0, 2.0], **options)
    eps = torch.randn(10, 1, generator=torch.Generator().manual_seed(0)).double().numpy()
    expected = closed_form(np.array(3.0), np.array(2.0), 1.0, np.array(2.0)) / 10 * 9 * eps**2
    np.testing.assert_allclose(costs.values, expected, rtol=1e-6)


def test_negative_means_are_cut_only_in_the_length() -> None:
    costs = PredictorCosts(np.array([3.0, 2.0, 1.0]), np.array([[1.0, -3.0], [3.0, 1.0]]), 4)
    np.testing.assert_array_equal(costs.mean, [2.0, -1.0])
    np.testing.assert_array_equal(costs.length().costs, [2.0, 0.0])
    assert repr(costs) == "PredictorCosts(2 samples, 3 levels from 3 to 1, order 4)"
    with pytest.raises(InputError, match="no mean of the predictor cost is above 0"):
        PredictorCosts(np.array([3.0, 2.0]), np.array([[1.0], [-3.0]]), 4).length()


X = torch.zeros(2, 1, dtype=torch.float64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probes": 1}, "one is biased"),
        ({"probes": -2}, "probes is -2"),
        ({"predictor": "rk4"}, "unknown predictor 'rk4'"),
        ({"velocity": "fast"}, "unknown velocity 'fast'"),
        ({"velocity": "marginal"}, "needs a sigma_data"),
        ({"velocity": "marginal", "sigma_data": 0.0}, "needs a sigma_data"),
        ({"predictor": "heun", "inversion": Inversion(symmetric=True)}, "Heun's step is not symmetric"),
        ({"a": 0.5}, "from a finite level down"),
        ({"b": 0.0}, "from a finite level down"),
        ({"a": math.inf}, "from a finite level down"),
        ({"x": X * math.nan}, "without NaN or Inf"),
        ({"x": X[:0]}, "at least one sample"),
        ({"x": X.long()}, "in floating point"),
        ({"denoiser": lambda x, sigma: bimodal()(x.detach(), sigma)}, "can be differentiated in x"),
    ],
)
def test_bad_input_is_named(options: dict[str, object], message: str) -> None:
    given = {"denoiser": bimodal(), "x": X, "a": 1.0, "b": 0.5, **options}
    with pytest.raises(InputError, match=message):
        predictor_costs(**given)  # type: ignore[arg-type]


class Attentive(nn.Module):
    """Attention between the coordinates of a sample, whose fast kernels have no second derivative."""

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        tokens = x.flatten(1)[:, None, :, None].expand(-1, 1, -1, 4)
        mixed = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return mixed[:, 0, :, 0].reshape(x.shape) / (1 + expand(sigma, x) ** 2)


def test_attention_is_differentiated_twice() -> None:
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    exact = predictor_costs(Attentive(), x, 1.0, 0.8)
    found = predictor_costs(Attentive(), x.repeat(100, 1), 1.0, 0.8, probes=4).reshape(100, 2)
    assert ((found.mean(0) - exact).abs() < 4 * found.std(0) / 10).all()
    assert (exact > 0).all()


class Once(torch.autograd.Function):
    """Half of x, whose derivative is missing."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return 0.5 * x

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        raise NotImplementedError("derivative for once is not implemented")


def test_a_denoiser_without_a_second_derivative_is_named() -> None:
    with pytest.raises(InputError, match="differentiated twice"):
        predictor_costs(lambda x, sigma: Once.apply(x), X + 1, 1.0, 0.5, probes=2)


@pytest.mark.parametrize("probes", [0, 2])
def test_a_singular_step_is_refused(probes: int) -> None:
    """D = -x with kappa = 1/2 takes every x to 0."""
    with pytest.raises(DenoiserError, match=r"singular|not inverted"):
        predictor_costs(lambda x, sigma: -x, X + 1, 1.0, 0.5, probes=probes)


def test_a_wrong_claim_of_symmetry_fails() -> None:
    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with pytest.raises(DenoiserError, match="try symmetric=False"):
        predictor_costs(Twisted((6,)), x, 1.0, 0.6, probes=2, inversion=Inversion(symmetric=True, iterations=6))


@pytest.mark.parametrize("data", [X[:1], X[:, 0], X + math.inf], ids=["one", "flat", "infinite"])
def test_data_are_checked(data: Tensor) -> None:
    with pytest.raises(DataError, match="at least two samples"):
        measure_predictor(bimodal(), data, [2.0, 1.0])


@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 2.0], [2.0, 0.0], [math.nan, 1.0], [[2.0, 1.0]]], ids=str)
def test_levels_are_checked(sigmas: list[float]) -> None:
    with pytest.raises(InputError, match="level"):
        measure_predictor(bimodal(), X, sigmas)
    with pytest.raises(InputError, match="batch_size=0"):
        measure_predictor(bimodal(), X, [2.0, 1.0], compute=Compute(batch_size=0))
