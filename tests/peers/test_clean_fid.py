"""Equality with clean-fid, on features: the Fréchet distance, and the kernel distance of one block."""

import importlib
import importlib.util
import sys
from unittest import mock

import pytest
import torch

from headstart.metrics import frechet_distance
from headstart.metrics.kernel import unbiased


@pytest.fixture(scope="module")
def peer():
    """The module of clean-fid's distances. It imports torchvision, for images alone: a stand-in takes its place."""
    if importlib.util.find_spec("cleanfid") is None:
        pytest.skip("clean-fid is not installed (extra: peers)")
    before = {name for name in sys.modules if name.startswith("cleanfid")}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("torchvision", "torchvision.transforms"):
            patch.setitem(sys.modules, name, mock.MagicMock())
        yield importlib.import_module("cleanfid.fid")
        for name in [name for name in sys.modules if name.startswith("cleanfid") and name not in before]:
            del sys.modules[name]


def features(seed, n=400, d=12):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mix + 0.2 * seed


def moments(x):
    return x.mean(0).numpy(), x.T.cov().numpy()


def test_frechet_distance(peer):
    a, b = features(0), features(1)
    assert frechet_distance(a, b) == pytest.approx(peer.frechet_distance(*moments(a), *moments(b)), rel=1e-9)


def test_kernel_distance(peer):
    a, b = features(0), features(1)
    theirs = peer.kernel_distance(a.numpy(), b.numpy(), num_subsets=1, max_subset_size=400)
    assert unbiased(a, b) == pytest.approx(theirs, rel=1e-9)
