r"""The contract of a denoiser, and how the library calls one.

A network's code is not ours: it may change its input in place, or answer with a buffer that it fills again. It is
therefore handed copies, and copies of its answers are kept, so that it is a function of its input for everyone above.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart.conditions import leaves
from headstart.errors import DenoiserError, HeadstartError, NotFiniteError

__all__ = [
    "Counted",
    "Denoiser",
    "Wrapper",
    "answer",
    "called",
    "cast_input",
    "checked",
    "denoise",
    "expand",
    "is_finite",
]


class Denoiser(Protocol):
    """Anything that can be called as ``denoiser(x, sigma, **conditions)``."""

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor: ...


def expand(sigma: Tensor | float, x: Tensor) -> Tensor:
    """``sigma`` (a scalar or of shape (B,)) as a tensor that multiplies ``x`` (B, \\*S), in x's dtype and device."""
    s = torch.as_tensor(sigma, dtype=x.dtype, device=x.device)
    return s.reshape(-1, *[1] * (x.ndim - 1))


def denoise(denoiser: Denoiser, x: Tensor, sigma: float, /, **conditions: Any) -> Tensor:
    """Call a denoiser with one noise level for the whole batch, and check what it returns.

    Every call that the library makes goes through here or through :func:`answer`, so that a wrong shape, NaN or Inf
    stops where it arises.

    Raises:
        DenoiserError: if the denoiser fails, or what it returns is not a finite tensor of x's shape.
        NotFiniteError: one of them, which says in which rows it is not finite.
    """
    level = torch.promote_types(x.dtype, torch.float32)  # a half type would round the noise level
    out = answer(denoiser, x, torch.full((len(x),), sigma, dtype=level, device=x.device), **conditions)
    if not is_finite(out):
        rows = torch.isfinite(out).flatten(1).all(1).logical_not().nonzero().flatten()
        raise NotFiniteError(sigma, rows.tolist())
    return out


def is_finite(x: Tensor) -> bool:
    """Whether x holds neither NaN nor Inf. A finite sum is a quick proof, since either would spoil the sum."""
    return math.isfinite(x.sum().item()) or bool(torch.isfinite(x).all())


def answer(denoiser: Denoiser, x: Tensor, sigma: Tensor, /, **conditions: Any) -> Tensor:
    """Call a denoiser with a noise level for each sample, shape (B,), and check the shape of what it returns.

    For training, whose descent ends where numbers are no longer finite.

    Returns:
        A copy of its answer, in x's type.

    Raises:
        DenoiserError: if the denoiser fails, changes a condition in place, or returns no floating-point tensor of x's
            shape.
    """
    return called(denoiser, x, sigma, **conditions).to(x.dtype)


