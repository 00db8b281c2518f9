"""Coupling flows: invertible maps with the right determinants, that begin as the base and learn what it lacks."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from headstart.conditions import Conditions
from headstart.errors import DataError, InputError, MissingExtraError
from headstart.initialization.base import Initialization
from headstart.initialization.empirical import Empirical
from headstart.initialization.flow import BOUND, Couplings, Flow
from headstart.initialization.gaussian import Diagonal, Gaussian, Isotropic
from headstart.initialization.mixture import Mixture
from headstart.initialization.subspace import Subspace
from headstart.initialization.training import Training
from headstart.noise import Noise
from headstart.targets import gmm25

pytest.importorskip("zuko")

Double = torch.float64
KINDS = ["spline", "affine"]
LEVELS = (0.3, 6.0)
QUICK = Training(epochs=2, batch_size=64, learning_rate=3e-3, levels=4)
SMALL: dict[str, Any] = {"transforms": 2, "hidden": (8,)}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=Double)


def rugged(couplings: Couplings, size: float = 0.25) -> Couplings:
    """In double precision, with weights far from those of the identity."""
    generator = torch.Generator().manual_seed(7)
    for parameter in couplings.double().parameters():
        with torch.no_grad():
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=Double)
    return couplings.requires_grad_(False)


def flow(kind: Any = "spline", d: int = 2, m: int | None = None, base: Initialization | None = None) -> Flow:
    """Untrained and rugged: in the coordinate axes, or in m directions that are none of them."""
    m = d if m is None else m
    basis = torch.eye(d, dtype=Double) if m == d else torch.linalg.qr(random(d, m, seed=2)).Q
    frame = Subspace(random(d, seed=1), basis, torch.linspace(2.0, 0.5, m, dtype=Double), torch.tensor(0.2).double())
    full = Subspace(
        random(d, seed=4), torch.linalg.qr(random(d, d, seed=3)).Q, frame.variances.mean().expand(d), 0 * frame.residual
    )
    base = Gaussian((d,), full) if base is None else base
    return Flow(base, frame, rugged(Couplings(m, 1, kind, 3, (8, 8))), LEVELS)


class Heavy(Initialization):
    """Independent Cauchy coordinates, wider by the level."""

    name = "heavy"

    def __init__(self, d: int) -> None:
        self.shape = (d,)

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        x = (1 + sigma) * torch.tan(math.pi * (noise.uniform(self.shape).double() - 0.5 + 1e-9))
        return x.to(noise.dtype)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        width = 1 + sigma
        return -(math.pi * width * (1 + (x.cpu().double() / width).square())).log().sum(1)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        raise NotImplementedError

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Initialization:
        raise NotImplementedError


# The map.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_layers_are_inverted_and_their_determinant_is_that_of_the_jacobian(kind: Any, d: int) -> None:
    couplings = rugged(Couplings(d, 2, kind, 3, (8, 8)))
    y, context = 2 * random(6, d), random(6, 2, seed=1)
    moved, log_det = couplings(y, context)
    assert (moved - y).abs().mean() > 0.1
    torch.testing.assert_close(couplings.inverse(moved, context), y, rtol=1e-9, atol=1e-9)
    for i in range(6):

        def at(row: Tensor, i: int = i) -> Tensor:
            return couplings(row[None], context[i : i + 1])[0][0]  # type: ignore[no-any-return]

        jacobian: Any = torch.autograd.functional.jacobian(at, y[i])  # type: ignore[no-untyped-call]
        torch.testing.assert_close(torch.linalg.slogdet(jacobian)[1], log_det[i], rtol=1e-9, atol=1e-9)
        # Two layers reach every coordinate, three mix them.
        assert (jacobian.diag() - 1).abs().min() > 1e-6
        assert d == 1 or ((jacobian - torch.diag(jacobian.diag())) != 0).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m", [2, 5])
def test_the_log_density_is_the_bases_plus_the_determinant_of_the_whole_map(kind: Any, m: int) -> None:
    """In the data's own coordinates, and so with the frame and its scales."""
    start, x = flow(kind, 5, m), 2 * random(4, 5, seed=9)
    label = None

    def origin(row: Tensor) -> Tensor:
        return start._moved(row[None], torch.tensor([0.8], dtype=Double), label, inverse=False)[0][0]

    for row, log_prob in zip(x, start.log_prob(x, 0.8), strict=True):
        jacobian: Any = torch.autograd.functional.jacobian(origin, row)  # type: ignore[no-untyped-call]
        expected = start.base.log_prob(origin(row)[None], 0.8)[0] + torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(log_prob, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_the_density_integrates_to_one(kind: Any, sigma: float) -> None:
    start = flow(kind)
    edge = 2 + BOUND * math.sqrt(2 + sigma**2)
    line = torch.linspace(-edge, edge, 351, dtype=Double)
    density = start.log_prob(torch.cartesian_prod(line, line), sigma).exp()
    assert float(density.sum()) * (edge / 175) ** 2 == pytest.approx(1, abs=1e-4)
    assert (density - start.base.log_prob(torch.cartesian_prod(line, line), sigma).exp()).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_samples_follow_the_density(kind: Any) -> None:
    """Means of waves over samples, against their integrals by the trapezoid rule."""
    start, n = flow(kind), 4000
    x = start.sample(Noise(range(n), dtype=Double), 0.7)
    line = torch.linspace(-10, 10, 251, dtype=Double)
    grid = torch.cartesian_prod(line, line)
    density = start.log_prob(grid, 0.7).exp() * 0.08**2
    for frequency in torch.tensor([[0.3, 0.0], [0.0, 0.5], [1.0, -1.0], [0.7, 1.5]], dtype=Double):
        for wave in (torch.cos, torch.sin):
            values = wave(x @ frequency)
            error = float(values.mean() - density @ wave(grid @ frequency))
            assert abs(error) < 4 * float(values.std()) / math.sqrt(n)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("m", [2, 5])
def test_a_sample_is_the_bases_sample_moved(kind: Any, m: int) -> None:
    """Every direction that the flow does not act on is left as it is."""
    start = flow(kind, 5, m)
    x, origin = (s.sample(Noise(range(6), dtype=Double), 0.9) for s in (start, start.base))
    back = start._moved(x, torch.full((6,), 0.9, dtype=Double), None, inverse=False)[0]
    torch.testing.assert_close(back, origin, rtol=1e-9, atol=1e-9)
    assert (x - origin).norm(dim=1).min() > 0.01
    rest = torch.eye(5, dtype=Double) - start.frame.basis @ start.frame.basis.T
    torch.testing.assert_close(x @ rest, origin @ rest, rtol=1e-9, atol=1e-9)


def test_the_density_can_be_differentiated() -> None:
    start, x, step = flow(), random(5, 2, seed=9), 1e-6
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(start.log_prob(x, 0.8).sum(), x)
    for i in range(2):
        move = step * torch.eye(2, dtype=Double)[i]
        slope = (start.log_prob(x + move, 0.8) - start.log_prob(x - move, 0.8)) / (2 * step)
        torch.testing.assert_close(gradient[:, i], slope, rtol=1e-5, atol=1e-6)


# The base.


@pytest.mark.parametrize("kind", KINDS)
def test_an_untrained_flow_is_its_base(kind: Any) -> None:
    """To single precision, in which the layers work."""
    base = Gaussian.fit(2 * random(50, 6, seed=1) + 3)
    frame = Subspace(
        base.subspace.mean, base.subspace.basis[:, :4], base.subspace.variances[:4], base.subspace.residual
    )
    start, x = Flow(base, frame, Couplings(4, 1, kind), LEVELS), 3 * random(40, 6, seed=2) + 3
    for sigma in (0.3, 1.0, 6.0):
        torch.testing.assert_close(start.log_prob(x, sigma), base.log_prob(x, sigma), rtol=0.0, atol=3e-5)
        drawn, expected = (s.sample(Noise(range(40)), sigma) for s in (start, base))
        torch.testing.assert_close(drawn, expected, rtol=0.0, atol=3e-5)


def test_the_tails_are_the_bases() -> None:
    """Beyond the splines' box in every coordinate, density and samples are the base's to the last bit."""
    start = flow(base=Heavy(2))
    start.couplings.float()
    sigma, n = 0.5, 4000
    edge = BOUND * (start.frame.variances + sigma**2).sqrt()
    far = start.frame.mean + edge * torch.tensor([[1.01, -1.5], [-40.0, 3.0], [1e3, 1e7], [-1e12, 1.1]]).double()
    assert torch.equal(start.log_prob(far, sigma), start.base.log_prob(far, sigma))
    x, origin = (s.sample(Noise(range(n), dtype=Double), sigma) for s in (start, start.base))
    out = (origin - start.frame.mean).abs() > 1.001 * edge
    assert out.all(dim=1).sum() > 20
    assert torch.equal(x[out], origin[out])
    assert ((x != origin) & ~out).sum() > n / 4


def test_a_heavy_tailed_flow_is_a_law_all_the_same() -> None:
    """In one dimension, by quadrature in the angle of its Cauchy base."""
    start = flow(d=1, base=Heavy(1))
    angle = (torch.arange(40000, dtype=Double) + 0.5) / 40000 - 0.5
    x = torch.tan(math.pi * angle)[:, None]
    weights = math.pi * (1 + x[:, 0].square()) / 40000
    assert float(start.log_prob(x, 0.5).exp() @ weights) == pytest.approx(1, abs=1e-3)


# Training.


def gap(start: Initialization, sigma: float, n: int = 4000) -> float:
    """KL from the 25 modes, noised, by fresh samples: nats."""
    target, seeds = gmm25(), range(10**6, 10**6 + n)
    x = target.sample(Noise(seeds)).double() + sigma * random(n, 2, seed=5)
    return float((target.log_prob(x, sigma) - start.log_prob(x, sigma)).mean())


def test_training_comes_near_the_exact_law_at_every_level() -> None:
    """25 modes, noised: a fit that is right has the exact law's NLL. The Gaussian's gaps are 0.15, 0.09 and 0.04."""
    data = gmm25().sample(Noise(range(3000)))
    options = Training(epochs=20, batch_size=256, learning_rate=1e-2, levels=4)
    start = Flow.fit(data, transforms=3, hidden=(32, 32), sigmas=(0.5, 2.0), training=options)
    assert start.record is not None
    assert start.record.gain == start.gain > 0.03
    for sigma, share in ((0.5, 0.3), (0.7, 0.3), (1.0, 0.3)):
        assert -0.005 < gap(start, sigma) < share * gap(start.base, sigma)


def test_affine_couplings_bend_a_base_that_is_straight() -> None:
    """A parabola, of which a Gaussian knows nothing but its width."""
    z = random(2000, 2)
    data = torch.stack([z[:, 0], z[:, 0].square() + 0.3 * z[:, 1]], 1)
    options = Training(epochs=15, learning_rate=2e-2, levels=2)
    start = Flow.fit(data, kind="affine", transforms=2, hidden=(32,), sigmas=(0.3, 1.0), training=options)
    x = data + 0.3 * random(2000, 2, seed=8)
    assert float((start.log_prob(x, 0.3) - start.base.log_prob(x, 0.3)).mean()) > 0.3


def test_fixed_noise_overfits_few_points_and_dynamic_noise_hardly() -> None:
    data = gmm25().sample(Noise(range(120)))
    gaps = {}
    for noise in ("dynamic", "fixed"):
        options = Training(
            epochs=40, batch_size=60, learning_rate=2e-2, decay="constant", noise=noise, held_out=0.5, patience=99
        )
        record = Flow.fit(data, transforms=3, hidden=(48,), sigmas=(1.0, 1.0), training=options).record
        assert record is not None
        gaps[noise] = record.held_out[-1] - record.train[-1]
    assert gaps["fixed"] > 0.5 + gaps["dynamic"]


def test_a_flow_that_does_no_better_than_its_base_is_its_base() -> None:
    """Data that are Gaussian, and steps that are too large."""
    options = Training(epochs=3, batch_size=32, learning_rate=0.3, decay="constant", ema=0.0)
    start = Flow.fit(random(200, 2), sigmas=LEVELS, training=options, **SMALL)
    assert start.gain == 0
    assert "gain 0 nats" in repr(start)
    x = random(20, 2, seed=4)
    torch.testing.assert_close(start.log_prob(x, 1.0), start.base.log_prob(x, 1.0), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(("family", "k"), [("gaussian", 3), ("mixture of 2", 3), ("mixture of 4", 4)])
def test_training_in_the_leading_coordinates_is_training_in_all(family: str, k: int) -> None:
    """The two likelihoods differ by what the weights do not enter; a mixture of more directions keeps them."""
    data = random(200, 6, seed=1) @ random(6, 6, seed=2)
    base = Gaussian.fit(data, 5) if family == "gaussian" else Mixture.fit(data, 4, int(family[-1]))
    space = base.subspace
    frame = Subspace(space.mean + 0.1, space.basis[:, :3], space.variances[:3], space.residual)
    plain, moving = (Flow(base, frame, c, LEVELS) for c in (Couplings(3, 1).double(), rugged(Couplings(3, 1))))
    (plain_leading, _), (leading, points) = plain._trained_on(data), moving._trained_on(data)
    torch.testing.assert_close(points.double(), (data - space.mean) @ space.basis[:, :k], rtol=1e-5, atol=1e-5)
    x = data + 0.6 * random(200, 6, seed=3)
    z = (x - space.mean) @ space.basis[:, :k]
    torch.testing.assert_close(
        moving.log_prob(x, 0.6) - plain.log_prob(x, 0.6),
        leading.log_prob(z, 0.6) - plain_leading.log_prob(z, 0.6),
        rtol=1e-8,
        atol=1e-8,
    )


def test_a_base_that_ties_the_leading_coordinates_to_all_others_is_trained_in_all() -> None:
    data = random(150, 5, seed=1) @ random(5, 5, seed=2)
    start = Flow.fit(data, Diagonal.fit(data), 2, sigmas=LEVELS, training=QUICK, **SMALL)
    assert start._trained_on(data)[0] is start
    assert start.record is not None
    assert start.record.held_out[0] > 5  # NLL of five coordinates, not of two


def test_levels_of_a_batch_may_differ() -> None:
    """As in training: densities at many levels at once are those at each level."""
    start, x = flow(), random(7, 2, seed=9)
    sigma = torch.tensor([0.5, 2.0, 0.5, 1.0, 2.0, 0.5, 6.0], dtype=Double)
    alone = torch.cat([start.log_prob(row[None], float(s)) for row, s in zip(x, sigma, strict=True)])
    torch.testing.assert_close(start._densities(x, sigma, Conditions({}, len(x))), alone, rtol=1e-12, atol=1e-12)


def test_extreme_values_do_not_move_the_splines_box() -> None:
    data = random(500, 3)
    wild = torch.cat([data, 1e9 * random(5, 3, seed=3)])
    frames = [Flow.fit(x, Isotropic((3,)), sigmas=LEVELS, training=QUICK, **SMALL).frame for x in (data, wild)]
    for frame in frames:
        torch.testing.assert_close(frame.variances, torch.ones(3, dtype=Double), rtol=0.25, atol=0.0)
        assert frame.mean.abs().max() < 0.2


# Seeds and states.


def test_a_fit_is_decided_by_its_seed() -> None:
    data, x = random(200, 3) ** 3, random(9, 3, seed=1)
    densities = []
    for seed, other in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(other)
        before = torch.get_rng_state()
        start = Flow.fit(data, sigmas=LEVELS, training=QUICK, seed=seed, **SMALL)
        assert torch.equal(torch.get_rng_state(), before)
        densities.append(start.log_prob(x, 0.5))
    assert torch.equal(densities[0], densities[1])
    assert not torch.equal(densities[0], densities[2])


def test_a_sample_depends_on_its_own_seed_alone() -> None:
    start = flow(d=4)
    batch, alone = start.sample(Noise([5, 0, 7]), 1.0), start.sample(Noise([7]), 1.0)
    assert torch.equal(start.sample(Noise([5, 0, 7]), 1.0), batch)
    torch.testing.assert_close(batch[2:], alone, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_flow_is_the_same_flow(kind: Any) -> None:
    """Through JSON and the bytes of a safetensors file, without any training."""
    data, labels = random(120, 1, 2, 3) + torch.arange(120)[:, None, None, None] % 3, torch.arange(120) % 3
    for base in (None, Mixture.fit(data, 4, 2, labels=labels)):
        start = Flow.fit(data, base, 4, kind, sigmas=LEVELS, labels=labels, training=QUICK, **SMALL)
        rugged(start.couplings).float()
        values, tensors = start.state()
        blob = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
        again = Flow.from_state(json.loads(json.dumps(values)), safetensors.torch.load(blob))
        assert repr(again) == repr(start)
        assert again.shape == (1, 2, 3)
        for label in (None, torch.tensor([0, 2, 1, 1])):
            x, same = (s.sample(Noise(range(4)), 0.9, label) for s in (start, again))
            assert torch.equal(same, x)
            assert torch.equal(again.log_prob(x, 0.9, label), start.log_prob(x, 0.9, label))


def test_a_damaged_state_is_named() -> None:
    values, tensors = Flow.fit(random(100, 3), sigmas=LEVELS, training=QUICK, **SMALL).state()
    with pytest.raises(InputError, match="unknown base 'magic'"):
        Flow.from_state({**values, "base": {"name": "magic", "values": {}}}, tensors)
    with pytest.raises(InputError, match="do not fit"):
        Flow.from_state({**values, "transforms": 3}, tensors)
    with pytest.raises(InputError, match="unknown kind"):
        Flow.from_state({**values, "kind": "cubic"}, tensors)


# Classes.


@pytest.fixture(scope="module")
def classed() -> Flow:
    """Class 3 to the left, two thirds of the data, and class 8 to the right."""
    labels = torch.tensor([3, 8, 3]).repeat(300)
    data = 0.4 * random(900, 2) + torch.where(labels == 3, -1.5, 1.5)[:, None].double()
    options = Training(epochs=40, batch_size=128, learning_rate=1e-2, levels=4)
    return Flow.fit(data, transforms=2, hidden=(32,), sigmas=(0.3, 1.0), labels=labels, training=options)


def test_a_class_has_a_law_of_its_own(classed: Flow) -> None:
    """Far nearer the truth, N(-1.5, 0.4^2 + sigma^2), than the law of all."""
    x = 0.5 * random(500, 2, seed=4) - 1.5
    own, other = (classed.log_prob(x, 0.3, torch.full((500,), c)).mean() for c in (3, 8))
    truth = Isotropic((2,)).log_prob(x + 1.5, 0.5).mean()
    assert truth - own < 0.2
    assert own - other > 3
    drawn = classed.sample(Noise(range(500)), 0.3, torch.full((500,), 8))
    torch.testing.assert_close(drawn.mean(0), torch.full((2,), 1.5), rtol=0.0, atol=0.15)


def test_without_a_class_the_classes_are_mixed_as_in_the_data(classed: Flow) -> None:
    x = 2 * random(50, 2, seed=4)
    each = [classed.log_prob(x, 0.5, torch.full((50,), c)).exp() for c in (3, 8)]
    torch.testing.assert_close(classed.log_prob(x, 0.5).exp(), 2 / 3 * each[0] + 1 / 3 * each[1])
    drawn = classed.sample(Noise(range(3000)), 0.3)
    assert float((drawn.sum(1) < 0).double().mean()) == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / 3000) + 0.01)


def test_labels_of_a_batch_go_with_its_samples(classed: Flow) -> None:
    labels, x = torch.tensor([3, 8, 8, 3]), random(4, 2)
    mixed = classed.sample(Noise(range(4)), 0.5, labels)
    for c in (3, 8):
        one = classed.sample(Noise(range(4)), 0.5, torch.full((4,), c))
        torch.testing.assert_close(mixed[labels == c], one[labels == c], rtol=0.0, atol=1e-5)
    alone = [classed.log_prob(x[i : i + 1], 0.5, labels[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(classed.log_prob(x, 0.5, labels), torch.cat(alone), rtol=0.0, atol=1e-5)


def test_an_unknown_class_is_named(classed: Flow) -> None:
    labels = torch.tensor([3, 8, 5])
    with pytest.raises(InputError, match=r"\[3, 8\]"):
        classed.sample(Noise(range(3)), 0.5, labels)
    with pytest.raises(InputError, match=r"\[3, 8\]"):
        classed.log_prob(random(3, 2), 0.5, labels)


def test_a_flow_without_classes_hands_them_to_its_base() -> None:
    labels = torch.arange(200) % 2
    data = random(200, 2) + 4 * labels[:, None]
    base = Mixture.fit(data, 2, labels=labels)
    start, x = Flow.fit(data, base, sigmas=LEVELS, training=QUICK, **SMALL), random(1, 2)
    difference = [
        float(s.log_prob(x, 0.5, torch.tensor([0])) - s.log_prob(x, 0.5, torch.tensor([1]))) for s in (start, base)
    ]
    assert difference == pytest.approx([difference[1]] * 2, rel=0.2)
    assert difference[1] > 3


# Bad input.


@pytest.mark.parametrize("sigma", [0.29, 6.01])
def test_a_level_that_the_flow_was_not_trained_for_is_named(sigma: float) -> None:
    start = flow()
    for call in (lambda: start.sample(Noise([0]), sigma), lambda: start.log_prob(random(1, 2), sigma)):
        with pytest.raises(InputError, match=r"from 0\.3 to 6: got"):
            call()
    for level in LEVELS:
        start.sample(Noise([0]), level)


def test_what_does_not_fit_is_named() -> None:
    data = random(50, 3)
    for bad, said in (
        ({"dimensions": 0}, "1 dimension"),
        ({"transforms": 0}, "1 transform"),
        ({"hidden": (8, 0)}, "hidden"),
        ({"kind": "cubic"}, "unknown kind of coupling 'cubic'"),
        ({"labels": torch.zeros(3)}, "labels"),
        ({"base": Isotropic((4,))}, "base"),
        ({"base": Empirical(data)}, "base with a density"),
        ({"sigmas": (3.0, 1.0)}, "lowest first"),
    ):
        with pytest.raises(InputError, match=said):
            Flow.fit(data, **{"sigmas": LEVELS, "training": QUICK, **bad})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="levels"):
        Flow.fit(torch.ones(20, 3), training=QUICK)  # no level is a multiple of a width of 0
    data[2, 1] = math.nan
    with pytest.raises(DataError, match="NaN"):
        Flow.fit(data, training=QUICK)


@pytest.mark.parametrize("d", [1, 2])
def test_little_data_give_a_flow(d: int) -> None:
    for data in (random(2, d), random(3, d).repeat(5, 1)):
        start = Flow.fit(data, sigmas=LEVELS, training=replace(QUICK, epochs=1), **SMALL)
        assert torch.isfinite(start.log_prob(start.sample(Noise(range(4)), 1.0), 1.0)).all()


def test_a_missing_zuko_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "zuko"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[flows\]'"):
        Couplings(2, 1)


def test_the_first_weights_of_the_last_layers_are_zero_and_others_are_not() -> None:
    """The identity with a gradient: all else would not move."""
    couplings = Couplings(4, 1, seed=3)
    zeros = [bool((weight == 0).all()) for name, weight in couplings.named_parameters() if name.endswith("weight")]
    assert zeros == [False, False, True] * 5
