"""What holds for every family: its law against dense matrices, its samples, its seeds, its state."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from headstart.choose import fit_starts
from headstart.choose.starts import known_starts, usual_starts
from headstart.conditions import Conditions
from headstart.errors import ArtefactError, DataError, InputError
from headstart.initialization import (
    INITIALIZATIONS,
    Diagonal,
    Gaussian,
    Generator,
    Initialization,
    Isotropic,
    Mixture,
    Shifted,
    Subspace,
)
from headstart.noise import Noise

HORIZONS = [0.05, 0.7, 20.0]


def points(n: int = 9, d: int = 5, scale: float = 2.0) -> Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(8), dtype=torch.float64)


def classes(start: Initialization) -> bool:
    return getattr(start, "owners", None) is not None or getattr(start, "labels", None) is not None


# Densities.


@pytest.mark.parametrize("sigma", HORIZONS)
def test_log_density_equals_that_of_torch_distributions(smooth: Initialization, sigma: float, dense: Any) -> None:
    x = points(scale=max(2.0, sigma))
    for label in (None, 3, 8):
        labels = None if label is None else torch.full((len(x),), label)
        got = smooth.log_prob(x, sigma, labels)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, dense(smooth, sigma, label).log_prob(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("sigma", [0.3, 1.5])
@pytest.mark.parametrize("d", [1, 2])
def test_densities_integrate_to_one(d: int, sigma: float) -> None:
    """By the trapezoid rule, whose error on a Gaussian falls faster than any power of the step.

    A mixture's eigenvectors are orthonormal to the digits of float32.
    """
    data = 0.7 * points(40, d)
    line = torch.linspace(-16, 16, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(*[line] * d).reshape(-1, d)
    starts = [Isotropic.fit(data), Gaussian.fit(data), Gaussian.fit(data, 1), Mixture.fit(data, 3)]
    labelled = Mixture.fit(data, 4, 1, labels=torch.arange(40) % 2)
    for start in [*starts, labelled]:
        assert float(start.log_prob(grid, sigma).exp().sum() * 0.08**d) == pytest.approx(1, abs=1e-6)
    label = torch.ones(len(grid), dtype=torch.long)
    assert float(labelled.log_prob(grid, sigma, label).exp().sum() * 0.08**d) == pytest.approx(1, abs=1e-6)


def test_the_density_widens_by_the_heat_equation(smooth: Initialization) -> None:
    """dp / d(sigma^2) = Laplacian(p) / 2: the law at any horizon is that at a nearer one plus noise, whatever it is."""
    sigma, step = 0.9, 1e-4

    def density(x: Tensor, level: float = sigma) -> Tensor:
        return smooth.log_prob(x[None], level).exp()[0]

    for x in points(6):
        laplacian = torch.autograd.functional.hessian(density, x).trace()  # type: ignore[no-untyped-call]
        up, down = (density(x, math.sqrt(sigma**2 + s)) for s in (step, -step))
        torch.testing.assert_close((up - down) / (2 * step), 0.5 * laplacian, rtol=1e-5, atol=1e-14)


@pytest.mark.parametrize(("near", "added"), [(0.4, 0.3), (1.0, 2.0)])
def test_a_far_horizon_is_a_near_one_plus_noise(near: float, added: float) -> None:
    """p_c(x) = E p_a(x + b eps) with c^2 = a^2 + b^2, by the trapezoid rule in two dimensions."""
    data, step = 0.7 * points(40, 2), 0.15 * added
    line = torch.arange(-9 * added, 9 * added + step, step, dtype=torch.float64)
    eps = torch.cartesian_prod(line, line)
    weights = (-0.5 * eps.square().sum(1) / added**2).exp() * step**2 / (2 * math.pi * added**2)
    for start in (Isotropic.fit(data), Gaussian.fit(data), Gaussian.fit(data, 1), Mixture.fit(data, 3, 1)):
        for x in points(3, 2):
            convolved = weights @ start.log_prob(x + eps, near).exp()
            far = start.log_prob(x[None], math.hypot(near, added)).exp()[0]
            torch.testing.assert_close(convolved, far, rtol=1e-10, atol=1e-15)


# Samples.


@pytest.mark.parametrize("sigma", HORIZONS)
def test_samples_have_the_laws_mean_and_covariance(start: Initialization, sigma: float, dense: Any) -> None:
    n, law = 4000, dense(start, sigma)
    x = start.sample(Noise(range(n), dtype=torch.float64), sigma)
    root = torch.linalg.cholesky(law.covariance())
    white = torch.linalg.solve_triangular(root, (x - law.mean()).mT, upper=False).mT
    products = white[:, :, None] * white[:, None]
    assert (white.mean(0).abs() < 4.5 / math.sqrt(n)).all()
    error = (products.mean(0) - torch.eye(5, dtype=torch.float64)).abs()
    assert (error < 4.5 * products.std(0) / math.sqrt(n)).all()


@pytest.mark.parametrize("sigma", [0.05, 0.7])
@pytest.mark.parametrize("label", [None, 3, 8])
def test_samples_have_the_laws_characteristic_function(
    start: Initialization, sigma: float, label: int | None, dense: Any
) -> None:
    """E exp(i w.x) at frequencies from coarse to fine says more than moments: weights, places, shapes."""
    n = 4000
    labels = None if label is None else torch.full((n,), label)
    x = start.sample(Noise(range(n, 2 * n), dtype=torch.float64), sigma, labels)
    frequencies = torch.cat([scale * points(4, 5, 1.0) for scale in (0.2, 0.5, 1.0)])
    waves = torch.exp(1j * (x @ frequencies.T))
    error = waves.mean(0) - dense(start, sigma, label).characteristic(frequencies)
    for part, spread in ((error.real, waves.real.std(0)), (error.imag, waves.imag.std(0))):
        assert (part.abs() < 4.5 * spread / math.sqrt(n)).all()


@pytest.mark.parametrize("sigma", [0.05, 0.7, 20.0])
def test_a_sample_is_its_own_noise_through_a_square_root_of_the_covariance(
    start: Initialization, sigma: float, dense: Any
) -> None:
    """x = mean_k + C_k^(1/2) z with the symmetric root, z the first numbers of the stream, k one of the components."""
    law, noise = dense(start, sigma), Noise(range(20), dtype=torch.float64)
    x, z = start.sample(noise, sigma), Noise(range(20), dtype=torch.float64).normal((5,))
    candidates = law.means + torch.einsum("kij,bj->bki", law.root(), z)
    assert (x[:, None] - candidates).norm(dim=-1).min(dim=1).values.max() < 1e-11 * max(1.0, sigma)


def test_at_a_far_horizon_every_start_is_isotropic(start: Initialization) -> None:
    z = Noise(range(5), dtype=torch.float64).normal((5,))
    x = start.sample(Noise(range(5), dtype=torch.float64), 1e7)
    torch.testing.assert_close(x / 1e7, z, rtol=0.0, atol=1e-5)


# Seeds.


@pytest.mark.parametrize("labelled", [False, True])
def test_a_sample_depends_on_its_own_seed_alone(image_start: Initialization, labelled: bool) -> None:
    """Its noise to the bit, also what is drawn after it; the image to 1e-4."""
    batch, parts = [7, 2**32 - 1, 0, 31, 12], ([0], [12, 7], [31, 0, 5, 6, 2**32 - 1])
    label = {seed: (3, 8)[seed % 2] for part in (batch, *parts) for seed in part}

    def draw(seeds: list[int]) -> tuple[Tensor, Tensor]:
        noise = Noise(seeds)
        x = image_start.sample(noise, 1.3, torch.tensor([label[s] for s in seeds]) if labelled else None)
        return x, noise.normal((8,))

    images, later = draw(batch)
    assert images.shape == (5, 1, 6, 6)
    for part in parts:
        some, some_later = draw(part)
        for row, seed in enumerate(part):
            if seed in batch:
                assert torch.equal(some_later[row], later[batch.index(seed)])
                torch.testing.assert_close(some[row], images[batch.index(seed)], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 20.0])
def test_float32_is_accurate(image_start: Initialization, sigma: float) -> None:
    single = image_start.sample(Noise(range(50)), sigma)
    double = image_start.sample(Noise(range(50), dtype=torch.float64), sigma)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0.0, atol=5e-6 * max(1.0, sigma))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_types_give_the_same_starts_to_their_own_digits(image_start: Initialization, dtype: torch.dtype) -> None:
    half = image_start.sample(Noise(range(50), dtype=dtype), 2.0)
    assert half.dtype == dtype
    double = image_start.sample(Noise(range(50), dtype=torch.float64), 2.0)
    scale = float(double.abs().max())
    torch.testing.assert_close(half.double(), double, rtol=0.0, atol=4 * torch.finfo(dtype).eps * scale)


# States.


def test_a_saved_start_is_the_same_start(image_start: Initialization) -> None:
    """Through JSON and the bytes of a safetensors file: every number to the bit, and so all that follows from them."""
    values, tensors = image_start.state()
    blob = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    family = INITIALIZATIONS[image_start.name]
    assert family is type(image_start)
    again = family.from_state(json.loads(json.dumps(values)), safetensors.torch.load(blob))
    assert (again.shape, repr(again)) == (image_start.shape, repr(image_start))
    kept = again.state()
    assert kept[0] == values
    assert kept[1].keys() == tensors.keys()
    assert all(torch.equal(kept[1][name], tensors[name]) for name in tensors)
    for sigma in (0.3, 4.0):
        for label in (None, torch.tensor([3, 8, 8, 3])):
            x, same = (s.sample(Noise(range(4), dtype=torch.float64), sigma, label) for s in (image_start, again))
            assert torch.equal(same, x)
            if not image_start.oracle:
                expected = image_start.log_prob(x, sigma, label)
                assert torch.equal(again.log_prob(x, sigma, label), expected)


def test_a_start_in_a_file_of_its_own_is_the_same_start(image_start: Initialization, tmp_path: Path) -> None:
    image_start.save(tmp_path / "start.safetensors")
    again = Initialization.load(tmp_path / "start.safetensors")
    assert (type(again), again.shape, repr(again)) == (type(image_start), image_start.shape, repr(image_start))
    x, same = (start.sample(Noise(range(4)), 1.0) for start in (image_start, again))
    assert torch.equal(same, x)
    again.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "start.safetensors").read_bytes()


def test_a_start_that_is_code_or_of_others_is_not_saved(tmp_path: Path) -> None:
    class Own(Isotropic):
        name = "own"

    with pytest.raises(ArtefactError, match="not one of headstart's own"):
        Own((2,)).save(tmp_path / "start")
    with pytest.raises(ArtefactError):
        Generator((2,), lambda noise, label: noise.normal((2,))).save(tmp_path / "start")
    assert not list(tmp_path.iterdir())


def column_major(tensor: Tensor) -> Tensor:
    """The same numbers in columns (Fortran order)."""
    backwards = list(reversed(range(tensor.ndim)))
    return tensor.permute(backwards).contiguous().permute(backwards)


def misaligned(tensor: Tensor) -> Tensor:
    """The same numbers from an address that is no multiple of anything, as in the bytes of a file."""
    if not tensor.numel():
        return tensor
    blob = bytearray(3) + bytearray(tensor.detach().contiguous().numpy().tobytes())
    return torch.frombuffer(blob, dtype=tensor.dtype, offset=3).reshape(tensor.shape)


@pytest.mark.parametrize("lying", [column_major, misaligned])
def test_a_start_holds_its_tensors_in_rows_and_in_memory_of_its_own(
    image_start: Initialization, lying: Callable[[Tensor], Tensor]
) -> None:
    """However those that it is made of lie: so that its samples are equal to the bit on every processor."""
    values, tensors = image_start.state()
    given = {name: lying(tensor) for name, tensor in tensors.items()}
    again = type(image_start).from_state(values, given)
    for name, tensor in again.state()[1].items():
        assert torch.equal(tensor, tensors[name])
        assert tensor.stride() == torch.empty(tensor.shape).stride(), name
        assert tensor.data_ptr() % 64 == 0, name
        assert not tensor.numel() or tensor.data_ptr() != given[name].data_ptr(), name
    for sigma in (0.3, 4.0):
        for label in (None, torch.tensor([3, 8, 8, 3])):
            for dtype in (torch.float32, torch.float64):
                x, same = (s.sample(Noise(range(4), dtype=dtype), sigma, label) for s in (image_start, again))
                assert torch.equal(same, x)
            if image_start.tractable:
                assert torch.equal(again.log_prob(x, sigma, label), image_start.log_prob(x, sigma, label))


# Classes.


def test_labels_of_a_batch_go_with_its_samples(start: Initialization) -> None:
    """A batch of mixed classes is what one class at a time gives; a start without classes ignores them."""
    labels, seeds = torch.tensor([3, 8, 8, 3, 8]), range(5)
    mixed = start.sample(Noise(seeds, dtype=torch.float64), 0.5, labels)
    for label in (3, 8):
        one = start.sample(Noise(seeds, dtype=torch.float64), 0.5, torch.full((5,), label))
        torch.testing.assert_close(mixed[labels == label], one[labels == label], rtol=1e-12, atol=1e-12)
    plain = start.sample(Noise(seeds, dtype=torch.float64), 0.5)
    assert torch.equal(mixed, plain) != classes(start)
    if not start.oracle:
        x = points(5)
        alone = [start.log_prob(x[i : i + 1], 0.5, labels[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(start.log_prob(x, 0.5, labels), torch.cat(alone), rtol=1e-12, atol=1e-12)
        assert torch.equal(start.log_prob(x, 0.5, labels), start.log_prob(x, 0.5)) != classes(start)


def test_classes_come_among_the_conditions_by_name_or_alone(start: Initialization) -> None:
    """Conditions that a family does not know are ignored, and those of some samples are their rows."""
    labels, seeds = torch.tensor([3, 8, 8, 3, 8]), range(5)
    every = {"label": labels, "image": torch.zeros(5, 2, 2)}
    alone = start.sample(Noise(seeds), 0.5, labels)
    given = Conditions.of(every, 5)
    for x in (
        start.sample(Noise(seeds), 0.5, label=labels),
        start.sample(Noise(seeds), 0.5, every),
        start.sample(Noise(seeds), 0.5, {"image": every["image"]}, label=labels),
        torch.cat([start.sample(Noise([seed]), 0.5, given.take(slice(seed, seed + 1))) for seed in seeds]),
    ):
        torch.testing.assert_close(x, alone, rtol=0.0, atol=1e-5)
    if not start.oracle:
        x = points(5)
        assert torch.equal(start.log_prob(x, 0.5, every), start.log_prob(x, 0.5, label=labels))
    with pytest.raises(InputError, match="given twice"):
        start.sample(Noise(seeds), 0.5, every, label=labels)


def test_an_unknown_class_is_named(classed: Initialization) -> None:
    labels = torch.tensor([3, 8, 5])
    with pytest.raises(InputError, match="label"):
        classed.sample(Noise(range(3)), 0.5, labels)
    if not classed.oracle:
        with pytest.raises(InputError, match=r"\[3, 8\]"):
            classed.log_prob(points(3), 0.5, labels)


# Little and degenerate data.

DEGENERATE = {
    "two": points(2, 7),
    "three": points(3, 7),
    "twenty in fifty dimensions": points(20, 50),
    "two in one dimension": points(2, 1),
    "the same ten times": points(2, 4).repeat(10, 1),
    "a constant coordinate": torch.cat([points(20, 3), torch.full((20, 1), 0.1, dtype=torch.float64)], 1),
    "on a line": points(20, 1) * torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64),
    "all at one point": torch.full((20, 3), 0.1, dtype=torch.float64),
    "all at zero": torch.zeros(5, 2),
    "far from zero": 1e4 + 1e-3 * points(20, 3),
    "bytes": (40 * points(20, 3)).clamp(0, 255).to(torch.uint8),
}


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("name", DEGENERATE)
def test_little_and_degenerate_data_give_a_start(name: str) -> None:
    """Also with two classes, and with a class of a single sample."""
    data = DEGENERATE[name]
    number = torch.arange(len(data))
    starts = [
        Isotropic.fit(data),
        Shifted.fit(data),
        Diagonal.fit(data),
        Gaussian.fit(data),
        Gaussian.fit(data, 2),
        Mixture.fit(data),
        Mixture.fit(data, 5, 2),
        Mixture.fit(data, 4, labels=number % 2),
        Mixture.fit(data, labels=(number == 0).long()),
    ]
    for start in starts:
        for sigma in (1e-2, 1.0):
            x = start.sample(Noise(range(4)), sigma)
            assert x.shape == (4, *data.shape[1:])
            assert torch.isfinite(x).all()
            for at in (x, data):
                assert torch.isfinite(start.log_prob(at, sigma)).all()


@pytest.mark.parametrize("family", [Gaussian, Mixture, Subspace], ids=lambda family: family.__name__)
def test_data_that_no_start_can_be_fitted_on_are_named(family: Any) -> None:
    bad = points()
    bad[3, 2] = math.nan
    for data in (bad, points(1), points()[:0], points()[:, 0]):
        with pytest.raises(DataError, match=r"at least two samples in an array .*, without NaN or Inf"):
            family.fit(data, 2)


CLOSED = [name for name in known_starts() if INITIALIZATIONS[name].closed_form]


@pytest.mark.parametrize("name", CLOSED)
def test_an_oracle_hands_back_training_data_and_no_other_start_does(name: str) -> None:
    """Where next to no noise is added, its samples are the data's own points, to seven digits."""
    data = points(200).float()
    number = torch.arange(200) % 2
    (start,) = fit_starts(data, name, labels=number, conditions={"label": number})
    samples = start.sample(Noise(range(50)), 1e-6, number[:50])
    nearest = torch.cdist(samples.double(), data.double()).min(1).values
    assert bool((nearest < 1e-4).all()) is start.oracle is INITIALIZATIONS[name].oracle
    assert bool((nearest < 1e-4).any()) is start.oracle


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6])
@pytest.mark.parametrize("name", [name for name in CLOSED if name != "teleportation"])
def test_a_start_knows_no_unit(name: str, scale: float) -> None:
    """Of data in another unit the fitted density is the same in that unit: log p'(c x) = log p(x) - d log c.

    But for teleportation, which begins at a level of the sampler that it replaces.
    """
    number = torch.arange(300) % 3
    data = points(300, 2, 0.3) + torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])[number]
    for labels in (number,) if INITIALIZATIONS[name].conditional else (None, number):
        given = None if labels is None else {"label": labels}
        (start,), (scaled,) = (fit_starts(x, name, labels, conditions=given) for x in (data, data * scale))
        if start.tractable:
            ours, theirs = start.log_prob(data, 0.4, labels), scaled.log_prob(data * scale, 0.4 * scale, labels)
            torch.testing.assert_close(theirs, ours - 2 * math.log(scale), rtol=1e-5, atol=1e-4)
        few = None if labels is None else labels[:9]
        x, y = (s.sample(Noise(range(9)), 0.4 * c, few) for s, c in ((start, 1.0), (scaled, scale)))
        torch.testing.assert_close(y.double() / scale, x.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", INITIALIZATIONS)
def test_a_start_is_fitted_by_its_name_or_handed_in(name: str) -> None:
    """Its ``fit`` needs the data alone; one of the user's making has none, and is never chosen unasked."""
    family = INITIALIZATIONS[name]
    if family.given:
        assert name not in {*known_starts(), *usual_starts()}
        with pytest.raises(InputError, match=f"a {name} is of your making"):
            fit_starts(points(), name)
        return
    needed = [p.name for p in inspect.signature(family.fit).parameters.values() if p.default is p.empty]
    assert needed == ["data"]
    assert family.trained is ("training" in inspect.signature(family.fit).parameters)


@pytest.mark.parametrize("level", [0.0, -1.0, math.nan, math.inf])
def test_a_level_that_is_no_horizon_is_named(start: Initialization, level: float) -> None:
    with pytest.raises(InputError, match="finite and above 0"):
        start.sample(Noise([0]), level)
    if start.tractable:
        with pytest.raises(InputError, match="finite and above 0"):
            start.log_prob(points(1), level)


def test_a_density_is_asked_for_at_finite_points_of_the_right_shape(smooth: Initialization) -> None:
    with pytest.raises(InputError, match="NaN or infinite"):
        smooth.log_prob(points(2) * math.nan, 1.0)
    with pytest.raises(InputError, match=r"expects \(B, 5\)"):
        smooth.log_prob(points(2, 4), 1.0)


def test_labels_of_another_length_are_named(start: Initialization) -> None:
    with pytest.raises(InputError, match="one for each sample"):
        start.sample(Noise(range(3)), 1.0, torch.tensor([3, 8]))
