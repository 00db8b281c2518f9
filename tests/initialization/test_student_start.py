"""Student-t starts: recovered parameters, exact densities, the tails that a Gaussian start lacks, degenerate data."""

from __future__ import annotations

import json
import math

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.distributions import Normal

from headstart.errors import DataError, InputError
from headstart.initialization.gaussian import Diagonal, Gaussian, Isotropic
from headstart.initialization.student import Elliptical, Independent, StudentT
from headstart.initialization.student_fit import GAUSSIAN
from headstart.initialization.subspace import Subspace
from headstart.noise import Noise
from headstart.targets import ProductT, StudentTMixture, t_prod
from headstart.targets.student import scale_nodes

Double = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=Double)


def independent(shape: tuple[int, ...] = (5,)) -> StudentT:
    """Every kind of coordinate: heavy, lighter, normal, constant."""
    d = math.prod(shape)
    nu = torch.tensor([1.5, 3.0, 30.0, GAUSSIAN, GAUSSIAN], dtype=Double).repeat(d // 5 + 1)[:d]
    scales = torch.tensor([0.3, 1.0, 2.0, 0.5, 0.0], dtype=Double).repeat(d // 5 + 1)[:d]
    return StudentT(shape, Independent(random(d, seed=1), scales, nu))


def elliptical(shape: tuple[int, ...] = (5,), k: int = 3, nu: float = 3.0, residual: float = 0.2) -> StudentT:
    d = math.prod(shape)
    basis = torch.linalg.qr(random(d, k, seed=2)).Q
    scales = torch.linspace(3.0, 0.5, k, dtype=Double)
    space = Subspace(random(d, seed=1), basis, scales, torch.tensor(residual, dtype=Double))
    return StudentT(shape, Elliptical(space, torch.tensor(nu, dtype=Double)))


KINDS = {
    "independent": independent,
    "elliptical": elliptical,
    "elliptical, all directions": lambda shape=(5,): elliptical(shape, math.prod(shape), residual=0.0),
    "elliptical, a tail in a subspace": lambda shape=(5,): elliptical(shape, 2, residual=0.0),
    "normal": lambda shape=(5,): elliptical(shape, nu=GAUSSIAN),
}


@pytest.fixture(params=KINDS)
def start(request: pytest.FixtureRequest) -> StudentT:
    return KINDS[request.param]()


@pytest.fixture(params=KINDS)
def image_start(request: pytest.FixtureRequest) -> StudentT:
    return KINDS[request.param]((1, 4, 4))


def points(n: int = 8, scale: float = 2.0) -> Tensor:
    return scale * random(n, 5, seed=8) * torch.logspace(-2, 3, n, dtype=Double)[:, None]


def scale_matrix(law: Elliptical) -> Tensor:
    u = law.subspace.basis
    rest = law.subspace.residual * (torch.eye(len(u), dtype=Double) - u @ u.T)
    return u @ law.subspace.variances.diag() @ u.T + rest


# Densities.


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_the_density_is_that_of_gaussians_over_kappa_in_dense_matrices(sigma: float) -> None:
    """With the eigenvalues of the whole scale matrix, and more nodes than the start chooses."""
    t, log_weights = scale_nodes(3.0, 1, 1e8)
    x = points().clamp(-30, 30)
    for kind in ("elliptical", "elliptical, all directions", "elliptical, a tail in a subspace"):
        start = KINDS[kind]()
        assert isinstance(start.law, Elliptical)
        values, axes = torch.linalg.eigh(scale_matrix(start.law))
        y = (x - start.law.subspace.mean) @ axes
        noised = torch.where(values > 1e-12, values, 0.0) * (-t).exp()[:, None] + sigma**2
        terms = Normal(0.0, noised.sqrt()).log_prob(y[:, None]).sum(-1)  # type: ignore[no-untyped-call]
        torch.testing.assert_close(start.log_prob(x, sigma), (log_weights + terms).logsumexp(1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_starts_have_the_densities_of_the_targets_that_they_are(sigma: float) -> None:
    start = elliptical(k=5, residual=0.0)
    assert isinstance(start.law, Elliptical)
    target = StudentTMixture([1.0], start.law.subspace.mean[None], scale_matrix(start.law)[None], 3.0)
    torch.testing.assert_close(
        start.log_prob(points(), sigma), target.log_prob(points(), sigma), rtol=1e-10, atol=1e-10
    )
    law = independent().law
    assert isinstance(law, Independent)
    tails = ProductT(law.nu[:3], law.scales[:3], law.locations[:3]).log_prob(points()[:, :3], sigma)
    rest = Diagonal((2,), law.locations[3:], law.scales[3:].square()).log_prob(points()[:, 3:], sigma)
    torch.testing.assert_close(independent().log_prob(points(), sigma), tails + rest, rtol=1e-12, atol=1e-12)


def test_from_200_degrees_of_freedom_on_it_is_the_gaussian_start() -> None:
    start = elliptical(nu=GAUSSIAN)
    assert isinstance(start.law, Elliptical)
    gaussian = Gaussian((5,), start.law.subspace)
    torch.testing.assert_close(start.log_prob(points(), 0.7), gaussian.log_prob(points(), 0.7), rtol=1e-11, atol=1e-11)
    x, y = (s.sample(Noise(range(5), dtype=Double), 0.7) for s in (start, gaussian))
    torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-11)


def test_the_density_widens_by_the_heat_equation(start: StudentT) -> None:
    """dp / d(sigma^2) = Laplacian(p) / 2: a start at a far horizon is that at a near one, plus noise."""
    sigma, step = 0.9, 1e-4

    def density(x: Tensor, level: float = sigma) -> Tensor:
        return start.log_prob(x[None], level).exp()[0]

    for x in random(4, 5, seed=5):
        laplacian = torch.autograd.functional.hessian(density, x).trace()  # type: ignore[no-untyped-call]
        up, down = (density(x, math.sqrt(sigma**2 + s)) for s in (step, -step))
        torch.testing.assert_close((up - down) / (2 * step), 0.5 * laplacian, rtol=1e-5, atol=1e-14)


def test_rows_are_computed_a_few_at_a_time_and_an_empty_batch_is_none(
    start: StudentT, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = start.log_prob(points(), 0.5)
    assert start.log_prob(points()[:0], 0.5).shape == (0,)
    monkeypatch.setattr("headstart.initialization.student.NUMBERS", 1)
    torch.testing.assert_close(start.log_prob(points(), 0.5), whole, rtol=1e-12, atol=1e-12)


# Samples.


@pytest.mark.parametrize("sigma", [0.05, 0.7])
def test_samples_have_the_laws_characteristic_function(start: StudentT, sigma: float) -> None:
    """E exp(i w.x) by the quadrature over kappa, within 4.5 standard errors."""
    n, law = 4000, start.law
    x = start.sample(Noise(range(n), dtype=Double), sigma)
    for frequency in 0.5 * random(6, 5, seed=3):
        if isinstance(law, Independent):
            widths, location = (law.scales * frequency).square(), law.locations
        else:
            widths, location = (frequency @ scale_matrix(law) @ frequency)[None], law.subspace.mean
        centred = torch.ones((), dtype=Double)
        for width, nu in zip(widths, law.nu.expand(len(widths)), strict=True):
            t, log_weights = scale_nodes(float(nu), 0, 1e6)
            t = t if float(nu) < GAUSSIAN else torch.zeros_like(t)
            centred = centred * (log_weights.exp() @ (-0.5 * width * (-t).exp()).exp())
        expected = (
            torch.exp(1j * (location @ frequency)) * centred * math.exp(-0.5 * sigma**2 * float(frequency.norm()) ** 2)
        )
        wave = torch.exp(1j * (x @ frequency))
        error = wave.mean() - expected
        assert abs(float(error.real)) < 4.5 * float(wave.real.std()) / math.sqrt(n)
        assert abs(float(error.imag)) < 4.5 * float(wave.imag.std()) / math.sqrt(n)


def test_at_a_far_horizon_it_is_the_noise_itself(start: StudentT) -> None:
    z = Noise(range(5), dtype=Double).normal((5,))
    x = start.sample(Noise(range(5), dtype=Double), 1e7)
    torch.testing.assert_close(x / 1e7, z, rtol=0.0, atol=1e-5)


def test_a_sample_depends_on_its_own_seed_alone(image_start: StudentT) -> None:
    """And so do the numbers that are drawn after it."""
    batch = [7, 2**32 - 1, 0, 31]
    noise = Noise(batch)
    together, later = image_start.sample(noise, 1.3), noise.normal((8,))
    assert together.shape == (4, 1, 4, 4)
    for i, seed in enumerate(batch):
        one = Noise([seed])
        torch.testing.assert_close(image_start.sample(one, 1.3)[0], together[i], rtol=1e-5, atol=1e-5)
        assert torch.equal(one.normal((8,))[0], later[i])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_shorter_types_give_the_same_starts_to_their_own_digits(image_start: StudentT, dtype: torch.dtype) -> None:
    short = image_start.sample(Noise(range(50), dtype=dtype), 2.0)
    double = image_start.sample(Noise(range(50), dtype=Double), 2.0)
    assert short.dtype == dtype
    torch.testing.assert_close(
        short.double(), double, rtol=0.0, atol=4 * torch.finfo(dtype).eps * float(double.abs().max())
    )


# The tail, which is what it is for.


def quantile(start: StudentT, q: float, sigma: float) -> Tensor:
    """The exact quantile of every noised coordinate about its location, from the fitted law."""
    if isinstance(start.law, Independent):
        law = ProductT(start.law.nu, start.law.scales, 0.0)
        return torch.tensor([law.quantile(q, sigma, j) for j in range(law.shape[0])], dtype=Double)
    scales = scale_matrix(start.law).diagonal().sqrt()
    law = ProductT(start.law.nu.expand(len(scales)), scales, 0.0)
    return torch.tensor([law.quantile(q, sigma, j) for j in range(len(scales))], dtype=Double)


@pytest.fixture(scope="module")
def fitted() -> StudentT:
    target = t_prod(20)
    return StudentT.fit(target.sample(Noise(range(10_000), dtype=Double)))


@pytest.mark.parametrize(
    ("sigma", "q", "missed"), [(2.0, 0.9999, 0.44), (2.0, 1 - 1e-6, 0.84), (7.0, 1 - 1e-6, 0.45), (80.0, 1 - 1e-6, 0.0)]
)
def test_it_reaches_as_far_as_the_data_where_the_normal_start_does_not(
    fitted: StudentT, sigma: float, q: float, missed: float
) -> None:
    """On t_3 coordinates of variance 1, the mean over coordinates. At sigma = 7 the tail of N(0, sigma^2) hides that of
    the data up to 0.9999, which the normal start misses by 2 %, and at 80 up to 1 - 1e-6 and beyond."""
    exact = t_prod(1).quantile(q, sigma)
    normal = math.sqrt(2) * sigma * float(torch.erfinv(torch.tensor(2 * q - 1, dtype=Double)))
    assert 1 - normal / exact > missed - 0.01
    assert float((quantile(fitted, q, sigma) / exact - 1).abs().mean()) < 0.1


def test_a_plain_student_t_is_no_match_for_the_noised_one() -> None:
    """Of t_3 data of scale 1 at sigma = 2, with any scale: by Kullback-Leibler divergence, per coordinate."""
    s = torch.linspace(-25, 25, 4001, dtype=Double)
    x, target = s.sinh()[:, None], ProductT(3.0, 1.0, 0.0)
    log_p = target.log_prob(x, 2.0)
    losses = []
    for scale in torch.linspace(1.5, 2.5, 21).tolist():
        log_q = ProductT(3.0, scale, 0.0).log_prob(x)
        losses.append(float(torch.trapezoid(log_p.exp() * (log_p - log_q) * s.cosh(), s)))
    assert 0.02 < min(losses) < 0.05
    start = StudentT((1,), Independent(*(torch.tensor([v], dtype=Double) for v in (0.0, 1.0, 3.0))))
    torch.testing.assert_close(start.log_prob(x, 2.0), log_p, rtol=1e-12, atol=1e-12)


def test_it_is_nearer_to_heavy_tailed_data_than_the_gaussian_starts(fitted: StudentT) -> None:
    """By the likelihood of new noised data: the differences are those of the divergences."""
    n = 2000
    noise = Noise(range(10_000, 10_000 + n), dtype=Double)
    x = t_prod(20).sample(noise) + noise.normal((20,))
    data = t_prod(20).sample(Noise(range(10_000), dtype=Double))
    truth = t_prod(20).log_prob(x, 1.0)
    loss = float((truth - fitted.log_prob(x, 1.0)).mean())
    assert abs(loss) < 0.02
    for other in (Diagonal.fit(data), Gaussian.fit(data), Isotropic((20,))):
        assert float((truth - other.log_prob(x, 1.0)).mean()) > max(0.5, 10 * loss)


# Fits.


def information(nu: float) -> Tensor:
    """The Fisher information of log scale and log nu of one sample, by quadrature of the likelihood's gradients."""
    s = torch.linspace(-22, 22, 4001, dtype=Double)
    x = s.sinh()
    theta = torch.tensor([0.0, math.log(nu)], dtype=Double)

    def log_density(theta: Tensor) -> Tensor:
        nu, y = theta[1].exp(), x / theta[0].exp()
        return (
            torch.lgamma((nu + 1) / 2)
            - torch.lgamma(nu / 2)
            - 0.5 * (nu * math.pi).log()
            - theta[0]
            - 0.5 * (nu + 1) * (y.square() / nu).log1p()
        )

    slopes = torch.func.jacfwd(log_density)(theta)
    weights = log_density(theta).exp() * s.cosh() * (s[1] - s[0])
    found: Tensor = slopes.T @ (weights[:, None] * slopes)
    return found


@pytest.mark.parametrize("nu", [1.3, 3.0, 8.0])
def test_the_diagonal_fit_finds_location_scale_and_nu(nu: float) -> None:
    """Of 40 coordinates of very different scales, each within 4 standard errors, and these are of the right size."""
    n, d = 5000, 40
    scales, locations = torch.logspace(-3, 3, d, dtype=Double), 100 * random(d)
    start = StudentT.fit(ProductT(nu, scales, locations).sample(Noise(range(n), dtype=Double)))
    assert isinstance(start.law, Independent)
    variances = torch.linalg.inv(information(nu)).diagonal() / n
    of_location = (nu + 3) / (nu + 1) / n
    errors = torch.stack(
        [
            (start.law.locations - locations) / scales / math.sqrt(of_location),
            (start.law.scales / scales).log() / variances[0].sqrt(),
            (start.nu / nu).log() / variances[1].sqrt(),
        ]
    )
    assert errors.abs().max() < 4
    assert (errors.std(1) > 0.6).all()
    assert (errors.std(1) < 1.5).all()


@pytest.mark.parametrize("nu", [1.3, 3.0, 10.0])
@pytest.mark.parametrize("d", [1, 4])
def test_the_multivariate_fit_finds_location_scale_and_nu(d: int, nu: float) -> None:
    """At the maximum, twice the likelihood gained over the true law is chi-squared with one degree a parameter; and
    location, log determinant and nu are within 4 standard errors."""
    n = 10_000
    root = torch.eye(d, dtype=Double) + 0.5 * random(d, d, seed=3).tril(-1)
    matrix, location = (
        root
        @ root.mT
        * torch.logspace(-1, 1, d, dtype=Double).sqrt().outer(torch.logspace(-1, 1, d, dtype=Double).sqrt()),
        3 * random(1, d),
    )
    target = StudentTMixture([1.0], location, matrix[None], nu)
    data = target.sample(Noise(range(n), dtype=Double))
    start = StudentT.fit(data, "multivariate")
    assert isinstance(start.law, Elliptical)
    gained = 2 * float((start.log_prob(data, 1e-6) - target.log_prob(data, 1e-6)).sum())
    count = d + d * (d + 1) // 2 + 1
    assert 0 < gained < count + 4 * math.sqrt(2 * count)
    white = torch.linalg.solve(torch.linalg.cholesky(matrix), start.law.subspace.mean - location[0])
    assert white.abs().max() < 4 * math.sqrt((nu + d + 2) / (nu + d) / n)
    if d == 1:
        variances = torch.linalg.inv(information(nu)).diagonal() / n
        assert abs(math.log(float(scale_matrix(start.law) / matrix)) / 2) < 4 * float(variances[0].sqrt())
        assert abs(math.log(float(start.nu) / nu)) < 4 * float(variances[1].sqrt())
    else:
        assert abs(math.log(float(start.nu) / nu)) < 4 * float((torch.linalg.inv(information(nu))[1, 1] / n).sqrt())
        ratio = torch.linalg.slogdet(scale_matrix(start.law)).logabsdet - torch.linalg.slogdet(matrix).logabsdet
        assert abs(float(ratio)) / d < 4 * 2 * float((torch.linalg.inv(information(nu))[0, 0] / n).sqrt())


def test_the_fits_are_those_of_scipys_likelihood() -> None:
    """No step in any parameter raises the likelihood of the data, by SciPy's density."""
    from scipy import stats

    data = ProductT(2.5, 0.7, 3.0).sample(Noise(range(3000), dtype=Double))
    for structure in ("diagonal", "multivariate"):
        start = StudentT.fit(data, structure)  # type: ignore[arg-type]
        if isinstance(start.law, Independent):
            nu, location, scale = float(start.nu), float(start.law.locations), float(start.law.scales)
        else:
            nu, location = float(start.nu), float(start.law.subspace.mean)
            scale = float(start.law.subspace.variances.sqrt())
        best = stats.t.logpdf(data.numpy(), nu, location, scale).sum()
        for factors in ((1.05, 1, 0), (0.95, 1, 0), (1, 1.02, 0), (1, 0.98, 0), (1, 1, 0.02), (1, 1, -0.02)):
            other = stats.t.logpdf(data.numpy(), nu * factors[0], location + factors[2], scale * factors[1]).sum()
            assert other < best + 0.02


def test_data_without_a_tail_give_the_gaussian_starts() -> None:
    data = 2 * torch.rand(3000, 6, generator=torch.Generator().manual_seed(0), dtype=Double)
    x = random(5, 6)
    for structure, gaussian in (("multivariate", Gaussian.fit(data, 6)), ("diagonal", Diagonal.fit(data))):
        start = StudentT.fit(data, structure)  # type: ignore[arg-type]
        assert float(start.nu.min()) == GAUSSIAN
        torch.testing.assert_close(start.log_prob(x, 0.3), gaussian.log_prob(x, 0.3), rtol=1e-9, atol=1e-9)


def test_normal_data_give_nearly_a_gaussian() -> None:
    """A tail that is there by chance only is light."""
    data, x = random(5000, 6), random(5, 6, seed=1)
    for structure in ("multivariate", "diagonal"):
        start = StudentT.fit(data, structure)  # type: ignore[arg-type]
        assert float(start.nu.min()) > 15
        torch.testing.assert_close(start.log_prob(x, 1.0), Gaussian.fit(data).log_prob(x, 1.0), rtol=0.0, atol=0.1)


def test_a_fit_in_a_subspace_keeps_the_leading_directions_and_spreads_the_rest() -> None:
    truth = elliptical((1, 4, 4), k=3, nu=3.0, residual=0.02)
    data = truth.law.sample(Noise(range(8000), dtype=Double), 1e-9).reshape(-1, 1, 4, 4)
    start = StudentT.fit(data, "multivariate", components=3)
    assert isinstance(start.law, Elliptical)
    assert isinstance(truth.law, Elliptical)
    assert float(start.nu) == pytest.approx(3.0, rel=0.08)
    overlap = torch.linalg.svdvals(start.law.subspace.basis.T @ truth.law.subspace.basis)
    assert overlap.min() > 0.999
    torch.testing.assert_close(start.law.subspace.variances, truth.law.subspace.variances, rtol=0.12, atol=0.0)
    assert float(start.law.subspace.residual) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("structure", ["diagonal", "multivariate"])
def test_a_fit_moves_and_grows_with_the_data(structure: str) -> None:
    data = t_prod(3).sample(Noise(range(2000), dtype=Double))
    start = StudentT.fit(data, structure)  # type: ignore[arg-type]
    moved = StudentT.fit(1e3 * data + 50, structure)  # type: ignore[arg-type]
    x = random(6, 3)
    expected = start.log_prob(x, 0.2) - 3 * math.log(1e3)
    torch.testing.assert_close(moved.log_prob(1e3 * x + 50, 200.0), expected, rtol=1e-5, atol=1e-5)


def test_of_many_samples_a_choice_is_fitted_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the seed's, and it is spread over all of them."""
    monkeypatch.setattr("headstart.initialization.student.MOST", 2000)
    data = t_prod(2).sample(Noise(range(4000), dtype=Double)).sort(dim=0).values
    first, again, other = (StudentT.fit(data, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.nu, again.nu)
    assert not torch.equal(first.nu, other.nu)
    for start in (first, other):
        assert isinstance(start.law, Independent)
        assert start.law.locations.abs().max() < 0.1


# Little, degenerate and bad data.

DEGENERATE = {
    "two": random(2, 7),
    "three": random(3, 7),
    "twenty in fifty dimensions": random(20, 50),
    "thirty in fifty dimensions": random(30, 50),
    "two in one dimension": random(2, 1),
    "the same many times": random(2, 4).repeat(20, 1),
    "a constant coordinate": torch.cat([random(40, 3), torch.full((40, 1), 0.1, dtype=Double)], 1),
    "on a line": random(40, 1) * torch.tensor([[1.0, -2.0, 0.5]], dtype=Double),
    "all at one point": torch.full((40, 3), 0.1, dtype=Double),
    "nearly all at one point": torch.cat([torch.zeros(95, 3, dtype=Double), random(5, 3)]),
    "half at one point": torch.cat([torch.zeros(50, 3, dtype=Double), random(50, 3)]),
    "all at zero": torch.zeros(40, 2),
    "far from zero": 1e4 + 1e-3 * random(40, 3),
    "one far outlier": torch.cat([random(60, 3), torch.full((1, 3), 1e12, dtype=Double)]),
    "bytes": (40 * random(40, 3)).clamp(0, 255).to(torch.uint8),
    "single precision": random(40, 3).float(),
}


@pytest.mark.parametrize("structure", ["diagonal", "multivariate"])
@pytest.mark.parametrize("name", DEGENERATE)
def test_little_and_degenerate_data_give_a_start(name: str, structure: str) -> None:
    data = DEGENERATE[name]
    for components in (256, 2):
        start = StudentT.fit(data, structure, components)  # type: ignore[arg-type]
        assert 1.05 <= float(start.nu.min()) <= float(start.nu.max()) <= GAUSSIAN
        x = start.sample(Noise(range(6)), 0.5)
        assert torch.isfinite(x).all()
        assert torch.isfinite(start.log_prob(data[:6], 0.5)).all()
        assert torch.isfinite(start.log_prob(x, 0.5)).all()
    if name == "a constant coordinate" and structure == "diagonal":
        assert isinstance(start.law, Independent)
        assert float(start.law.scales[3]) < 1e-15


def test_bad_input_is_named() -> None:
    for data in (random(1, 3), torch.full((5, 3), math.nan)):
        for structure in ("diagonal", "multivariate"):
            with pytest.raises(DataError, match="at least two samples"):
                StudentT.fit(data, structure)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="diagonal or multivariate"):
        StudentT.fit(random(30, 3), "full")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 1 component"):
        StudentT.fit(random(30, 3), "multivariate", 0)
    with pytest.raises(InputError, match="5 dimensions"):
        StudentT((2, 3), independent().law)
    with pytest.raises(InputError, match="unknown structure"):
        StudentT.from_state({"shape": [5], "structure": "other"}, {})


# States.


def test_a_saved_start_is_the_same_start(image_start: StudentT) -> None:
    values, tensors = image_start.state()
    blob = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    again = StudentT.from_state(json.loads(json.dumps(values, allow_nan=False)), safetensors.torch.load(blob))
    assert (again.shape, repr(again), again.structure) == (image_start.shape, repr(image_start), image_start.structure)
    kept = again.state()
    assert kept[0] == values
    assert kept[1].keys() == tensors.keys()
    assert all(torch.equal(kept[1][name], tensors[name]) for name in tensors)
    x = image_start.sample(Noise(range(4), dtype=Double), 0.7)
    assert torch.equal(again.sample(Noise(range(4), dtype=Double), 0.7), x)
    torch.testing.assert_close(again.log_prob(x, 0.7), image_start.log_prob(x, 0.7), rtol=1e-12, atol=1e-12)


def test_repr() -> None:
    assert repr(independent()) == "StudentT(shape=(5,), structure='diagonal', nu=1.5 to 200)"
    assert repr(elliptical()) == "StudentT(shape=(5,), structure='multivariate', nu=3)"
