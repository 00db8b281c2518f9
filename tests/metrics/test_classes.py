"""Scores by class are those of each class alone, and see what the whole hides."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from headstart.errors import DataError
from headstart.metrics import ClassScores, Reference, by_class, evaluate, floor, floor_by_class, references_by_class


def labelled(n: int, seed: int) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 2
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed)) + 4 * labels[:, None], labels


def test_each_class_is_scored_alone_and_their_mean_has_an_error() -> None:
    (real, classes), (fake, labels) = labelled(200, 0), labelled(80, 1)
    references = references_by_class(real, classes, lambda x: x, directions=16)
    found = by_class(fake, labels, references, errors=True)
    for label in (0, 1):
        alone = Reference.of(real[classes == label], lambda x: x, directions=16)
        assert found.each[label] == evaluate(fake[labels == label], alone, errors=True)
    for name in ("frechet", "swd", "max_swd"):
        values = [getattr(one, name) for one in found.each.values()]
        assert found.mean[name] == pytest.approx(sum(values) / 2)
        assert found.errors[name] == pytest.approx(math.hypot(*(one.errors[name] for one in found.each.values())) / 2)
    assert repr(found).startswith("ClassScores(mean of 2 classes: frechet ")
    assert found.to_dict()["each"]["1"]["swd"] == found.each[1].swd


def test_the_floor_of_each_class_is_that_of_as_many_real_samples() -> None:
    (real, classes), (held_out, labels) = labelled(200, 0), labelled(80, 1)
    references = references_by_class(real, classes, directions=16)
    found = floor_by_class(references, held_out, labels, {0: 20, 1: 1000}, seed=3, errors=True)
    assert found.each[0] == floor(references[0], held_out[labels == 0], 20, seed=3, errors=True)
    assert found.each[1] == floor(references[1], held_out[labels == 1], 40, seed=3, errors=True)
    assert found.n == 60
    with pytest.raises(DataError, match=r"no held-out samples of classes \[1\]"):
        floor_by_class(references, held_out[labels == 0], labels[labels == 0], {0: 20, 1: 20})


def test_few_samples_have_no_errors_and_a_search_that_failed_is_told() -> None:
    (real, classes), (fake, labels) = labelled(200, 0), labelled(60, 1)
    few = torch.cat([torch.arange(0, 60, 2), torch.tensor([1, 3])])
    references = references_by_class(real, classes, directions=16)
    found = by_class(fake[few], labels[few], references, errors=True)
    assert set(found.each[0].errors) == {"swd", "max_swd"}
    assert found.each[1].errors == {}
    assert found.errors == {}
    assert found.converged is None
    known = [
        replace(one, converged=converged) for one, converged in zip(found.each.values(), (True, False), strict=True)
    ]
    assert ClassScores.of(dict(enumerate(known))).converged is False
    assert ClassScores.of({0: known[0]}).converged is True


def test_wrong_labels_are_seen_by_class_alone() -> None:
    (real, classes), (fake, labels) = labelled(400, 0), labelled(400, 1)
    references = references_by_class(real, classes, directions=32)
    right, wrong = by_class(fake, labels, references), by_class(fake, 1 - labels, references)
    assert evaluate(fake, Reference.of(real, directions=32)).swd < 0.3
    assert right.mean["swd"] < 0.3
    assert wrong.mean["swd"] == pytest.approx(4, rel=0.1)
    assert right.errors == {}


def test_labels_that_do_not_fit_are_refused() -> None:
    real, classes = labelled(40, 0)
    references = references_by_class(real, classes, directions=4)
    with pytest.raises(DataError, match=r"classes \[0\], the references of \[0, 1\]"):
        by_class(real, torch.zeros(40, dtype=torch.long), references)
    for bad in (classes[:-1], classes.float()):
        with pytest.raises(DataError, match="one whole number each"):
            by_class(real, bad, references)
