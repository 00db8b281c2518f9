"""Files that headstart reads: plans, starts, profiles, data, statistics, checkpoints, cells and conditions."""

from __future__ import annotations

import json
import math
import random
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.hostile.forging import (
    VALUES,
    elsewhere,
    forged,
    forged_tensor,
    forged_tensors,
    outside,
    reforged,
    smuggled,
    torn,
)
from headstart import choose, metrics
from headstart.cli.conditions import in_turn, read_conditions
from headstart.compare import Cells
from headstart.data import load_data
from headstart.data.shards import KINDS as SHARDS
from headstart.data.shards import Block, Manifest, Receipt, digest
from headstart.initialization import (
    Autoregressive,
    Empirical,
    Flow,
    Gaussian,
    Initialization,
    Isotropic,
    Mixture,
    StudentT,
    Training,
)
from headstart.metrics import GaussianStatistics
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.targets import gmm25

__all__ = [
    "TARGET",
    "arrays",
    "cells",
    "checkpoints",
    "conditions",
    "images",
    "manifests",
    "plans",
    "prepare",
    "statistics",
    "stored",
    "tensors",
]

TARGET = gmm25()


def prepare(folder: Path) -> None:
    """Write what these trials change: plans of every start, data, models, statistics, a checkpoint and cells."""
    data = TARGET.sample(Noise(range(200)))
    labels = (data[:, 0] > 0).long()
    once = Training(epochs=1)
    starts: list[Initialization] = [
        Isotropic((2,)),
        Gaussian.fit(data),
        Mixture.fit(data, 4, 2, labels=labels),
        StudentT.fit(data),
        StudentT.fit(data, "multivariate"),
        Empirical.fit(data, labels=labels),
        Flow.fit(data, hidden=(4,), transforms=1, training=once),
        Autoregressive.fit(data, patch=1, channels=4, layers=1, heads=1, training=once),
    ]
    plan = choose.fit(TARGET, data, 3, criterion="budget")
    for number, start in enumerate(starts):
        Plan(start, plan.schedule, plan.solver, plan.budget, plan.profile, plan.record).save(folder / f"plan-{number}")
        start.save(folder / f"start-{number}")
    plan.profile.save(folder / "profile")
    np.save(folder / "points.npy", data.numpy())
    images = np.random.default_rng(0).normal(size=(40, 1, 8, 8)).astype(np.float32)
    np.savez(folder / "images.npz", samples=images, labels=np.arange(40) % 2)
    torch.save({"samples": data, "labels": labels}, folder / "points.pt")
    from PIL import Image

    for label in ("cat", "dog"):
        (folder / "pictures" / label).mkdir(parents=True)
        for i in range(3):
            grey = np.random.default_rng(i).integers(0, 255, (8, 8), dtype=np.uint8)
            Image.fromarray(grey).save(folder / "pictures" / label / f"{i}.png")
    GaussianStatistics.of(data.double()).save(folder / "stats.npz")
    Flow.fit(data, hidden=(4,), transforms=1, training=Training(epochs=1, checkpoint=folder / "checkpoint"))
    cells = Cells(folder / "cells.jsonl", {"quick": True})
    for i in range(4):
        cells({"i": i}, lambda i=i: {"value": i / 3, "failed": None})  # type: ignore[misc]
    (folder / "fuzzmodels.py").write_text(
        "from headstart.targets import gmm25\ndef load(): return gmm25()\ndef pi(): return 3\n"
    )
    _shards(folder)
    _stored(folder, images, np.arange(40) % 2)