def called(denoiser: Denoiser, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
    """As :func:`answer`, in the type that the denoiser answers in."""
    before = _versions(conditions)
    try:
        out = denoiser(x.clone(), sigma, **conditions)
    except HeadstartError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise DenoiserError(
            f"the denoiser failed on an input of shape {tuple(x.shape)} ({reason}){_lacking(error, conditions)}"
        ) from error
    if before and (changed := [name for name, count in _versions(conditions).items() if count != before[name]]):
        raise DenoiserError(f"the denoiser changes its condition {changed[0]!r} in place: it must work on a copy")
    return checked(out, x, "the denoiser").clone()


def _lacking(error: Exception, conditions: Mapping[str, Any]) -> str:
    """A hint where a denoiser failed that may have lacked a class or another condition."""
    said = str(error)
    lacks = isinstance(error, TypeError) and ("NoneType" in said or "required" in said)
    if not lacks and not (isinstance(error, AttributeError) and "NoneType" in said):
        return ""
    given = f"it was given {', '.join(conditions)}" if conditions else "it was given no conditions"
    return (
        f"; {given}: does it need classes or other conditions? Give labels= or conditions= to fit and check, label= to "
        "sample; on the command line --conditional, --condition and --label"
    )


def _versions(conditions: Mapping[str, Any]) -> dict[str, int]:
    """How often the tensors among the conditions were changed in place."""
    tensors = {k: [v for v in leaves(tree) if isinstance(v, Tensor)] for k, tree in conditions.items()}
    return {k: sum(v._version for v in found if not v.is_inference()) for k, found in tensors.items()}


def checked(out: Any, x: Tensor, who: str) -> Tensor:
    """An answer to x, before any arithmetic could stretch it: a floating-point tensor of x's shape, where x is.

    Raises:
        DenoiserError: if it is not; the message names who gave it.
    """
    given = f"for an input of shape {tuple(x.shape)}"
    if not isinstance(out, Tensor):
        raise DenoiserError(f"{who} returned a {type(out).__name__} {given}: expected a tensor{_inside(out)}")
    if out.shape != x.shape:
        double = out.ndim == x.ndim > 1 and out.shape == (len(x), 2 * x.shape[1], *x.shape[2:])
        hint = f"; is the second half a learned variance? then return out[:, :{x.shape[1]}]" if double else ""
        raise DenoiserError(f"{who} returned shape {tuple(out.shape)} {given}: it must keep the shape{hint}")
    if not out.is_floating_point():
        raise DenoiserError(f"{who} returned a tensor of {out.dtype} {given}: it must be of a floating-point type")
    if out.device != x.device:
        raise DenoiserError(f"{who} returned a tensor on {out.device} for an input on {x.device}")
    return out


def _inside(out: Any) -> str:
    """Where in an answer the tensor is, as a hint."""
    if isinstance(out, Mapping):
        names = [name for name, value in out.items() if isinstance(value, Tensor)]
        return f"; return out[{names[0]!r}]" if names else ""
    if isinstance(getattr(out, "sample", None), Tensor):
        return "; return out.sample"
    return "; return out[0]" if isinstance(out, tuple | list) and out and isinstance(out[0], Tensor) else ""


def cast_input(denoiser: Denoiser, dtype: torch.dtype) -> Denoiser:
    """Cast the states that a denoiser is called with to ``dtype``; what it returns is unchanged.

    For measuring a network in a half type: differences of small numbers are then taken in a type that holds them.
    What is returned raises a DenoiserError for states that are beyond the type.
    """

    def cast(x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        state = x.to(dtype)
        if torch.finfo(dtype).max < torch.finfo(x.dtype).max and is_finite(x) and not is_finite(state):
            raise DenoiserError(
                f"states up to {float(x.abs().max()):.4g} do not fit into {dtype}, whose largest number is "
                f"{torch.finfo(dtype).max:.5g}: use a wider dtype, or lower levels"
            )
        return denoiser(state, sigma, **conditions)

    return cast


class Wrapper:
    """A denoiser around ``self.denoiser``, which knows the levels that that one knows."""

    denoiser: Denoiser

    @property
    def sigma_min(self) -> float:
        """The lowest noise level that the denoiser knows, as far as it says."""
        return float(getattr(self.denoiser, "sigma_min", 0.0))

    @property
    def sigma_max(self) -> float:
        """The highest noise level that the denoiser knows, as far as it says."""
        return float(getattr(self.denoiser, "sigma_max", math.inf))

    @property
    def sigma_levels(self) -> ArrayLike | None:
        """The only noise levels that the denoiser knows, or None if it says of none."""
        levels: ArrayLike | None = getattr(self.denoiser, "sigma_levels", None)
        return levels


class Counted(Wrapper):
    """A denoiser that counts its calls, so that the number of function evaluations (NFE) is measured.

    Attributes:
        calls: how often the denoiser was called.
        samples: how many samples it was called on, over all calls.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.calls = 0
        self.samples = 0

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        self.calls += 1
        self.samples += len(x)
        return self.denoiser(x, sigma, **conditions)

    def __repr__(self) -> str:
        return f"Counted({self.calls} calls, {self.samples} samples)"
