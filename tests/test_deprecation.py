"""Old names and keywords: they still work, and say what to use instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from headstart.compute import Compute
from headstart.deprecation import gathered, keywords, renamed


@gathered(compute=Compute)
def work(n: int, *, compute: Compute | None = None) -> Any:
    """Work."""
    return n, compute


@gathered(compute=Compute)
def part(n: int, compute: Compute | None = None, *, batch_size: int = 1) -> Any:
    return n, compute, batch_size


def test_old_keywords_are_gathered_into_one_value() -> None:
    with pytest.warns(DeprecationWarning, match=r"batch_size= of work\(\) is now compute=Compute\(batch_size=\.\.\.\)"):
        assert work(3, batch_size=5) == (3, Compute(batch_size=5))
    with pytest.warns(DeprecationWarning, match="progress="):
        assert work(3, progress=None) == (3, Compute())


def test_new_keywords_pass_as_they_are(recwarn: pytest.WarningsRecorder) -> None:
    assert work(3) == (3, None)
    assert work(3, compute=Compute(batch_size=2)) == (3, Compute(batch_size=2))
    assert part(3, batch_size=7) == (3, None, 7)
    assert not recwarn
    assert work.__doc__ == "Work."


@dataclass(frozen=True)
class Recipe:
    """Two numbers, of which a Compute has one too."""

    batch_size: int = 16
    rate: float = 0.5


@gathered(compute=Compute, recipe=Recipe)
def learn(n: int, *, recipe: Recipe | None = None, compute: Compute | None = None) -> Any:
    return n, recipe, compute


def test_a_keyword_of_two_values_goes_into_both(recwarn: pytest.WarningsRecorder) -> None:
    assert learn(1, batch_size=8, rate=2.0) == (1, Recipe(8, 2.0), Compute(batch_size=8))
    assert learn(1, rate=2.0, compute=Compute()) == (1, Recipe(rate=2.0), Compute())
    assert {warning.filename for warning in recwarn} == {__file__}
    with pytest.raises(TypeError, match="one Recipe"):
        learn(1, recipe=Recipe(), batch_size=8)


def test_both_at_once_are_refused() -> None:
    with pytest.raises(TypeError, match="hand them in as one Compute"):
        work(3, compute=Compute(), batch_size=5)
    with pytest.raises(TypeError, match="hand them in as one Compute"):
        part(3, Compute(), device="cpu")
    with pytest.raises(TypeError, match="unexpected keyword"):
        work(3, size=5)


def test_a_name_that_was_never_there_is_not_found() -> None:
    find = renamed("headstart.somewhere", {"old": "headstart.compute:Compute"})
    with pytest.warns(DeprecationWarning, match=r"headstart\.somewhere\.old is now headstart\.compute\.Compute"):
        assert find("old") is Compute
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        find("other")


@keywords(own="n_samples")
def draw(seed: int, n_samples: int = 3) -> Any:
    return seed, n_samples


def test_a_keyword_is_taken_by_its_old_name() -> None:
    with pytest.warns(DeprecationWarning, match=r"own= of draw\(\) is now n_samples="):
        assert draw(1, own=5) == (1, 5)
    assert draw(1, n_samples=4) == (1, 4)
    with pytest.raises(TypeError, match="one keyword"):
        draw(1, own=5, n_samples=4)
