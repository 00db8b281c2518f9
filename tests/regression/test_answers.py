"""The answers that were written down are the answers of today, up to the rounding of another processor."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.regression.answers import STORED, answers, written


@pytest.mark.slow
def test_no_number_has_changed() -> None:
    known, found = json.loads(STORED.read_text()), answers()
    assert found.keys() == known.keys()
    for name, answer in found.items():
        assert answer["shape"] == known[name]["shape"], name
        scale = known[name]["norm"] / max(1.0, float(np.prod(answer["shape"]))) ** 0.5
        assert answer["norm"] == pytest.approx(known[name]["norm"], rel=1e-3, abs=1e-9), name
        now, before = (np.array(each["values"], dtype=float) for each in (answer, known[name]))
        np.testing.assert_allclose(now, before, rtol=2e-3, atol=2e-3 * scale + 1e-9, err_msg=name)


def test_an_answer_tells_numbers_apart_that_differ_in_the_last_bit() -> None:
    one, other = written([1.0, 2.0]), written([1.0, np.nextafter(2.0, 3.0)])
    assert one["sha256"] != other["sha256"]
    assert one == written(np.array([1.0, 2.0]))
    assert written([[1.0, 2.0]])["shape"] == [1, 2]
