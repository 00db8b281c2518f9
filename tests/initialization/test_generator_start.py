"""Generator starts: any code that samples, with noise on top, and the samples of it that a plan can hold."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from headstart.errors import ArtefactError, InputError
from headstart.initialization import Gaussian, Generated, Generator
from headstart.noise import Noise


def two_points(noise: Noise, label: Tensor | None) -> Tensor:
    """(-3, -3) or (3, 3), or by class."""
    sign = torch.where(noise.uniform((1,)) < 0.5, -1.0, 1.0) if label is None else 2.0 * label[:, None] - 1.0
    return 3.0 * sign.expand(-1, 2)


def test_samples_are_the_generators_plus_noise() -> None:
    """Against the same streams by hand: first the generator draws, then the noise."""
    start = Generator((2,), two_points)
    noise = Noise(range(50), dtype=torch.float64)
    expected = two_points(noise, None) + 0.5 * noise.normal((2,))
    torch.testing.assert_close(start.sample(Noise(range(50), dtype=torch.float64), 0.5), expected)


def test_classes_are_handed_on() -> None:
    label = torch.tensor([0, 1, 1, 0])
    x = Generator((2,), two_points).sample(Noise(range(4)), 0.1, label)
    assert torch.equal(x.mean(1) > 0, label == 1)


def test_the_law_is_the_generators_smoothed() -> None:
    """Mean square along the diagonal: 9 from the points, sigma^2 from the noise; none of the noise is shared."""
    n = 20_000
    x = Generator((2,), two_points).sample(Noise(range(n), dtype=torch.float64), 0.7)
    square = x[:, 0].square()
    assert abs(float(square.mean()) - 9.49) < 4.5 * float(square.std()) / math.sqrt(n)
    across = (x[:, 0] - x[:, 1]).square()
    assert abs(float(across.mean()) - 2 * 0.49) < 4.5 * float(across.std()) / math.sqrt(n)


def test_drawn_samples_are_repeatable_and_are_no_oracle() -> None:
    start = Generator((2,), two_points)
    bank, again, other = start.drawn(300, 1), start.drawn(300, 1), start.drawn(300, 2)
    assert torch.equal(bank.data, again.data)
    assert not torch.equal(bank.data, other.data)
    assert (bank.oracle, bank.tractable, repr(bank)) == (False, False, "Generated(300 samples of shape (2,))")
    near = (bank.sample(Noise(range(100)), 1e-6)[:, None] - bank.data).norm(dim=2).min(dim=1).values
    assert near.max() < 1e-4
    values, tensors = bank.state()
    assert torch.equal(Generated.from_state(values, tensors).data, bank.data)


def test_code_is_not_saved() -> None:
    start = Generator((2,), two_points)
    with pytest.raises(ArtefactError, match="drawn"):
        start.state()
    with pytest.raises(ArtefactError, match="code"):
        Generator.from_state({}, {})


def test_there_is_no_density() -> None:
    with pytest.raises(InputError, match="no log density"):
        Generator((2,), two_points).log_prob(torch.zeros(1, 2), 1.0)


@pytest.mark.parametrize("bad", [torch.zeros(3, 3), torch.zeros(2, 2), torch.full((3, 2), math.nan)])
def test_a_generator_that_returns_something_else_is_named(bad: Tensor) -> None:
    with pytest.raises(InputError, match="one finite sample for each stream"):
        Generator((2,), lambda noise, label: bad).sample(Noise(range(3)), 1.0)


def test_another_start_can_be_the_generator() -> None:
    """A Gaussian fitted elsewhere, sampled at a level near 0 and noised, is that Gaussian at the horizon."""
    data = torch.randn(500, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = Gaussian.fit(data)
    start = Generator((3,), lambda noise, label: law.sample(noise, 1e-6))
    x = start.sample(Noise(range(4000), dtype=torch.float64), 2.0)
    expected = torch.cov(data.T) + 4 * torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(torch.cov(x.T), expected, rtol=0.0, atol=0.5)