def _stored(folder: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
    """The same data in archives, a table and Zarr."""
    with zipfile.ZipFile(folder / "pictures.zip", "w") as archive:
        for path in sorted((folder / "pictures").rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    with tarfile.open(folder / "samples.tar", "w") as packed:
        for i, image in enumerate(images[:6]):
            np.save(folder / "one.npy", image)
            packed.add(folder / "one.npy", f"{i}.npy")
            (folder / "one.npy").write_text(str(labels[i]))
            packed.add(folder / "one.npy", f"{i}.cls")
    (folder / "one.npy").unlink()
    seeds = np.arange(40, dtype=np.uint64)
    SHARDS["parquet"].write(Block(images.reshape(40, 64), seeds, labels), folder / "table.parquet")
    SHARDS["zarr"].write(Block(images, seeds, labels), folder / "group.zarr")


def _shards(folder: Path) -> None:
    """Six images, or rows of a table, in two shards of every kind."""
    images = np.random.default_rng(0).uniform(-1, 1, size=(6, 1, 4, 4)).astype(np.float32)
    for name, kind in SHARDS.items():
        pixels = images.reshape(6, 16) if kind.tables_only else images
        place = folder / f"shards-{name}"
        place.mkdir()
        job = {"plan": "0" * 64, "model": "none", "nfe": 3, "shape": pixels.shape[1:], "seeds": "0-5", "batch_size": 3}
        manifest = Manifest.model_validate({**job, "kind": name, "count": 6, "shard_size": 3})
        (place / "manifest.json").write_text(manifest.model_dump_json())
        for i in range(2):
            rows = manifest.rows(i)
            kind.write(
                Block(pixels[rows], np.arange(rows.start, rows.stop, dtype=np.uint64)), place / manifest.shard(i)
            )
            found, size = digest(place / manifest.shard(i))
            receipt = Receipt(seeds=f"{rows.start}-{rows.stop - 1}", count=3, bytes=size, sha256=found)
            (place / manifest.receipt(i)).write_text(receipt.model_dump_json())


def plans(folder: Path, draw: random.Random) -> None:
    import hashlib

    import safetensors.torch

    place = folder / f"plan-{draw.randrange(8)}"
    if draw.random() < 0.2:
        torn(place / draw.choice(["plan.json", "tensors.safetensors"]), draw)
    else:
        values = json.loads((place / "plan.json").read_text())
        blob = (place / "tensors.safetensors").read_bytes()
        if draw.random() < 0.5:
            blob = safetensors.torch.save(forged_tensors(safetensors.torch.load(blob), draw))
            (place / "tensors.safetensors").write_bytes(blob)
            values["tensors_sha256"] = hashlib.sha256(blob).hexdigest()
        else:
            values = forged(values, draw)
        (place / "plan.json").write_text(json.dumps(values))
    plan = Plan.load(place)
    repr(plan), plan.explain(), plan.to_dict(), plan.citation()
    plan.sample(TARGET, 3)
    plan.save(folder / "again")


def tensors(folder: Path, draw: random.Random) -> None:
    number = draw.randrange(9)
    path = folder / ("profile" if number == 8 else f"start-{number}")
    form = "headstart-profile" if number == 8 else "headstart-start"
    if not reforged(path, form, 9, draw, torn_in=0.2, values_in=0.5):
        return
    if number == 8:
        profile = Profile.load(path)
        repr(profile)
        choose.fit(TARGET, TARGET.sample(Noise(range(100))), 3, profile=profile, criterion="budget")
        return
    start = Initialization.load(path)
    low, high = max(start.sigmas[0], 0.1), min(start.sigmas[1], 5.0)
    x = start.sample(Noise(range(3)), math.sqrt(low * high))
    if start.tractable:
        start.log_prob(x, math.sqrt(low * high))
    repr(start)


def arrays(folder: Path, draw: random.Random) -> None:
    name = draw.choice(["points.npy", "images.npz", "points.pt"])
    path = folder / name
    change = draw.random()
    if change < 0.2:
        smuggled(path, draw)
    elif change < 0.3 and name != "points.npy":
        outside(path, draw)
    elif change < 0.6:
        torn(path, draw)
    else:
        array = np.load(folder / "points.npy")
        tensor = forged_tensor(torch.from_numpy(array), draw)
        if name == "points.pt":
            torch.save(draw.choice([tensor, {"samples": tensor}, [tensor], {"x": draw.choice(VALUES)}]), path)
        elif name == "points.npy":
            np.save(path, tensor.numpy())
        else:
            labels = forged_tensor(torch.arange(len(array)), draw)
            np.savez(path, samples=tensor.numpy(), labels=labels.numpy())
    data = load_data(path)
    repr(data)
    metrics.evaluate(data.samples, metrics.Reference.of(data.samples, directions=4))


def images(folder: Path, draw: random.Random) -> None:
    pictures = folder / "pictures"
    torn(pictures / draw.choice(["cat", "dog"]) / f"{draw.randrange(3)}.png", draw)
    if draw.random() < 0.2:
        (pictures / "loop").symlink_to(pictures)
    repr(load_data(pictures))


def statistics(folder: Path, draw: random.Random) -> None:
    path = folder / "stats.npz"
    whole = GaussianStatistics.load(path)
    if draw.random() < 0.4:
        torn(path, draw)
    else:
        own: dict[str, Any] = {"mu": whole.mean, "sigma": whole.covariance, "n": torch.tensor(whole.n)}
        key = draw.choice(sorted(own))
        own[key] = forged_tensor(own[key], draw)
        np.savez(path, **{name: tensor.numpy() for name, tensor in own.items()})
    found = GaussianStatistics.load(path)
    json.dumps(found.distance(whole), allow_nan=False)
    found.save(folder / "again.npz")


def checkpoints(folder: Path, draw: random.Random) -> None:
    import safetensors.torch
    from safetensors import safe_open

    path = folder / "checkpoint"
    if draw.random() < 0.2:
        torn(path, draw)
    else:
        with safe_open(path, "pt") as file:
            values = json.loads(file.metadata()["headstart"])
            own = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a file is no mapping
        if draw.random() < 0.5:
            values = forged(values, draw)
        else:
            own = forged_tensors(own, draw)
        path.unlink()
        path.write_bytes(safetensors.torch.save(own, metadata={"headstart": json.dumps(values)}))
    data = torch.from_numpy(np.load(folder / "points.npy"))
    Flow.fit(data, hidden=(4,), transforms=1, training=Training(epochs=1, checkpoint=path))


def cells(folder: Path, draw: random.Random) -> None:
    path = folder / "cells.jsonl"
    if draw.random() < 0.5:
        torn(path, draw)
    else:
        lines = path.read_text().splitlines()
        place = draw.randrange(len(lines))
        lines[place] = json.dumps(forged(json.loads(lines[place]), draw))
        path.write_text("\n".join([*lines, ""]))
    found = Cells(path, {"quick": True})
    for i in range(5):
        found({"i": i}, lambda i=i: {"value": i / 3, "failed": None})  # type: ignore[misc]


def conditions(folder: Path, draw: random.Random) -> None:
    """A file of conditions, the option that names it, and rows that go in turn."""
    ending = draw.choice(["npy", "npz", "pt"])
    path = folder / {"npy": "points.npy", "npz": "images.npz", "pt": "points.pt"}[ending]
    change = draw.random()
    if change < 0.25:
        torn(path, draw)
    elif change < 0.5:
        smuggled(path, draw)
    elif change < 0.8:
        tensor = forged_tensor(torch.from_numpy(np.load(folder / "points.npy")), draw)
        if ending == "pt":
            torch.save(draw.choice([tensor, {"a": tensor, "b": torch.ones(3)}]), path)
        elif ending == "npz":
            np.savez(path, a=tensor.numpy(), b=np.ones(3))
        else:
            np.save(path, tensor.numpy())
    good = f"c={path.name}"
    text = draw.choice([good, good, good, "c", "=", f"={path.name}", f"c={path}/x", f"{good}={good}", f"x={path.name}"])
    taken = draw.choice([(), ("c",), ("label",)])
    found = read_conditions([text], None, *taken) if draw.random() < 0.7 else read_conditions(None, [text, text[:2]])
    seeds = draw.choice([[0, 1, 2], [0], [2**64 - 1, 7, 3]])
    Plan.load(folder / "plan-1").sample(
        lambda x, sigma, /, **given: TARGET(x, sigma), seeds=seeds, conditions=in_turn(found, seeds)
    )


def stored(folder: Path, draw: random.Random) -> None:
    """Data in an archive, a table or Zarr."""
    path = folder / draw.choice(["pictures.zip", "samples.tar", "table.parquet", "group.zarr"])
    if path.is_dir():
        file = draw.choice(sorted(each for each in path.rglob("*") if each.is_file()))
        if file.name == "zarr.json" and draw.random() < 0.7:
            file.write_text(json.dumps(forged(json.loads(file.read_text()), draw)))
        else:
            draw.choice([torn, smuggled])(file, draw)
    else:
        draw.choice([torn, smuggled, {".zip": outside, ".tar": elsewhere}.get(path.suffix, torn)])(path, draw)
    repr(load_data(path))


def manifests(folder: Path, draw: random.Random) -> None:
    """A folder of shards: its manifest, a receipt or a shard, with a receipt that fits a shard that is forged."""
    place = folder / f"shards-{draw.choice(sorted(SHARDS))}"
    manifest, receipt = place / "manifest.json", place / "shard-00000.json"
    shard = next(path for path in sorted(place.iterdir()) if path.name.startswith("shard-00000") and path != receipt)
    change, file = draw.random(), shard
    if change < 0.4:
        file = draw.choice([manifest, receipt])
        if change < 0.1:
            torn(file, draw)
        else:
            file.write_text(json.dumps(forged(json.loads(file.read_text()), draw)))
    elif shard.is_dir():
        torn(draw.choice(sorted(each for each in shard.rglob("*") if each.is_file())), draw)
    elif change < 0.6 and shard.suffix in (".npz", ".zip"):
        outside(shard, draw)
    elif change < 0.8 and shard.suffix == ".tar":
        elsewhere(shard, draw)
    else:
        draw.choice([torn, smuggled])(shard, draw)
    if file == shard and shard.is_file():
        found, size = digest(shard)
        receipt.write_text(json.dumps({**json.loads(receipt.read_text()), "sha256": found, "bytes": size}))
    repr(load_data(place))
