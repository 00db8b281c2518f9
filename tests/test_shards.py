"""Samples in shards are those of one call, come one whole unit at a time, and are refused where they are not whole."""

from __future__ import annotations

import json
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from headstart.data import load_data
from headstart.data.shards import KINDS, MANIFEST, Manifest, check_kind, gathered, has_manifest, ranges, read_shards
from headstart.errors import ArtefactError, DataError, InputError, MissingExtraError
from headstart.initialization import Isotropic
from headstart.sampler import Sampler
from headstart.schedule import rho_grid
from headstart.shards import draw_shards, shard_size_for
from headstart.solver import Euler

SHAPE = (3, 2, 4)
SAMPLER = Sampler(Isotropic(SHAPE), rho_grid(3, 2.0, 0.02), Euler())
TABLE = Sampler(Isotropic((5,)), rho_grid(3, 2.0, 0.02), Euler())
SEEDS = [*range(5, 18), 2**63 + 1]


def denoiser(x: Tensor, sigma: Any, label: Tensor | None = None) -> Tensor:
    return 0.3 * x if label is None else 0.3 * x + 0.1 * label.reshape(-1, *[1] * (x.ndim - 1))


def labels(seeds: Sequence[int]) -> dict[str, Tensor]:
    return {"label": torch.tensor([seed % 3 for seed in seeds])}


def manifest(kind: str = "npz", **changed: Any) -> Manifest:
    values: dict[str, Any] = {"plan": "0" * 64, "model": "python:a:b", "nfe": 2, "kind": kind}
    values |= {"shape": sampler_of(kind).initialization.shape}
    values |= {"count": len(SEEDS), "shard_size": 4, "batch_size": 2, "seeds": ranges(SEEDS)}
    return Manifest(**values | changed)


def draw(folder: Path, kind: str = "npz", given: Callable[[Sequence[int]], Any] = lambda seeds: {}) -> Any:
    return draw_shards(sampler_of(kind), denoiser, SEEDS, folder, manifest(kind), conditions=given)


def sampler_of(kind: str) -> Sampler:
    """One whose samples shards of the kind can hold."""
    return TABLE if kind == "parquet" else SAMPLER


@pytest.mark.parametrize("kind", KINDS)
def test_shards_hold_the_samples_of_one_call(kind: str, tmp_path: Path) -> None:
    expected = sampler_of(kind).sample(denoiser, seeds=SEEDS, batch_size=2)
    done = draw(tmp_path, kind)
    assert (done.shards, done.kept, done.samples) == (4, 0, len(SEEDS))
    samples, classes = gathered(tmp_path)
    assert classes is None
    if kind in ("npz", "zarr", "parquet"):
        assert torch.equal(samples, expected)
    else:  # bytes
        torch.testing.assert_close(samples, expected.clamp(-1, 1), rtol=0.0, atol=1.001 / 255)
    assert [seed for block in read_shards(tmp_path) for seed in block.seeds.tolist()] == SEEDS
    assert torch.equal(load_data(tmp_path).samples, samples)


@pytest.mark.parametrize("kind", ["npz", "tar", "zarr", "parquet"])
def test_classes_go_with_their_samples(kind: str, tmp_path: Path) -> None:
    draw(tmp_path, kind, labels)
    _, classes = gathered(tmp_path)
    assert classes is not None
    assert classes.tolist() == [seed % 3 for seed in SEEDS]


def test_samples_that_are_no_images_are_kept_to_the_bit_in_a_tar(tmp_path: Path) -> None:
    draw_shards(TABLE, denoiser, SEEDS, tmp_path, manifest("tar", shape=(5,)))
    assert torch.equal(gathered(tmp_path)[0], TABLE.sample(denoiser, seeds=SEEDS, batch_size=2))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_call_goes_on_with_what_is_missing(kind: str, tmp_path: Path) -> None:
    """What is there is kept; a shard without its receipt does not count; the end is that of one call to the bit."""
    draw(whole := tmp_path / "whole", kind)
    draw(part := tmp_path / "part", kind)
    job = manifest(kind)
    (part / job.receipt(1)).unlink()
    (part / job.receipt(3)).unlink()
    if not (part / job.shard(3)).is_dir():
        (part / job.shard(3)).write_bytes(b"half a shard")
    done = draw(part, kind)
    assert (done.kept, done.samples) == (2, 4 + 2)
    assert {p.name for p in part.iterdir()} == {p.name for p in whole.iterdir()}
    for place in sorted(p.relative_to(whole) for p in whole.rglob("*") if p.is_file()):
        assert (part / place).read_bytes() == (whole / place).read_bytes()
    assert draw(part, kind).samples == 0


