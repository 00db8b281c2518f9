"""``headstart sample``: samples drawn with a plan."""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.cli.common import Answer, BatchSize, Device, Json, ModelSpec, command, parse_numbers, usable
from headstart.cli.conditions import ConditionFiles, SharedFiles, in_turn, read_conditions
from headstart.cli.progress import RichProgress
from headstart.errors import ArtefactError, InputError
from headstart.files import check_file, check_folder, staged
from headstart.processes import gathered, same

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from headstart.data.shards import Manifest
    from headstart.plan import Plan
    from headstart.shards import Drawn

__all__ = ["EXAMPLES", "sample"]

EXAMPLES = (
    "headstart sample plan builtin:fashion-mnist -n 64 -o samples",
    "headstart sample plan builtin:fashion-mnist --seeds 100-199 -o samples",
    "headstart sample plan python:mymodel:load -n 16 --label 3 -o samples",
    "headstart sample plan python:mymodel:load -n 100 --label 0-9 -o samples",
    "headstart sample plan python:mymodel:load -n 1000000 --shards tar -o samples",
    "headstart sample plan python:mymodel:load -n 16 --decode python:mymodel:codec -o samples",
    "headstart sample plan python:mymodel:load -n 16 --condition coarse=coarse.npy --shared table=table.npy -o samples",
)

#: The grid shows no more images than these.
SHOWN = 100

#: The files that a run writes.
ARRAYS, GRID = "samples.npz", "grid.png"


@command(*EXAMPLES)
def sample(
    plan: Annotated[Path, typer.Argument(readable=False, metavar="PLAN", help="The folder that headstart fit made.")],
    model: ModelSpec,
    output: Annotated[
        Path, typer.Option("--output", "-o", readable=False, metavar="OUT", help="The folder that gets the samples.")
    ],
    n: Annotated[
        int | None, typer.Option("-n", metavar="N", help="How many samples; their seeds are 0 to N-1 by default.")
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="A-B", help="Seeds, both ends included; also A,B,C. A seed is a sample.")
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="K", help="One class for all samples, or several, A-B or A,B,C, that seeds take in turn."),
    ] = None,
    condition: ConditionFiles = None,
    shared: SharedFiles = None,
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="Write shards, one after the other: npz, tar (WebDataset), zarr, parquet (of one axis), folder, zip.",
        ),
    ] = None,
    shard_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Samples of a shard; about 64 MiB by default.")
    ] = None,
    decode: Annotated[
        str | None,
        typer.Option(
            metavar="python:MODULE:FACTORY",
            help="Decode what is drawn: a factory of encoder and decoder, which is imported and run.",
        ),
    ] = None,
    latents: Annotated[bool, typer.Option("--latents", help="Write the latents of a latent plan themselves.")] = False,
    device: Device = "cpu",
    batch_size: BatchSize = 256,
    as_json: Json = False,
) -> Answer:
    """Draw samples with a PLAN into the folder OUT: samples.npz and, of images, grid.png.

    samples.npz holds the arrays samples (N, ...), seeds (N,) and, with --label, labels (N,).

    With --shards, and where the samples take more than 256 MiB, OUT gets shards and a manifest instead: memory holds
    one of them, and the same command goes on where it was stopped.
    """
    wanted = _seeds(n, seeds)
    classes = [] if label is None else parse_numbers(label, "label")
    if max(classes, default=0) >= 2**63:
        raise InputError(f"the label {max(classes)} is none that a network could know: expected less than 2^63")
    check_folder(output)
    for name in (ARRAYS, GRID):
        check_file(output / name)
    device = usable(device)
    import numpy as np

    from headstart.compute import Compute
    from headstart.data.shards import Manifest, ranges
    from headstart.denoiser import Counted
    from headstart.large import is_large
    from headstart.models import load_denoiser
    from headstart.plan import Plan
    from headstart.shards import draw_shards, shard_size_for

    chosen = _decoding(Plan.load(plan), decode, latents, device)
    denoiser = Counted(load_denoiser(model, device))
    read = read_conditions(condition, shared, *(["label"] if classes else []))

    def conditions(of: Sequence[int]) -> dict[str, Any]:
        return _conditions(read, classes, of)

    shape = _shape(chosen, device)
    if shards or shard_size or is_large((len(wanted), *shape)):
        size = shard_size or shard_size_for(shape, batch_size)
        manifest = Manifest(
            plan=chosen.digest,
            model=model,
            nfe=chosen.nfe,
            kind=_kind(shards or "npz", shape, bool(classes)),
            shape=shape,
            count=len(wanted),
            shard_size=size,
            batch_size=batch_size,
            seeds=ranges(wanted),
            labels=label,
            conditions={text.partition("=")[0]: _digest(text) for text in (*(condition or ()), *(shared or ()))},
        )
        compute = Compute(device, progress=RichProgress())
        done = draw_shards(chosen, denoiser, wanted, output, manifest, conditions=conditions, compute=compute)
        return _of_shards(output, manifest, done)
    started = time.perf_counter()
    samples = chosen.sample(
        denoiser,
        seeds=wanted,
        batch_size=batch_size,
        device=device,
        progress=RichProgress(),
        conditions=(given := conditions(wanted)),
    )
    seconds = time.perf_counter() - started
    labels = given.get("label") if classes else None
    arrays = {"samples": samples.float().numpy(), "seeds": np.array(wanted, dtype=np.uint64)}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    files = same(lambda: _write(output, arrays, samples))

    nfe = sum(gathered(denoiser.samples)) / len(samples)
    text = f"{len(samples)} samples of shape {shape} in {seconds:.3g} s, {nfe:g} network evaluations each\n"
    text += f"They are in {output}: {', '.join(files)}"
    return Answer(
        text,
        {
            "out": str(output),
            "files": files,
            "n": len(samples),
            "shape": list(shape),
            "labels": classes,
            "nfe": nfe,
            "seconds": seconds,
        },
    )


