"""The autoregressive flow: its Jacobian, its order, its inverse, what it learns, and what it says to bad input."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from headstart.errors import DataError, InputError
from headstart.initialization import patch_flow
from headstart.initialization.autoregressive import Autoregressive
from headstart.initialization.patch_flow import LIMIT, Block, Layer, PatchFlow
from headstart.initialization.training import Training
from headstart.noise import Noise

Double = torch.float64
SIGMAS = (0.2, 5.0)

SHAPES = {"image": ((2, 4, 6), 2), "flat": ((6,), 2), "numbers": ((5,), 1), "one patch": ((1, 2, 2), 2)}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=Double)


def untrained(shape: tuple[int, ...] = (1, 4, 4), patch: int = 2, **sizes: int) -> PatchFlow:
    """A small flow in float64."""
    sizes = {"channels": 8, "heads": 2, "layers": 2, "blocks": 2, **sizes}
    flow = PatchFlow(shape, 0.7, SIGMAS, patch=patch, **sizes).double().eval()
    flow.mean.copy_(random(*shape, seed=9))
    return flow.requires_grad_(False)


def odd(shape: tuple[int, ...] = (1, 4, 4), patch: int = 2, **sizes: int) -> PatchFlow:
    """One whose weights have all been moved, so that it is far from Gaussian."""
    flow = untrained(shape, patch, **sizes)
    for seed, parameter in enumerate(flow.parameters()):
        parameter += 0.25 * random(*parameter.shape, seed=seed)
    return flow


def levels(count: int, sigma: float = 0.6) -> Tensor:
    return torch.full((count,), sigma, dtype=Double)


def start_of(shape: tuple[int, ...] = (1, 4, 4), patch: int = 2, labels: tuple[int, ...] = (), **sizes: int) -> Any:
    return Autoregressive(odd(shape, patch, classes=len(labels), **sizes).float(), labels)


# Densities.


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_log_determinant_is_that_of_the_jacobian(kind: str, blocks: int) -> None:
    shape, patch = SHAPES[kind]
    flow = odd(shape, patch, blocks=blocks, classes=3)
    for label in (None, torch.tensor([2])):
        x = 1.5 * random(1, *shape)
        jacobian = torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
            lambda y, label=label: flow.standardise(y, levels(1), label)[0][0], x
        )
        expected = torch.linalg.slogdet(jacobian.reshape(math.prod(shape), -1)).logabsdet
        z, log_det = flow.standardise(x, levels(1), label)
        torch.testing.assert_close(log_det[0], expected, rtol=1e-10, atol=1e-10)
        normal = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)
        torch.testing.assert_close(flow(x, levels(1), label), normal + log_det, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("sigma", [0.2, 1.0])
def test_densities_integrate_to_one(d: int, sigma: float) -> None:
    """By the trapezoid rule on x = sinh(w), because an affine flow has heavy tails."""
    flow, step = odd((d,), 1, layers=1, classes=2), 0.07
    line = torch.arange(-7, 7, step, dtype=Double)
    grid = torch.cartesian_prod(*[line] * d).reshape(-1, d)
    for label in (None, torch.ones(len(grid), dtype=torch.long)):
        log_prob = flow(grid.sinh(), levels(len(grid), sigma), label) + grid.cosh().log().sum(1)
        assert float(log_prob.exp().sum() * step**d) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("sigma", [0.2, 5.0])
def test_an_untrained_flow_is_the_whitened_gaussian(kind: str, sigma: float) -> None:
    shape, patch = SHAPES[kind]
    start, d = Autoregressive(untrained(shape, patch)), math.prod(shape)
    x, scale = 2 * random(7, *shape, seed=3), math.hypot(sigma, 0.7)
    law = MultivariateNormal(start.flow.mean.flatten(), scale**2 * torch.eye(d, dtype=Double))
    expected = law.log_prob(x.flatten(1))  # type: ignore[no-untyped-call]
    torch.testing.assert_close(start.log_prob(x, sigma), expected, rtol=1e-11, atol=1e-11)
    drawn = start.sample(Noise(range(7), dtype=Double), sigma)
    z = Noise(range(7), dtype=Double).normal((d,))
    got = ((drawn - start.flow.mean) / scale).flatten(1)
    torch.testing.assert_close(got.sort(dim=1).values, z.sort(dim=1).values, rtol=1e-11, atol=1e-11)


def test_a_density_has_the_gradient_of_its_differences() -> None:
    start = start_of()
    x = random(2, 1, 4, 4, seed=4).requires_grad_()
    assert start.log_prob(x, 0.6).dtype == Double
    assert torch.autograd.gradcheck(lambda y: start.log_prob(y, 0.6), (x,))


def test_a_density_in_single_precision_is_accurate() -> None:
    start, x = start_of(), 1.5 * random(20, 1, 4, 4, seed=4)
    single, double = start.log_prob(x.float(), 0.6), start.log_prob(x, 0.6)
    assert single.dtype == Double
    torch.testing.assert_close(single, double, rtol=1e-5, atol=1e-4)
    assert start.log_prob(x[:0], 0.6).shape == (0,)


# Order.


def test_a_patch_is_predicted_from_the_patches_before_it_and_from_all_of_them() -> None:
    block = Block(5, 3, 8, layers=2, heads=2).double().requires_grad_(False)
    for seed, parameter in enumerate(block.parameters()):
        parameter += 0.3 * random(*parameter.shape, seed=seed)
    condition = random(1, 8, seed=1)

    def predicted(u: Tensor) -> Tensor:
        return torch.cat(block.predict(u, condition), -1)[0]

    jacobian = torch.autograd.functional.jacobian(predicted, random(1, 5, 3, seed=2))  # type: ignore[no-untyped-call]
    size = jacobian[:, :, 0].abs().amax(dim=(1, 3))
    for t in range(5):
        assert (size[t, t:] == 0).all()
        assert (size[t, :t] > 1e-6).all()


def test_the_order_of_the_patches_is_reversed_between_blocks() -> None:
    """One block leaves the first patch to itself and two do not; of the last patch it is the other way round."""

    def touched(blocks: int) -> Tensor:
        flow = odd((4,), 1, blocks=blocks)
        return (
            torch.autograd.functional.jacobian(  # type: ignore[no-untyped-call]
                lambda x: flow.standardise(x, levels(1))[0][0], random(1, 4, seed=2)
            )[:, 0].abs()
            > 1e-9
        )

    lower = torch.ones(4, 4).tril().bool()
    assert torch.equal(touched(1), lower.flip(0))  # reversed after the block, ready for the next
    assert touched(2).all()


def test_images_are_cut_into_square_patches_row_by_row() -> None:
    flow = untrained((2, 4, 6), 2)
    x = torch.arange(48, dtype=Double).reshape(1, 2, 4, 6)
    patches = flow.cut(x)
    assert patches.shape == (1, 6, 8)
    for row in range(2):
        for column in range(3):
            expected = x[0, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
            assert torch.equal(patches[0, 3 * row + column], expected)
    assert torch.equal(flow.join(patches), x)


# Samples.


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_inversion_undoes_the_flow_both_ways(kind: str, blocks: int) -> None:
    shape, patch = SHAPES[kind]
    flow, label = odd(shape, patch, blocks=blocks, classes=2), torch.tensor([0, 1, 1])
    z = random(3, math.prod(shape), seed=5)
    x = flow.invert(z, levels(3), label)
    assert x.shape == (3, *shape)
    torch.testing.assert_close(flow.standardise(x, levels(3), label)[0], z, rtol=1e-10, atol=1e-10)
    again = flow.invert(flow.standardise(random(3, *shape), levels(3), label)[0], levels(3), label)
    torch.testing.assert_close(again, random(3, *shape), rtol=1e-10, atol=1e-10)


def test_kept_keys_and_values_change_nothing() -> None:
    """u = mu(u) + exp(a(u)) z by iterating the parallel pass: patch t is right after t rounds, all of them after T."""
    block = Block(6, 2, 8, layers=3, heads=2).double().requires_grad_(False)
    for seed, parameter in enumerate(block.parameters()):
        parameter += 0.3 * random(*parameter.shape, seed=seed)
    z, condition = random(4, 6, 2, seed=1), random(4, 8, seed=2)
    u = torch.zeros_like(z)
    for _ in range(6):
        mean, log_scale = block.predict(u, condition)
        u = mean + log_scale.exp() * z
    torch.testing.assert_close(block.invert(z, condition), u, rtol=1e-11, atol=1e-11)


def test_a_new_patch_costs_the_pass_of_one_token() -> None:
    flow, seen = odd((6,), 1, blocks=2, layers=3), []
    for layer in flow.modules():
        if isinstance(layer, Layer):
            layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    flow.invert(random(2, 6), levels(2))
    assert seen == [1] * (6 * 2 * 3)


def test_a_sample_depends_on_its_own_seed_alone() -> None:
    start, seeds = start_of(labels=(3, 8)), [7, 2**32 - 1, 0, 31]
    for labels in (None, torch.tensor([3, 8, 8, 3])):
        together = start.sample(Noise(seeds), 1.0, labels)
        assert torch.equal(together, start.sample(Noise(seeds), 1.0, labels))
        assert together.shape == (4, 1, 4, 4)
        for i, seed in enumerate(seeds):
            alone = start.sample(Noise([seed]), 1.0, None if labels is None else labels[i : i + 1])
            torch.testing.assert_close(alone[0], together[i], rtol=0.0, atol=1e-5)


def test_work_in_parts_is_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    start, labels = start_of(labels=(3, 8)), torch.tensor([3, 8, 8, 3, 8])
    x = random(5, 1, 4, 4)
    whole = start.sample(Noise(range(5), dtype=Double), 1.0, labels), start.log_prob(x, 1.0, labels)
    monkeypatch.setattr(patch_flow, "NUMBERS", 2 * 2 * 4 * 8 * 2)
    assert len(start.flow.parts(5)) == 3
    parts = start.sample(Noise(range(5), dtype=Double), 1.0, labels), start.log_prob(x, 1.0, labels)
    torch.testing.assert_close(parts, whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_type_gives_the_same_starts_to_its_own_digits(dtype: torch.dtype) -> None:
    start = start_of()
    drawn = start.sample(Noise(range(50), dtype=dtype), 2.0)
    assert drawn.dtype == dtype
    double = start.sample(Noise(range(50), dtype=Double), 2.0)
    assert double.dtype == Double
    # Half types round the noise too, and the flow may stretch it.
    atol = 40 * torch.finfo(dtype).eps * float(double.abs().max())
    torch.testing.assert_close(drawn.double(), double, rtol=0.0, atol=atol)


def test_however_large_the_weights_scales_have_a_bound() -> None:
    block = Block(4, 2, 8, layers=1, heads=2).requires_grad_(False)
    block.out.weight.add_(1e6)
    block.out.bias.copy_(1e6 * torch.tensor([1.0, -1.0, 1.0, -1.0]))
    u = 1e3 * random(3, 4, 2).float()
    _, log_scale = block.predict(u, torch.zeros(3, 8))
    assert float(log_scale.abs().max()) == pytest.approx(LIMIT)
    assert torch.isfinite(block.invert(u, torch.zeros(3, 8))).all()


# What it learns.


def chain(d: int, correlation: float = 0.9) -> Tensor:
    """The covariance of a stationary first-order autoregression of unit variance."""
    steps = torch.arange(d, dtype=Double)
    return correlation ** (steps[:, None] - steps).abs()


@pytest.fixture(scope="module")
def learned() -> tuple[Autoregressive, Tensor]:
    """A flow trained on a first-order autoregression in 6 dimensions about 1, and the covariance of that."""
    covariance = chain(6)
    data = 1 + random(4000, 6, seed=7) @ torch.linalg.cholesky(covariance).mT
    start = Autoregressive.fit(
        data,
        patch=1,
        channels=16,
        blocks=1,
        layers=1,
        heads=2,
        sigmas=(0.3, 3.0),
        training=Training(epochs=30, batch_size=250, learning_rate=1e-2, ema=0.95),
    )
    return start, covariance


@pytest.mark.parametrize("sigma", [0.35, 0.7, 2.5])
def test_training_reaches_the_entropy_of_an_autoregression(
    learned: tuple[Autoregressive, Tensor], sigma: float
) -> None:
    """Its NLL on new samples less that of the law itself is KL(p || p_theta), and a chain of Gaussians is in reach."""
    start, covariance = learned
    law = MultivariateNormal(torch.ones(6, dtype=Double), covariance + sigma**2 * torch.eye(6, dtype=Double))
    x = 1 + random(20_000, 6, seed=8) @ torch.linalg.cholesky(law.covariance_matrix).mT
    exact = law.log_prob(x)  # type: ignore[no-untyped-call]
    gap = float((exact - start.log_prob(x, sigma)).mean())
    plain = MultivariateNormal(law.mean, (1 + sigma**2) * torch.eye(6, dtype=Double))
    whitened = float((exact - plain.log_prob(x)).mean())  # type: ignore[no-untyped-call]
    assert -0.005 < gap < 0.03
    assert whitened > 10 * gap


def test_a_trained_flow_draws_what_it_has_learned(learned: tuple[Autoregressive, Tensor]) -> None:
    start, covariance = learned
    x, n = start.sample(Noise(range(4000), dtype=Double), 0.5), 4000
    expected = covariance + 0.25 * torch.eye(6, dtype=Double)
    assert (x.mean(0) - 1).abs().max() < 5 * math.sqrt(1.25 / n) + 0.05
    assert (torch.cov(x.mT) - expected).abs().max() < 5 * 1.25 * math.sqrt(2 / n) + 0.05


def test_training_is_recorded_and_repeats_itself() -> None:
    data = random(60, 4, seed=1)
    options = Training(epochs=2, batch_size=16)
    sizes = {"patch": 2, "channels": 8, "blocks": 1, "layers": 1, "heads": 2}
    first, second, other = (
        Autoregressive.fit(data, **sizes, training=options, seed=seed)  # type: ignore[arg-type]
        for seed in (0, 0, 1)
    )
    assert first.record is not None
    assert len(first.record.train) == 2
    kept, same, different = (start.state()[1] for start in (first, second, other))
    assert all(torch.equal(kept[name], same[name]) for name in kept)
    assert not all(torch.equal(kept[name], different[name]) for name in kept)
    assert not any(parameter.requires_grad for parameter in first.flow.parameters())


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    start = Autoregressive.fit(random(20, 4), patch=2, channels=8, training=Training(epochs=1))
    Autoregressive.from_state(*start.state()).sample(Noise([1]), 1.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_by_default_a_flow_is_for_half_to_twenty_five_standard_deviations_of_the_data() -> None:
    data = 3 * random(50, 4)
    start = Autoregressive.fit(data, patch=2, channels=8, training=Training(epochs=1))
    width = math.sqrt(float(data.var(dim=0).mean()))
    assert start.flow.sigma_data == pytest.approx(width)
    assert start.flow.sigmas == pytest.approx((0.5 * width, 25 * width))
    torch.testing.assert_close(start.flow.mean.double(), data.mean(0), rtol=1e-6, atol=1e-6)


def test_the_papers_flow_is_within_reach() -> None:
    flow = PatchFlow((3, 64, 64), 0.5, (1.0, 10.0), patch=2, channels=128, blocks=1, layers=8)
    assert (flow.length, flow.width) == (1024, 12)
    assert sum(parameter.numel() for parameter in flow.parameters()) == pytest.approx(1.7e6, rel=0.1)


# Classes.


@pytest.fixture(scope="module")
def classed() -> Autoregressive:
    """A flow trained on the classes 3 and 8, which lie about -2 and 2 on the first axis and about 0 on the other."""
    labels = torch.tensor([3, 8]).repeat(500)
    data = 0.3 * random(1000, 2, seed=3)
    data[:, 0] += torch.where(labels == 3, -2.0, 2.0)
    options = Training(epochs=25, batch_size=50, learning_rate=5e-3, ema=0.98)
    return Autoregressive.fit(
        data, patch=1, channels=16, blocks=1, layers=1, heads=2, sigmas=(0.4, 1.0), labels=labels, training=options
    )


def test_classes_are_told_apart(classed: Autoregressive) -> None:
    for label, place in ((3, -2.0), (8, 2.0)):
        labels = torch.full((1000,), label)
        x = classed.sample(Noise(range(1000), dtype=Double), 0.5, labels)
        centre = torch.tensor([place, 0.0], dtype=Double)
        assert (x.mean(0) - centre).abs().max() < 0.1
        assert float(x.std(0).max()) < 1.2 * math.hypot(0.3, 0.5)
        own, other = (classed.log_prob(x, 0.5, torch.full((1000,), c)).mean() for c in (label, 11 - label))
        assert own > other + 10


def test_without_a_label_a_flow_is_for_all_classes_together(classed: Autoregressive) -> None:
    """The flow of one number in one block is a Gaussian there, so the best is that with the moments of all."""
    x = classed.sample(Noise(range(2000), dtype=Double), 0.5)
    assert float(x[:, 0].mean().abs()) < 0.4
    assert float(x[:, 0].std()) == pytest.approx(math.sqrt(4 + 0.34), rel=0.15)


def test_labels_of_a_batch_go_with_its_samples(classed: Autoregressive) -> None:
    labels, x = torch.tensor([3, 8, 8, 3]), random(4, 2)
    mixed = classed.sample(Noise(range(4), dtype=Double), 0.5, labels)
    densities = classed.log_prob(x, 0.5, labels)
    for label in (3, 8):
        one = torch.full((4,), label)
        own = labels == label
        alone = classed.sample(Noise(range(4), dtype=Double), 0.5, one)
        torch.testing.assert_close(mixed[own], alone[own], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(densities[own], classed.log_prob(x, 0.5, one)[own], rtol=1e-11, atol=1e-11)


def test_one_in_ten_loses_its_label_in_training_and_none_after() -> None:
    flow = odd((4,), 2, classes=2)
    x, labels, sigma = random(1, 4).expand(20, 4), torch.ones(20, dtype=torch.long), levels(20)
    with_label, without = flow(x, sigma, labels), flow(x, sigma)
    assert (with_label - without).abs().min() > 1e-3
    lost = torch.arange(20) % 10 == 0
    torch.testing.assert_close(flow.train()(x, sigma, labels), torch.where(lost, without, with_label))


def test_a_flow_without_classes_ignores_labels() -> None:
    start, x = start_of(), random(2, 1, 4, 4)
    assert torch.equal(start.log_prob(x, 1.0, torch.tensor([4, 5])), start.log_prob(x, 1.0))


# States.


@pytest.mark.parametrize("labels", [(), (3, 8)])
def test_a_saved_flow_is_the_same_flow(labels: tuple[int, ...]) -> None:
    """Through JSON and the bytes of a safetensors file."""
    start = start_of(labels=labels)
    values, tensors = start.state()
    blob = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    again = Autoregressive.from_state(json.loads(json.dumps(values)), safetensors.torch.load(blob))
    assert (again.shape, repr(again), again.name, again.tractable) == (start.shape, repr(start), "autoregressive", True)
    kept = again.state()
    assert kept[0] == values
    assert all(torch.equal(kept[1][name], tensors[name]) for name in tensors)
    x = start.sample(Noise(range(3), dtype=Double), 1.0)
    assert torch.equal(again.sample(Noise(range(3), dtype=Double), 1.0), x)
    assert torch.equal(again.log_prob(x, 1.0), start.log_prob(x, 1.0))


def test_weights_of_another_flow_are_named() -> None:
    values, tensors = start_of().state()
    with pytest.raises(InputError, match=r"the weights '.*' have shape"):
        Autoregressive.from_state({**values, "channels": 16}, tensors)
    with pytest.raises(InputError, match="2 classes, and there are 1 labels"):
        Autoregressive(untrained(classes=2), (3,))


def test_a_flow_is_shown_by_what_it_is() -> None:
    assert repr(start_of(labels=(3, 8))) == (
        "Autoregressive(4 patches of shape (1, 2, 2), 2 blocks of 2 layers, 8 channels, classes=2, horizons 0.2 to 5)"
    )
    assert "6 patches of shape (1,)" in repr(Autoregressive(untrained((6,), 1)))


# Bad input.


@pytest.mark.parametrize("sigma", [0.19, 5.1])
def test_a_horizon_that_it_was_not_trained_at_is_named(sigma: float) -> None:
    start = start_of()
    with pytest.raises(InputError, match=rf"horizons from 0\.2 to 5: got {sigma}"):
        start.sample(Noise([0]), sigma)
    with pytest.raises(InputError, match=rf"horizons from 0\.2 to 5: got {sigma}"):
        start.log_prob(random(1, 1, 4, 4), sigma)
    for end in SIGMAS:
        assert torch.isfinite(start.sample(Noise([0]), end)).all()


def test_an_unknown_class_is_named() -> None:
    start, labels = start_of(labels=(3, 8)), torch.tensor([3, 5])
    with pytest.raises(InputError, match=r"\[3, 8\]"):
        start.sample(Noise(range(2)), 1.0, labels)
    with pytest.raises(InputError, match=r"\[3, 8\]"):
        start.log_prob(random(2, 1, 4, 4), 1.0, labels)


@pytest.mark.parametrize(
    ("shape", "change", "said"),
    [
        ((1, 6, 6), {"patch": 4}, r"shape \(1, 6, 6\) cannot be cut into patches of 4"),
        ((1, 8, 6), {"patch": 4}, "cannot be cut"),
        ((6,), {"patch": 4}, r"shape \(6,\) cannot be cut into patches of 4"),
        ((4, 4), {"patch": 2}, r"images \(C, H, W\) or flat data \(d,\): got shape \(4, 4\)"),
        ((4,), {"patch": 0}, "patch must be at least 1: got 0"),
        ((4,), {"blocks": 0}, "blocks must be at least 1"),
        ((4,), {"layers": -1}, "layers must be at least 1"),
        ((4,), {"channels": 6}, "channels must be a multiple of heads: got 6 and 4"),
        ((4,), {"sigmas": (0.0, 1.0)}, "levels must be finite"),
        ((4,), {"sigmas": (2.0, 1.0)}, "the lowest first: got 2 and 1"),
        ((4,), {"sigmas": (1.0, math.inf)}, "levels must be finite"),
        ((4,), {"labels": torch.zeros(3)}, r"labels have shape \(3,\): expected \(20,\)"),
    ],
)
def test_sizes_that_do_not_fit_are_named(shape: tuple[int, ...], change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Autoregressive.fit(random(20, *shape), **change)


def test_data_that_it_cannot_be_fitted_on_are_named() -> None:
    bad = random(9, 4)
    bad[3, 2] = math.nan
    for data in (bad, random(1, 4)):
        with pytest.raises(DataError, match=r"at least two samples in an array \(N, ...\), without NaN or Inf"):
            Autoregressive.fit(data)
    with pytest.raises(DataError, match="all samples are the same"):
        Autoregressive.fit(torch.ones(9, 4))


def test_data_that_do_not_vary_can_still_be_fitted_at_given_levels() -> None:
    start = Autoregressive.fit(torch.ones(9, 4), channels=8, sigmas=(0.5, 2.0), training=Training(epochs=1))
    assert torch.isfinite(start.sample(Noise(range(3)), 1.0)).all()
