"""Drawing more samples than fit into memory: shard by shard, each of which is there whole or not at all.

A job is a manifest and its shards (:mod:`headstart.data.shards`). A shard is a unit of work: it is written to the disk
with its receipt before the next is begun, so that whoever is stopped loses one at most, and the same call goes on with
those that are missing. At the same batch size, and if a shard is a multiple of it, samples are those of one long call
to the bit. Several processes (:mod:`headstart.processes`) share the shards out, and write into one folder that they all
see.

Memory is that of sampling one shard: its samples in float32, twice while its batches are joined.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from headstart.compute import Compute
from headstart.data.shards import KINDS, MANIFEST, Block, Manifest, Receipt, digest, ranges, read_manifest, read_receipt
from headstart.denoiser import Denoiser
from headstart.errors import ArtefactError, InputError
from headstart.files import finish, staged
from headstart.processes import count, same, spread
from headstart.sampler import Sampler

__all__ = ["Drawn", "draw_shards", "shard_size_for"]

#: Bytes of the samples of a shard, unless its size is given.
SHARD_BYTES = 1 << 26


@dataclass(frozen=True)
class Drawn:
    """The work that a call added to a job.

    Attributes:
        shards: how many the job has.
        kept: how many were there.
        samples: how many were drawn now.
        seconds: for drawing and writing them.
    """

    shards: int
    kept: int
    samples: int
    seconds: float


def shard_size_for(shape: tuple[int, ...], batch_size: int) -> int:
    """Samples of a shard of about 64 MiB, a multiple of the batch size."""
    fitting = SHARD_BYTES // (4 * math.prod(shape))
    return max(1, fitting // batch_size) * batch_size


def draw_shards(
    sampler: Sampler,
    denoiser: Denoiser,
    seeds: Sequence[int],
    folder: Path,
    manifest: Manifest,
    *,
    conditions: Callable[[Sequence[int]], Mapping[str, Any]] = lambda seeds: {},
    compute: Compute | None = None,
) -> Drawn:
    """Draw the shards of a job that are missing.

    Arguments:
        sampler: what draws.
        denoiser: the network, on the device.
        seeds: of all samples of the job.
        folder: gets the manifest, the shards and their receipts.
        manifest: what the job is.
        conditions: of the samples with some seeds; a tensor ``label`` is kept with them.
        compute: where the network works, and who is told of the shards and of the rate. Batches are the manifest's.

    Raises:
        InputError: if the folder holds another job.
        ArtefactError: if what is there is damaged, or cannot be written.
        DenoiserError: if the network returns NaN, Inf or the wrong shape.
    """
    compute = compute or Compute()
    same(lambda: begin(folder, manifest))
    left = same(lambda: [i for i in range(manifest.shards) if read_receipt(folder, manifest, i) is None])
    began, drawn = time.perf_counter(), 0

    def draw(i: int) -> int:
        nonlocal drawn
        own = seeds[manifest.rows(i)]
        given = dict(conditions(own))
        samples = sampler.sample(
            denoiser,
            seeds=own,
            batch_size=manifest.batch_size,
            device=compute.device,
            progress=compute.progress,
            conditions=given,
        )
        _write(folder, manifest, i, samples, own, given.get("label"))
        drawn += len(own)
        rate = drawn / (time.perf_counter() - began)
        told = f"{drawn:,} samples, {rate:.3g}/s, {drawn * manifest.nfe:,} evaluations"
        compute.progress.note(told + f" in each of {processes} processes" * (processes > 1))
        return len(own)

    processes = count()
    new = sum(spread(left, draw, lambda mine: compute.progress.track(mine, "shards", len(mine))))
    return Drawn(manifest.shards, manifest.shards - len(left), new, time.perf_counter() - began)


def begin(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of a job into its folder, or find it there.

    Raises:
        InputError: if that of another job is there.
        ArtefactError: if it is damaged, or cannot be written.
    """
    if folder.is_dir():
        finish(folder)
    if not (folder / MANIFEST).exists():
        try:
            with staged(folder) as place:
                (place / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ArtefactError(f"cannot write {folder / MANIFEST}: {error.strerror or error}") from error
        return
    found, wanted = read_manifest(folder).model_dump(), manifest.model_dump()
    if other := [name for name in wanted if found[name] != wanted[name]]:
        raise InputError(
            f"{folder} holds samples of another job ({', '.join(other)} differ"
            f"{'s' * (len(other) == 1)}): go on with the command that began it, or choose another folder"
        )


def _write(folder: Path, manifest: Manifest, index: int, samples: Tensor, seeds: Sequence[int], label: Any) -> None:
    """Write a shard and its receipt, together or not at all."""
    labels = None if label is None else np.asarray(label)
    block = Block(samples.float().numpy(), np.array(seeds, dtype=np.uint64), labels)
    try:
        with staged(folder) as place:
            shard = place / manifest.shard(index)
            KINDS[manifest.kind].write(block, shard)
            sha256, size = digest(shard)
            receipt = Receipt(seeds=ranges(seeds), count=len(seeds), bytes=size, sha256=sha256)
            (place / manifest.receipt(index)).write_text(receipt.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise ArtefactError(f"cannot write {folder / manifest.shard(index)}: {error.strerror or error}") from error
