"""Without data, samples of the network that it does not stand by are left out; far ones of its law stay."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from headstart.choose.data import split_of
from headstart.compute import Compute
from headstart.conditions import Split
from headstart.denoiser import expand
from headstart.errors import InputError
from headstart.targets import Gaussian, ProductT

ONE = Gaussian([0.0, 0.0], 1.0)


def strayed(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
    """The denoiser of N(0, I), which at the last levels answers far out where the first coordinate is above 2.5."""
    far = (expand(sigma, x) < 0.02) & (x[:, :1] > 2.5)
    return torch.where(far, 12.0 * x, ONE(x, sigma))


def own(network: Any, labels: Tensor | None = None, **conditions: Tensor) -> tuple[Split, str]:
    return split_of(network, None, labels, conditions, (2,), 3000, None, 0, Compute(batch_size=1000))


def test_samples_that_the_network_denoises_to_elsewhere_are_left_out() -> None:
    split, source = own(strayed)
    samples = split.whole.samples
    left = 3000 - len(samples)
    assert 5 <= left <= 40, "of 3,000 normal numbers 19 are above 2.5"
    assert f"{left} far out, which it denoises to elsewhere, are left out" in source
    assert float(samples.abs().max()) < 6


def test_what_goes_with_samples_that_are_left_out_goes_with_them() -> None:
    rows = torch.arange(3000)
    alone, _ = own(strayed)
    split, _ = own(strayed, rows % 2, row=rows.float()[:, None])
    assert torch.equal(split.whole.samples, alone.whole.samples)
    kept = split.whole.conditions["row"][:, 0].long()
    assert split.whole.label is not None
    assert torch.equal(split.whole.label, kept % 2)
    assert len(kept.unique()) == len(split.whole) < 3000


@pytest.mark.parametrize("shape", [("a",), (0,), (2, 1.5)])
def test_a_shape_that_is_none_is_refused(shape: Any) -> None:
    with pytest.raises(InputError, match="whole numbers of at least 1"):
        split_of(ONE, None, None, None, shape, None, None, 0, Compute())


def test_no_sample_of_a_law_is_left_out_however_heavy_its_tails() -> None:
    for law in (ONE, ProductT(3.0, 0.5, [0.0, 0.0])):
        split, source = own(law)
        assert len(split.whole) == 3000
        assert "left out" not in source
