"""The laws, data and networks that the tests of choosing a plan share."""

from __future__ import annotations

import torch

from headstart import Noise
from headstart.denoiser import Counted, expand
from headstart.targets import gmm25

TARGET = gmm25()
DATA = TARGET.sample(Noise(range(1000)))
FAST = {"initialization": "gaussian", "pilot_samples": 16}

#: Evaluations that every plan takes beside the samples of its novelty test: the start's cost, on 64 samples.
SETTLED = 64

CHI2 = gmm25(weights="chi2")
CHI2_DATA = CHI2.sample(Noise(range(15_000)))

CLASSES = torch.tensor([[-20.0, 0.0], [20.0, 5.0]])


def evaluations(plan, **conditions):
    counted = Counted(TARGET)
    plan.sample(counted, 2, **conditions)
    assert counted.samples == 2 * counted.calls
    return counted.calls


def needs_label(x, sigma, label):
    """Two classes, N(centre, I) each, for a network that knows nothing without its label."""
    assert label.shape == (len(x),)
    s2 = expand(sigma, x) ** 2
    return (x + s2 * CLASSES.to(x)[label]) / (1 + s2)


def untimed(plan):
    """What a plan says of itself, without what was timed."""
    return plan.to_dict() | {"fit_seconds": 0.0, "start_cost": 0.0}
