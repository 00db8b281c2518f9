"""Numbers, times and lists as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["duration", "listed", "number"]


def number(value: float | str | None, digits: int = 3, *, padded: bool = False) -> str:
    """A number as a person reads it: ``digits`` significant ones, whole ones above; "-" for none.

    Arguments:
        value: the number; text stays as it is.
        digits: significant digits.
        padded: keep the zeros at the end, for columns.

    >>> number(5.0712), number(1234.5), number(0.02), number(0.02, padded=True), number(None)
    ('5.07', '1,234', '0.02', '0.0200', '-')
    """
    if value is None or isinstance(value, str):
        return value or "-"
    if abs(value) >= 10**digits - 0.5:
        return f"{value:,.0f}"
    return f"{value:#.{digits}g}".rstrip(".") if padded else f"{value:.{digits}g}"


def listed(names: Sequence[str]) -> str:
    """Names as a person lists them."""
    *most, last = names or ["none"]
    return f"{', '.join(most)} and {last}" if most else last


def duration(seconds: float) -> str:
    """A time as a person says it."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
