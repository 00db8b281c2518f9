r"""Random numbers that belong to a sample: what a sample draws depends on its own seed alone.

A batch of samples carries one seed each, and one random stream each, seeded with it. A draw asks every stream for the
numbers of its own sample, so the batch size, the neighbours and the number of processes change nothing:

    >>> together = Noise([7, 8]).normal((3,))
    >>> alone = Noise([8]).normal((3,))
    >>> bool((together[1] == alone[0]).all())
    True

The streams are NumPy's counter-based Philox generators with the seed as their key, so that any two seeds, however
close, give independent streams, and so that no device has a say in the numbers; what they draw is then moved. Short
draws of many samples are made together (:mod:`headstart.philox`), and long ones by a generator for each: the numbers
are the same to the bit.

References:
    Salmon et al., *Parallel Random Numbers: As Easy as 1, 2, 3*, SC 2011.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from headstart import philox
from headstart.errors import InputError

__all__ = ["Noise", "Stream", "generator_of"]


#: Draws of at most so many numbers a sample are made together, if the samples are at least so many: below and above,
#: a generator for each sample is faster.
TOGETHER, MANY = 128, 32


class Stream(IntEnum):
    """The seeds that the library draws with for itself, so that no two purposes share a random number.

    A stream begins at its value, far above the seeds of users, and holds 2^32 seeds for each of 2^28 seeds of a run.
    """

    #: Starts that distilling learns from (:mod:`headstart.distill`).
    DISTILL = 2**60

    #: Samples of the starts whose tails are judged (:class:`headstart.choose.screen.Tails`).
    TAILS = 2**61

    #: Trajectories that GITS learns from in a comparison. These are the seeds of TAILS: the two never meet in one
    #: decision, and other seeds would change the published comparisons.
    TAUGHT = 2**61

    #: Samples of a generator, drawn once (:meth:`headstart.initialization.Generator.drawn`).
    GENERATOR = 3 * 2**60

    #: Samples and noise on which a network is checked before a fit (:func:`headstart.denoiser.check`).
    CHECK = 5 * 2**60

    #: Samples of the network itself, where there are no data (:func:`headstart.choose.own_samples`).
    OWN_SAMPLES = 2**62

    #: Noise at the highest level, where a network is asked for the mean of a condition
    #: (:func:`headstart.choose.judge.expected`).
    EXPECTED = 7 * 2**60

    #: Samples of a pilot (:class:`headstart.choose.pilot.Pilot`).
    PILOT = 2**63

    def seeds(self, seed: int, count: int, first: int = 0) -> range:
        """``count`` seeds of this stream, those from place ``first`` on.

        Arguments:
            seed: of the run, from 0 to 2^28 - 1.
            count: how many.
            first: the place of the first of them; ``first + count`` is at most 2^32.

        Raises:
            InputError: if a number is out of its range: the seeds would be those of another purpose.
        """
        try:
            seed = operator.index(seed)
        except TypeError as error:
            raise InputError(f"the seed is {seed!r}: expected a whole number from 0 to 2^28 - 1") from error
        if not (0 <= seed < 2**28 and 0 <= first <= first + count <= 2**32):
            raise InputError(
                f"a stream has 2^32 seeds for each seed from 0 to 2^28 - 1: got {seed}, and {count} from {first} on"
            )
        start = self.value + seed * 2**32 + first
        return range(start, start + count)


def generator_of(seed: int) -> torch.Generator:
    """PyTorch's generator of one stream, for what no sample owns: the order of data, projections, probes.

    Raises:
        InputError: if the seed is no whole number from 0 to 2^63 - 1.
    """
    try:
        number = operator.index(seed)
    except TypeError as error:
        raise InputError(f"the seed is {seed!r}: expected a whole number from 0 to 2^63 - 1") from error
    if not 0 <= number < 2**63:
        raise InputError(f"the seed must be from 0 to 2^63 - 1, got {seed}")
    return torch.Generator().manual_seed(number)


class Noise:
    """One random stream per sample.

    Arguments:
        seeds: the seed of each sample, from 0 to 2^64 - 1.
        device: where the draws are put.
        dtype: floating-point type of the draws. They are drawn in float32, so that it does not change the numbers.

    Raises:
        InputError: if there is no seed, or a seed out of range.
    """

    def __init__(
        self, seeds: Iterable[int], device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        try:
            self.seeds = [operator.index(seed) for seed in seeds]
        except TypeError as error:
            raise InputError(f"seeds must be integers: {error}") from error
        if not self.seeds or min(self.seeds) < 0 or max(self.seeds) >= 2**64:
            raise InputError("seeds must be at least one integer from 0 to 2^64 - 1")
        self.device, self.dtype = torch.device(device), dtype
        self._keys = np.array(self.seeds, dtype=np.uint64)
        self._positions = np.zeros(len(self.seeds), dtype=np.int64)
        self._streams: list[np.random.Generator] = []

    def __len__(self) -> int:
        return len(self.seeds)

    def __repr__(self) -> str:
        return f"Noise({len(self)} streams, seeds {self.seeds[0]} to {self.seeds[-1]})"

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers of shape (B, \\*shape)."""
        if self._together(shape):
            draws = philox.normal(self._keys, self._positions, math.prod(shape)).reshape(len(self.seeds), *shape)
        else:
            draws = np.empty((len(self.seeds), *shape), dtype=np.float32)
            for i, stream in enumerate(self._each()):
                stream.standard_normal(out=draws[i : i + 1], dtype=np.float32)
        return torch.from_numpy(draws).to(self.device, self.dtype)

    def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
        """Numbers uniform on [0, 1), of shape (B, \\*shape), in float32 at least: a half type rounds some to 1."""
        if self._together(shape):
            draws = philox.uniform(self._keys, self._positions, math.prod(shape)).reshape(len(self.seeds), *shape)
        else:
            draws = np.stack([np.asarray(stream.random(shape, dtype=np.float32)) for stream in self._each()])
        return torch.from_numpy(draws).to(self.device, torch.promote_types(self.dtype, torch.float32))

    def gamma(self, shape_parameter: ArrayLike, shape: tuple[int, ...] = ()) -> Tensor:
        """Gamma numbers of rate 1, of shape (B, \\*shape), in float32 at least.

        They are drawn in float64, whose range holds what a small shape parameter makes close to 0.

        Arguments:
            shape_parameter: above 0, a number or an array that broadcasts to ``shape``.
            shape: of the draws of one sample.

        Raises:
            InputError: if the parameter is not finite and above 0, or does not broadcast to ``shape``.
        """
        try:
            parameter = np.broadcast_to(np.asarray(shape_parameter, dtype=np.float64), shape)
        except ValueError as error:
            raise InputError(f"the shape parameter does not broadcast to {shape}: {error}") from error
        if not ((parameter > 0) & np.isfinite(parameter)).all():
            raise InputError("the shape parameter of a gamma number must be finite and above 0")
        draws = np.stack([np.asarray(stream.standard_gamma(parameter, shape)) for stream in self._each()])
        return torch.from_numpy(draws).to(self.device, torch.promote_types(self.dtype, torch.float32))

    def _together(self, shape: tuple[int, ...]) -> bool:
        """Whether a draw is made for all samples at once: not once there is a generator for each."""
        return not self._streams and len(self.seeds) >= MANY and 0 < math.prod(shape) <= TOGETHER

    def _each(self) -> list[np.random.Generator]:
        """A generator for each sample, made when it is first needed."""
        if not self._streams:
            self._streams = [philox.stream(*place) for place in zip(self.seeds, self._positions.tolist(), strict=True)]
        return self._streams
