"""Arrays from outside: their numbers are kept whatever their bytes look like, and what would lose some is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from headstart.arrays import LARGEST, as_classes, as_tensor, check_numbers
from headstart.errors import DataError

NUMBERS = np.arange(-6.0, 6.0).reshape(4, 3)

DTYPES = st.one_of(
    arrays.floating_dtypes(endianness="?"), arrays.integer_dtypes(endianness="?"), arrays.boolean_dtypes()
)


@given(array=arrays.arrays(DTYPES, arrays.array_shapes()), turned=st.booleans())
def test_numbers_are_kept_whatever_the_order_of_bytes_and_rows(array: np.ndarray, turned: bool) -> None:
    array = array[::-1].T if turned else array
    found = as_tensor(array, "x")
    assert found.shape == array.shape
    np.testing.assert_array_equal(found.numpy(), array)


def test_types_are_kept_where_pytorch_has_them() -> None:
    for dtype in (np.float16, np.float32, np.float64, np.int16, np.int64, np.uint8, np.bool_):
        assert as_tensor(NUMBERS.astype(dtype), "x").numpy().dtype == dtype
    assert as_tensor(NUMBERS.astype(np.longdouble), "x").dtype == torch.float64
    assert as_tensor(abs(NUMBERS).astype(np.uint16), "x").dtype == torch.int64
    assert as_tensor([[1, 2], [3, 4]], "x").tolist() == [[1, 2], [3, 4]]


def test_an_array_is_copied_and_a_tensor_is_itself() -> None:
    tensor = torch.zeros(3)
    assert as_tensor(tensor, "x") is tensor
    array = np.zeros(3)
    found = as_tensor(array, "x")
    array[:] = 1
    assert found.tolist() == [0, 0, 0]


MASKED = np.ma.masked_array(NUMBERS, NUMBERS > 3)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (MASKED, "2 masked values"),
        ([MASKED[0], MASKED[3]], "2 masked values"),
        (NUMBERS.astype(object), "object values"),
        (np.array(["cat", "dog"]), "values: expected an array of real numbers"),
        (NUMBERS + 1j, "complex128 values"),
        (np.array(["2020-01-01"], dtype="datetime64[D]"), "datetime64"),
        (np.zeros(2, dtype=[("a", float)]), "values: expected an array of real numbers"),
        (np.array([2**64 - 1], dtype=np.uint64), r"below 2\^63"),
        ([[1, 2], [3]], "cannot be made an array"),
        (None, "a NoneType"),
        ("cat", "a str"),
        (torch.eye(3).to_sparse(), "sparse"),
        (torch.zeros(3, device="meta"), "meta"),
    ],
)
def test_what_holds_no_plain_numbers_is_refused(value: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"x .*{said}"):
        as_tensor(value, "x")


def test_a_mask_that_hides_nothing_is_no_matter() -> None:
    assert as_tensor(np.ma.masked_array(NUMBERS, False), "x").tolist() == NUMBERS.tolist()


@pytest.mark.parametrize(
    "value", [[0, 1], np.array([0, 1], ">i8"), np.array([False, True]), torch.tensor([0, 1]).int()]
)
def test_classes_are_whole_numbers(value: Any) -> None:
    classes = as_classes(value, "labels")
    assert classes.dtype == torch.int64
    assert classes.tolist() == [0, 1]


@pytest.mark.parametrize("value", [np.array([0.5]), torch.zeros(2), torch.zeros(2, dtype=torch.complex64), ["a"]])
def test_other_classes_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match="labels"):
        as_classes(value, "labels")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 5000])
def test_numbers_that_are_none_are_counted(dtype: torch.dtype, count: int) -> None:
    x = torch.ones(count, 2, dtype=dtype)
    check_numbers(x, "x")
    x[-1] = torch.tensor([torch.nan, -torch.inf])
    with pytest.raises(DataError, match="x: 2 NaN or infinite"):
        check_numbers(x, "x")


def test_numbers_whose_squares_overflow_are_refused() -> None:
    for sign in (-1, 1):
        check_numbers(torch.tensor([sign * LARGEST]), "x")
        with pytest.raises(DataError, match="too large"):
            check_numbers(torch.tensor([0, sign * 1.01 * LARGEST]), "x")
