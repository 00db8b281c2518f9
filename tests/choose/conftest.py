"""The profiles that the tests of choosing a plan share."""

from __future__ import annotations

import pytest

from headstart import Profile
from headstart.choose import hold_out
from tests.choose.cases import CHI2, CHI2_DATA, DATA, TARGET


@pytest.fixture(scope="session")
def profile():
    return Profile.measure(TARGET, DATA[hold_out(DATA)[1]])


@pytest.fixture(scope="session")
def chi2_profile():
    """Of the law of method.md 8.3, on enough samples for its divergences of hundredths of a nat."""
    held_out = CHI2_DATA[hold_out(CHI2_DATA)[1]]
    return Profile.measure(CHI2, held_out, samples=3000, cost_samples=1000, batch_size=3000)