def _decoding(plan: Plan, decode: str | None, latents: bool, device: str) -> Plan:
    """The plan with what decodes its samples, or with the latents as its samples."""
    from dataclasses import replace

    from headstart.latents import Space
    from headstart.models import load_latents

    if decode and latents:
        raise InputError("--decode asks for decoded samples and --latents for the latents: give one")
    space = plan.record.latents
    if decode:
        return plan.with_latents(load_latents(replace(space or Space(), spec=decode), device))
    if space is not None and not latents:
        known = f"--decode {space.spec}, which the plan names" if space.spec else "--decode python:MODULE:FACTORY"
        raise InputError(
            f"the plan samples latents, and runs no code by itself: give {known}, to import and run what decodes them, "
            "or --latents for the latents themselves"
        )
    return plan.with_latents(None)


def _shape(plan: Plan, device: str) -> tuple[int, ...]:
    """The shape of a sample, decoded where the plan decodes."""
    shape = plan.initialization.shape
    if plan.latents is None:
        return shape
    import torch

    return tuple(plan.latents.decode(torch.zeros(1, *shape, device=device)).shape[1:])


def _conditions(read: dict[str, Any], classes: Sequence[int], seeds: Sequence[int]) -> dict[str, Any]:
    """The conditions of the samples with these seeds, which do not depend on what is drawn beside them."""
    import torch

    found = in_turn(read, seeds)
    if classes:
        found["label"] = torch.tensor([classes[seed % len(classes)] for seed in seeds])
    return found


def _kind(name: str, shape: tuple[int, ...], labels: bool) -> Any:
    from headstart.data.shards import check_kind

    check_kind(name, shape, labels)
    return name


def _digest(text: str) -> str:
    """SHA-256 of the file of NAME=FILE."""
    from headstart.data.shards import digest

    return digest(Path(text.partition("=")[2]))[0]


def _of_shards(output: Path, manifest: Manifest, done: Drawn) -> Answer:
    text = f"{manifest.count} samples of shape {manifest.shape} in {manifest.shards} shards, "
    text += f"{manifest.nfe} network evaluations each\n"
    if done.kept:
        text += f"{done.kept} shards were there; "
    text += f"{done.samples} samples were drawn in {done.seconds:.3g} s\nThey are in {output}"
    return Answer(
        text,
        {
            "out": str(output),
            "n": manifest.count,
            "shape": list(manifest.shape),
            "shards": manifest.shards,
            "kept": done.kept,
            "drawn": done.samples,
            "nfe": manifest.nfe,
            "seconds": done.seconds,
        },
    )


def _write(output: Path, arrays: Mapping[str, NDArray[Any]], samples: Tensor) -> list[str]:
    """Write the arrays and, of images, a grid of the first ones, together or not at all; the names of the files."""
    import numpy as np

    from headstart.report.images import image_grid, is_images, png

    try:
        with staged(output, derived=(GRID,)) as folder:
            with zipfile.ZipFile(folder / ARRAYS, "w") as archive:
                for name, array in arrays.items():
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                        np.lib.format.write_array(file, array, allow_pickle=False)  # type: ignore[no-untyped-call]
            if is_images(samples):
                shown = samples[:SHOWN]
                (folder / GRID).write_bytes(png(image_grid(shown, math.ceil(math.sqrt(len(shown))))))
            return sorted(file.name for file in folder.iterdir())
    except OSError as error:
        raise ArtefactError(f"cannot write {output / ARRAYS}: {error.strerror or error}") from error


def _seeds(n: int | None, seeds: str | None) -> list[int]:
    """The seeds that -n and --seeds ask for together."""
    if n is None and seeds is None:
        raise InputError("how many samples? Give their number with -n, or their seeds with --seeds")
    if n is not None and n < 1:
        raise InputError(f"the number of samples is {n}: expected at least 1")
    wanted = parse_numbers(f"0-{(n or 1) - 1}" if seeds is None else seeds)
    if n is not None and len(wanted) != n:
        raise InputError(f"-n asks for {n} samples and --seeds {seeds} for {len(wanted)}: give one, or make them agree")
    return wanted