def test_a_network_that_fails_leaves_whole_shards_alone(tmp_path: Path) -> None:
    calls = []

    def failing(x: Tensor, sigma: Any) -> Tensor:
        calls.append(len(x))
        return denoiser(x, sigma) if len(calls) <= 6 else x * torch.nan

    with pytest.raises(Exception, match="NaN"):
        draw_shards(SAMPLER, failing, SEEDS, tmp_path, manifest())
    assert {p.name for p in tmp_path.iterdir()} == {MANIFEST, "shard-00000.npz", "shard-00000.json"}
    with pytest.raises(DataError, match="lacks 3 of 4 shards"):
        gathered(tmp_path)


def test_another_job_is_refused(tmp_path: Path) -> None:
    draw(tmp_path)
    with pytest.raises(InputError, match=r"another job \(plan, batch_size differ\)"):
        draw_shards(SAMPLER, denoiser, SEEDS, tmp_path, manifest(plan="1" * 64, batch_size=4))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "../npz"),
        ("plan", "short"),
        ("count", 0),
        ("count", 10**12),
        ("shard_size", "4"),
        ("shape", [0]),
        ("version", 99),
        ("extra", 1),
        ("format", "other"),
        ("nfe", 1.5),
    ],
)
def test_a_forged_manifest_is_refused(name: str, value: object, tmp_path: Path) -> None:
    draw(tmp_path)
    place = tmp_path / MANIFEST
    place.write_text(json.dumps({**json.loads(place.read_text()), name: value}))
    with pytest.raises(ArtefactError, match=r"manifest.json"):
        gathered(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"count": NaN}', b"[" * 100_000])
