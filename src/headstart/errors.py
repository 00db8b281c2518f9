"""The errors that headstart raises: one base, one class for each thing that can be wrong.

A message names what was wrong and what would be right. The command line prints it alone and exits with ``exit_code``.
"""

from __future__ import annotations

__all__ = [
    "ArtefactError",
    "DataError",
    "DenoiserError",
    "HeadstartError",
    "HeadstartWarning",
    "InputError",
    "MissingExtraError",
]


class HeadstartWarning(UserWarning):
    """Something to know that changed no result."""


class HeadstartError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class InputError(HeadstartError, ValueError):
    """An argument is out of its range or does not fit another one."""

    exit_code = 2


class DataError(HeadstartError, ValueError):
    """Data cannot be read, have the wrong shape, or hold NaN or Inf."""

    exit_code = 3


class DenoiserError(HeadstartError, RuntimeError):
    """A denoiser cannot be loaded, or returned the wrong shape, NaN or Inf."""

    exit_code = 4


class ArtefactError(HeadstartError, RuntimeError):
    """A saved plan is missing, damaged or newer than this version, or cannot be written."""

    exit_code = 5


class MissingExtraError(HeadstartError, ImportError):
    """An optional library is not installed."""

    exit_code = 6
