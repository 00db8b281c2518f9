"""A choice that sees what the samples are asked for, however a condition is handed over (faults.md, D1)."""

from __future__ import annotations

import pytest
import torch

from headstart import Noise, fit
from headstart.denoiser import expand

CENTRES = torch.tensor([[-3.0, 0.0], [3.0, 0.0]])
EMBEDDING = torch.tensor([[0.3, -1.0, 2.0], [1.7, 0.5, -0.4]])
LABEL = torch.arange(2000) % 2
DATA = CENTRES[LABEL] + 0.3 * Noise(range(2000)).normal((2,))
KINDS = {
    "index": lambda label: label,
    "one-hot": lambda label: torch.nn.functional.one_hot(label, 2).float(),
    "embedding": lambda label: EMBEDDING[label],
}


def exact(x, sigma, c):
    """Two classes, N(centre, 0.09 I) each, for a network that is told the class by its number or by a vector."""
    if c.ndim == 2:
        known = EMBEDDING if c.shape[1] == 3 else torch.eye(2)
        c = torch.cdist(c, known).argmin(dim=1)
    s2 = expand(sigma, x) ** 2
    return (0.09 * x + s2 * CENTRES.to(x)[c]) / (0.09 + s2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nfe", [2, 3])
def test_samples_are_of_the_class_that_they_are_asked_for(kind, nfe):
    plan = fit(exact, DATA, nfe, conditions={"c": KINDS[kind](LABEL)}, pilot_samples=256)
    wanted = torch.arange(1000) % 2
    samples = plan.sample(exact, 1000, c=KINDS[kind](wanted))
    wrong = (samples[:, 0] > 0) != (wanted == 1)
    assert wrong.float().mean() < 0.01