def test_what_is_no_receipt_is_refused(content: bytes, tmp_path: Path) -> None:
    draw(tmp_path)
    (tmp_path / "shard-00001.json").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"shard-00001.json"):
        gathered(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_shard_is_refused(kind: str, tmp_path: Path) -> None:
    draw(tmp_path, kind)
    place = tmp_path / manifest(kind).shard(2)
    place = max((each for each in place.rglob("*") if each.is_file()), default=place)
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    with pytest.raises(ArtefactError, match="checksum"):
        gathered(tmp_path)


@pytest.mark.parametrize("kind", ["npz", "folder", "zarr"])
def test_a_pipe_is_no_shard_and_no_manifest(kind: str, tmp_path: Path) -> None:
    """A reader of one would wait for a writer without end."""
    draw(tmp_path, kind)
    place = tmp_path / manifest(kind).shard(2)
    place = next((each for each in place.rglob("*") if each.is_file()), place)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(ArtefactError, match="it is a FIFO and no regular file"):
        gathered(tmp_path)
    (tmp_path / MANIFEST).unlink()
    os.mkfifo(tmp_path / MANIFEST)
    assert not has_manifest(tmp_path)


def _claim(folder: Path, kind: str) -> None:
    """Give the forged second shard a receipt that fits it."""
    from headstart.data.shards import digest

    job, place = manifest(kind), folder / manifest(kind).receipt(1)
    sha256, size = digest(folder / job.shard(1))
    place.write_text(json.dumps({**json.loads(place.read_text()), "sha256": sha256, "bytes": size}))


@pytest.mark.parametrize("name", ["../../evil.png", "/etc/passwd", "00000000000000000009.png/..", "9.png"])
def test_entries_with_other_names_than_seeds_are_refused(name: str, tmp_path: Path) -> None:
    """Nothing is ever unpacked: an entry is read into memory, or refused."""
    for kind in ("zip", "tar"):
        draw(folder := tmp_path / kind / "deep" / "er", kind)
        place = folder / manifest(kind).shard(1)
        if kind == "zip":
            with zipfile.ZipFile(place, "w") as archive:
                archive.writestr(name, b"content")
        else:
            with tarfile.open(place, "w") as archive:
                archive.addfile(tarfile.TarInfo(name))
        _claim(folder, kind)
        with pytest.raises(ArtefactError, match="which is no sample"):
            gathered(folder)
        assert not list(tmp_path.rglob("evil*"))


def test_a_link_in_a_tar_and_a_compressed_entry_are_refused(tmp_path: Path) -> None:
    draw(tmp_path / "tar", "tar")
    with tarfile.open(tmp_path / "tar" / "shard-00001.tar", "w") as archive:
        link = tarfile.TarInfo("00000000000000000009.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    _claim(tmp_path / "tar", "tar")
    with pytest.raises(ArtefactError, match="which is no file"):
        gathered(tmp_path / "tar")
    draw(tmp_path / "zip", "zip")
    with zipfile.ZipFile(tmp_path / "zip" / "shard-00001.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("00000000000000000009.png", b"0" * 10**6)
    _claim(tmp_path / "zip", "zip")
    with pytest.raises(ArtefactError, match="compressed"):
        gathered(tmp_path / "zip")


@pytest.mark.parametrize("kind", ["npz", "zarr", "parquet"])
def test_the_shards_are_read_without_us(kind: str, tmp_path: Path) -> None:
    """By the libraries that have the formats, each sample beside its seed."""
    draw(tmp_path, kind, labels)
    expected = sampler_of(kind).sample(denoiser, seeds=SEEDS, batch_size=2, conditions=labels(SEEDS)).numpy()
    places = [tmp_path / manifest(kind).shard(i) for i in range(4)]
    if kind == "parquet":
        import pyarrow.dataset

        table = pyarrow.dataset.dataset([str(place) for place in places]).to_table()
        assert table.column_names == ["x0", "x1", "x2", "x3", "x4", "seeds", "labels"]
        found = [np.stack([table[f"x{i}"].to_numpy() for i in range(5)], axis=1)]
        seeds = table["seeds"].to_pylist()
    elif kind == "zarr":
        import zarr

        groups: list[Any] = [zarr.open_group(place, mode="r") for place in places]
        found, seeds = [group["samples"][:] for group in groups], [s for g in groups for s in g["seeds"][:].tolist()]
    else:
        archives = [np.load(place) for place in places]
        found, seeds = [a["samples"] for a in archives], [s for a in archives for s in a["seeds"].tolist()]
    assert np.array_equal(np.concatenate(found), expected)
    assert seeds == SEEDS


def test_a_link_in_a_group_is_refused(tmp_path: Path) -> None:
    """What it leads to would not be in the checksum."""
    draw(tmp_path, "zarr")
    place = tmp_path / manifest("zarr").shard(1) / "samples" / "c"
    place.rename(tmp_path / "elsewhere")
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtefactError, match="it is a folder and no regular file"):
        gathered(tmp_path)


@pytest.mark.parametrize("kind", ["zarr", "parquet"])
def test_a_shard_that_claims_more_than_it_holds_is_refused(kind: str, tmp_path: Path) -> None:
    """A terabyte in a shard of some bytes, with a receipt that fits it."""
    draw(tmp_path, kind)
    place = tmp_path / manifest(kind).shard(1)
    if kind == "zarr":
        about = json.loads((place / "samples" / "zarr.json").read_text())
        about["shape"] = [2**28, *SHAPE]
        (place / "samples" / "zarr.json").write_text(json.dumps(about))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        zeros = pa.array(np.zeros(10**6, np.float32))
        columns = {f"x{i}": zeros for i in range(5)} | {"seeds": pa.array(np.zeros(10**6, np.uint64))}
        pq.write_table(pa.table(columns), place)
    _claim(tmp_path, kind)
    with pytest.raises(ArtefactError, match="claims"):
        gathered(tmp_path)


def test_kinds_say_what_they_hold() -> None:
    check_kind("npz", (7,), True)
    for kind, shape, classes in (
        ("zip", (7,), False),
        ("folder", SHAPE, True),
        ("parquet", SHAPE, False),
        ("a", SHAPE, False),
    ):
        with pytest.raises(InputError, match="kind"):
            check_kind(kind, shape, classes)


@pytest.mark.parametrize(("kind", "library"), [("zarr", "zarr"), ("parquet", "pyarrow")])
def test_a_missing_library_is_said_before_the_work(kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"a shard of the kind {kind} needs {library}, .*headstart\[storage\]"):
        check_kind(kind, (7,), True)


def test_a_shard_is_some_64_mib_and_a_multiple_of_the_batch() -> None:
    assert shard_size_for((1, 28, 28), 256) == 2**24 // 784 // 256 * 256
    assert shard_size_for((3, 4096, 4096), 8) == 8
    assert ranges([3, 2**64 - 1, 4]) == f"3,{2**64 - 1},4"
    assert np.concatenate([np.arange(14)[manifest().rows(i)] for i in range(4)]).tolist() == list(range(14))
