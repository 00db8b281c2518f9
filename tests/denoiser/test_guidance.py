"""Guidance in an interval of levels: what is called where, and how it is found inside of what wraps it."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from headstart.denoiser import Counted, denoise, guide, guided_in
from headstart.errors import InputError

X = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))


def network(x, sigma, label=None):
    return x / 2 if label is None else x / 2 + label.reshape(-1, 1)


LABEL = torch.arange(6.0)


def test_outside_the_interval_the_denoiser_is_the_conditional_one_at_one_call():
    counted = Counted(network)
    guided = guide(counted, 3.0, interval=(0.5, 2.0))
    for sigma, calls in ((0.1, 1), (0.5, 2), (1.0, 2), (2.0, 2), (5.0, 1)):
        before = counted.calls
        expected = X / 2 + (3.0 if calls == 2 else 1.0) * LABEL[:, None]
        torch.testing.assert_close(denoise(guided, X, sigma, label=LABEL), expected)
        assert counted.calls - before == calls == guided.evaluations(sigma)


def test_levels_of_a_batch_are_each_their_own():
    guided = guide(network, 3.0, interval=(0.5, 2.0))
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0, 7.0])
    scale = torch.tensor([1.0, 3.0, 3.0, 3.0, 1.0, 1.0])
    torch.testing.assert_close(guided(X, sigma, label=LABEL), X / 2 + (scale * LABEL)[:, None])


def test_guidance_is_found_inside_of_what_wraps_it():
    guided = guide(network, 3.0)
    for wrapped in (guided, Counted(guided), partial(guided, label=LABEL), lambda x, sigma: guided(x, sigma)):
        assert guided_in(wrapped) is guided
    assert guided_in(network) is None


@pytest.mark.parametrize("interval", [(2.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (math.nan, 1.0)])
def test_an_interval_without_levels_is_named(interval):
    with pytest.raises(InputError, match="from a lower to a higher one"):
        guide(network, 2.0, interval=interval)
