"""The bundled classifier knows its classes."""

from __future__ import annotations

import torch

from headstart.data import fashion_mnist
from headstart.models import Classifier, bundled


def test_the_bundled_classifier_is_accurate() -> None:
    model = bundled.classifier()
    data = fashion_mnist("test", bundled=True)
    assert data.labels is not None
    with torch.no_grad():
        hits = model(data.samples[:1000]).argmax(1) == data.labels[:1000]
    assert hits.float().mean() >= 0.88


def test_the_logits_are_linear_in_the_features() -> None:
    model, x = Classifier(classes=7, width=5).eval(), torch.randn(3, 1, 28, 28)
    assert model.features(x).shape == (3, 5)
    torch.testing.assert_close(model(x), model.features(x) @ model.head.weight.T + model.head.bias)
