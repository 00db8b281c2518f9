r"""Is this a denoiser, and in these units? A few hundred evaluations, before thousands are spent on it.

A denoiser is the conditional mean :math:`D(x, \sigma) = E[x_0 \mid x_0 + \sigma \varepsilon = x]`, from which follows,
whatever the law of the data,

.. math:: E\,\|x_0 - D\|^2 \le E\,\|x_0 - L\|^2, \qquad E\,(x_0 - D) = 0, \qquad E\,(x_0 - D) \cdot (x - E x) = 0,

where L is any other estimate, here the best linear one (:mod:`headstart.denoiser.linear`). The first is asked at levels
between 0.1 and 2 standard deviations of the data: a network whose sign, time, prediction or units are declared wrongly
errs by 1.4 to 24 times the linear estimate there. At higher levels, networks that predict the noise err by more than
it and are none the worse. The other two say whose mean and scale the network has learned: the slope of D on x is
:math:`v / (v + \sigma^2)` for any law of variance v.

Whatever else makes a network no function of its input is looked for too: dropout, batch norm, writing in place. The
likeliest mistake is found by trying the usual corrections (:mod:`headstart.denoiser.corrections`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.arrays import as_classes, as_tensor, check_numbers
from headstart.compute import Compute
from headstart.conditions import Part, check_label, to_device
from headstart.denoiser.adapters import Adapted
from headstart.denoiser.contract import Denoiser, cast_input, denoise
from headstart.denoiser.corrections import likeliest, other_kind
from headstart.denoiser.guidance import Guided
from headstart.denoiser.linear import Linear
from headstart.denoiser.modules import in_evaluation_mode, parts_of
from headstart.denoiser.probe import FEW_NUMBERS, ROWS, Probe, in_errors
from headstart.denoiser.range import Range
from headstart.errors import DataError, HeadstartError
from headstart.noise import Stream
from headstart.progress import Progress

__all__ = ["Check", "Finding", "check"]

#: The levels, from and to how many standard deviations, and how many they are.
FROM, TO, LEVELS = 0.1, 2.0, 6

#: A network is doubted beyond the first multiple of the linear estimate's loss (a little later where the data are few
#: numbers), and refused beyond the second.
DOUBTED, REFUSED = 1.12, 4.0

#: The mean and the scale of fewer numbers than this tell nothing.
NUMBERS = 64

#: A difference counts from so many standard errors on: the first number, and the second over the number of samples.
SURE, FEW = 3.5, 20.0

#: And fewer where the difference is as large as that of a network that is refused.
SURE_OF_MUCH = 2.5

#: Variances of the network's law over that of the data that are not doubted.
SCALES = 0.45, 2.2

#: A mean that is this many standard deviations off is doubted.
OFF = 0.35

#: The loss over the linear estimate's above which a network is hardly better than it, as only normal data deserve.
HARDLY = 0.85

#: Two answers to one question that differ by this share of a standard deviation differ by more than rounding.
SAME = 0.01


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Attributes:
        kind: what it is about, in a word.
        message: it, in a sentence.
        cause: the error that the network failed with, if it did.
    """

    kind: str
    message: str
    cause: HeadstartError | None = field(default=None, repr=False, compare=False)

    @property
    def declared(self) -> bool:
        """Whether it is about how the network was declared, and not about what it does."""
        return self.kind in ("levels", "loss", "mean", "scale")

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, eq=False)
class Check:
    """The findings of :func:`check`.

    Attributes:
        errors: whatever makes it no denoiser of these data: a fit would be in vain.
        doubts: whatever does not look like one, and may be on purpose.
        sigmas: the levels, rising.
        ratios: the network's loss over the best linear estimate's, at each level.
        evaluations: samples that the network was called on.
    """

    errors: tuple[Finding, ...]
    doubts: tuple[Finding, ...]
    sigmas: NDArray[np.float64]
    ratios: NDArray[np.float64]
    evaluations: int

    @property
    def lines(self) -> list[str]:
        """The findings in lines, the worst first, or that there are none, and one that sums up."""
        found = [f"error: {error}" for error in self.errors] + [f"doubt: {doubt}" for doubt in self.doubts]
        if not len(self.ratios):
            return found
        if not found:
            found.append("nothing is wrong, as far as this tells: it is a denoiser of these data, in these units")
            if self.ratios.min() > HARDLY:
                found.append(
                    "it is hardly better than a linear estimate, which is right for normal data alone: of others, does "
                    "it get the level that it takes (sigma, ln sigma, an index), and was it trained long enough?"
                )
        levels = f"at {len(self.sigmas)} levels from {self.sigmas[0]:.3g} to {self.sigmas[-1]:.3g}"
        found.append(
            f"its loss is {self.ratios.min():.2f} to {self.ratios.max():.2f} times the best linear estimate's, of a "
            f"denoiser at most about 1, {levels} ({self.evaluations} evaluations)"
        )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON."""
        return {
            "errors": [{"kind": f.kind, "message": f.message} for f in self.errors],
            "doubts": [{"kind": f.kind, "message": f.message} for f in self.doubts],
            "sigmas": self.sigmas.tolist(),
            "ratios": self.ratios.tolist(),
            "evaluations": self.evaluations,
        }

    def __repr__(self) -> str:
        return f"Check({len(self.errors)} errors, {len(self.doubts)} doubts; {self.evaluations} evaluations)"

    def __str__(self) -> str:
        return "\n".join(self.lines)


@in_evaluation_mode
@torch.no_grad()
def check(
    denoiser: Denoiser,
    data: Any,
    conditions: Mapping[str, Any] | None = None,
    labels: Any = None,
    *,
    seed: int = 0,
    sigma_max: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Check:
    """Whether this is a denoiser of these data, in these units.

    Arguments:
        denoiser: the network, on ``device``.
        data: clean samples of the law that it was trained on, shape (N, \\*S), at least four.
        conditions: handed to the network; tensors of length N go with the data.
        labels: classes of the data, shape (N,): handed to the network as ``label``.
        seed: of the samples and of the noise, which are those of no other purpose.
        sigma_max: the highest level that it knows, if it does not say.
        device: where the network works.
        dtype: of the states that it is called with.
        batch_size: samples per call of the network.
        progress: told of the levels.

    Raises:
        DataError: if the data are fewer than four, not finite, or all equal, or the labels are no whole numbers.
        InputError: if an argument is out of its range, or the label is given twice.
    """
    x0 = as_tensor(getattr(data, "samples", data), "data").detach()
    if x0.ndim < 2 or len(x0) < 4 or not x0.numel() or not x0.is_floating_point():
        raise DataError(
            f"the data have shape {tuple(x0.shape)} and type {x0.dtype}: a check needs at least four samples, "
            "(N, ...), of floating-point numbers"
        )
    check_numbers(x0, "the data", math.inf)
    check_label(conditions, labels, "as labels")
    given = conditions if labels is None else {**(conditions or {}), "label": as_classes(labels, "labels")}
    part, shared = Part.of(x0, given)
    own = Stream.CHECK.seeds(seed, 1)[0]
    compute = Compute(device, dtype, batch_size, progress or Progress())
    order = torch.from_numpy(np.random.Generator(np.random.Philox(key=own)).permutation(len(x0)))
    count = min(len(x0) // 2, ROWS[x0[0].numel() >= FEW_NUMBERS])
    linear = Linear.fit(part.samples[order[count : count + 1024]].flatten(1).double(), own)
    probe = Probe(partial(denoiser, **to_device(shared, device)), part.take(order[:count]), linear, seed, compute)
    if probe.deviation == 0:
        raise DataError("all samples are equal: there is nothing to generate")
    known = Range.of(denoiser, sigma_max, dtype)
    return _Examination(denoiser, probe, known).report()


class _Examination:
    """The questions that are asked, one after the other, and what they find."""

    def __init__(self, denoiser: Denoiser, probe: Probe, known: Range) -> None:
        self.denoiser, self.probe, self.known = denoiser, probe, known
        self.errors: list[Finding] = []
        self.doubts: list[Finding] = []

    def report(self) -> Check:
        """All findings. A network that fails on the way is not asked on."""
        low, high = min(FROM * self.probe.core, self.probe.deviation), TO * self.probe.deviation
        sigmas = ratios = np.empty(0)
        if self.known.high <= low or self.known.low >= high:
            self._error(
                "levels",
                f"the network knows noise from {self.known.low:.4g} to {self.known.high:.4g}, and data with a "
                f"standard deviation of {self.probe.deviation:.4g} are denoised between {low:.4g} and {high:.4g}: are "
                "they in its units?",
            )
        else:
            sigmas = np.unique(self.known.grid(high, low, LEVELS))
            try:
                self._range()
                self._function(float(sigmas[len(sigmas) // 2]))
                ratios = self._losses(sigmas)
            except HeadstartError as error:
                self._error("failure", str(error), error)
                sigmas = sigmas[: len(ratios)]
        return Check(tuple(self.errors), tuple(self.doubts), sigmas, ratios, self.probe.evaluations)

    def _error(self, kind: str, message: str, cause: HeadstartError | None = None) -> None:
        self.errors.append(Finding(kind, message, cause))

    def _doubt(self, kind: str, message: str) -> None:
        self.doubts.append(Finding(kind, message))

    def _range(self) -> None:
        """An adapted network inside of a function knows fewer levels than the function says."""
        for part in parts_of(self.denoiser):
            if isinstance(part, Adapted):
                inside = Range.of(part)
                if inside.high < self.known.high * (1 - 1e-6) or inside.low > self.known.low * (1 + 1e-6) + 1e-12:
                    self._doubt(
                        "levels",
                        f"an adapted network inside knows levels from {inside.low:.4g} to {inside.high:.4g}, which the "
                        "function around it does not say: give it the attributes sigma_min and sigma_max, or adapt "
                        "the function",
                    )
                return

    def _function(self, sigma: float) -> None:
        """The answer is one of the input alone: not of the call, the neighbours, or what was asked before."""
        probe, limit = self.probe, SAME * self.probe.deviation
        raw = cast_input(probe.denoiser, probe.compute.dtype)
        rows = min(8, len(probe.x0), probe.compute.batch_size)
        x, given = probe.noisy(sigma)[:rows], probe.given(slice(0, rows))
        state, level = x.to(probe.compute.dtype).clone(), torch.full((rows,), sigma, device=x.device)
        kept = state.clone()
        first = denoise(raw, x, sigma, **given)
        out = probe.denoiser(state, level, **given)
        if not torch.equal(state, kept):
            self._doubt("in place", "it changes its input in place: it is handed copies here, and not by others")
        copy = out.clone()
        denoise(raw, probe.noisy(2 * sigma if 2 * sigma < self.known.high else sigma / 2)[:rows], sigma, **given)
        if not torch.equal(out, copy):
            self._doubt(
                "buffer", "it answers in a buffer that the next call fills: copies are kept here, not by others"
            )
        if torch.finfo(out.dtype).bits < torch.finfo(probe.compute.dtype).bits:
            self._doubt(
                "type", f"it answers in {out.dtype}, which rounds away what fine steps differ by: return float32"
            )
        probe.evaluations += 3 * rows
        if (gap := float((copy.to(first.dtype) - first).abs().max())) > limit:
            self._error(
                "random",
                f"two calls with the same input differ by {gap:.3g} at sigma {sigma:.3g}: it draws random numbers "
                "(dropout? then call network.eval() where it is loaded) or keeps something from call to call; it has "
                "to be a function of its input",
            )
        elif rows > 1:
            alone = denoise(raw, x[:1], sigma, **probe.given(slice(0, 1)))
            probe.evaluations += 1
            if (gap := float((alone - first[:1]).abs().max())) > limit:
                self._error(
                    "batch",
                    f"a sample alone and among {rows - 1} others differ by {gap:.3g} at sigma {sigma:.3g}: its answer "
                    "depends on the neighbours (batch norm in training mode? then call network.eval() where it is "
                    "loaded)",
                )
        other = float(self.known.grid(8 * sigma, 4 * sigma, 2)[0])
        if other > 1.5 * sigma:
            probe.evaluations += rows
            if torch.equal(denoise(raw, x, other, **given), denoise(raw, x, sigma, **given)):
                self._error(
                    "sigma", f"its answer is the same at sigma {sigma:.3g} and {other:.3g}: it ignores the level"
                )

    def _losses(self, sigmas: NDArray[np.float64]) -> NDArray[np.float64]:
        """The loss against the linear estimate's at every level, and the mean and the scale of the network's law."""
        probe = self.probe
        found = [probe.at(float(s)) for s in probe.compute.progress.track(list(sigmas), "checking the network")]
        ratios = np.array([each.ratio for each in found])
        numbers, sure = probe.x0.numel(), SURE + FEW / max(len(probe.x0) - 1, 1)
        beyond = DOUBTED + FEW / numbers
        off = [each for each in found if each.ratio > beyond and each.excess > sure]
        off += [each for each in found if each.ratio > REFUSED and each.excess > SURE_OF_MUCH]
        together = torch.stack([each.gaps for each in found]).mean(0)
        if float(together.mean()) > (beyond - 1) / 2 and in_errors(together) > sure:
            off += found
        if off:
            worst = max(off, key=lambda each: each.ratio)
            said = f"the loss at sigma {worst.sigma:.3g} is {worst.ratio:.3g} times the best linear estimate's"
            self._name(said, worst.ratio, sigmas)
            return ratios
        if numbers < NUMBERS:
            return ratios
        for each in found[-2:]:
            scale, error = each.scale
            if not SCALES[0] < scale < SCALES[1] and abs(math.log(max(scale, 1e-9))) > sure * error:
                kind = other_kind(probe, sigmas) or "are they scaled as those that it was trained on?"
                self._doubt(
                    "scale",
                    f"at sigma {each.sigma:.3g} it answers as for data of {math.sqrt(max(scale, 0)):.3g} times the "
                    f"standard deviation of these: {kind}",
                )
                break
        last = found[-1]
        shift, error = last.shift
        if shift > OFF * probe.deviation and shift > sure * error:
            self._doubt(
                "mean",
                f"at sigma {last.sigma:.3g} its answers have a mean that is {shift / probe.deviation:.2g} standard "
                "deviations from that of the data: are they shifted as those that it was trained on?",
            )
        return ratios

    def _name(self, said: str, ratio: float, sigmas: NDArray[np.float64]) -> None:
        """Say what is likely wrong with a loss."""
        if any(isinstance(part, Guided) for part in parts_of(self.denoiser)):
            self._doubt("loss", f"{said}: a guided network is no denoiser; fit without guidance, and sample with it")
            return
        found = likeliest(self.denoiser, self.probe, sigmas, ratio)
        if found is not None and found.certain:
            self._error("loss", f"{said}; {found}")
        elif ratio > REFUSED:
            self._error("loss", f"{said}{f'; {found}' if found else ': is it a denoiser, in the units of these data?'}")
        else:
            self._doubt("loss", f"{said}{f'; {found}' if found else ''}")
