"""A data set from whatever holds it: a bundled one by name, a file of arrays, a folder of images, or arrays in memory.

=================  =================================================================================================
what               how it is read
=================  =================================================================================================
``builtin:NAME``   ``builtin:fashion-mnist``; a split may be named: ``builtin:fashion-mnist/test``
``.npy``           one array
``.npz``           the array named ``samples``, ``images``, ``data`` or ``arr_0``, or the only one that is not labels
``.pt``            a tensor, or a dictionary of tensors named as in ``.npz``
``.safetensors``   tensors named as in ``.npz``
folder             PNG, JPEG, WebP and BMP images of one size, by name; sub-folders, if any, are the classes
folder             the four original files of Fashion-MNIST
=================  =================================================================================================

Labels are the array named ``labels``, ``label`` or ``y``, if there is one. Floating-point arrays are taken as they are;
bytes are images, (N, H, W), (N, H, W, C) or (N, C, H, W), and are mapped from 0..255 to [-1, 1] with channels first.
Nothing is ever unpickled: a file that holds Python objects is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from headstart.data.base import Dataset
from headstart.data.fashion_mnist import Split, fashion_mnist, has_originals
from headstart.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["load_data"]

SAMPLES = ("samples", "images", "data", "arr_0")
LABELS = ("labels", "label", "y")
ENDINGS = (".npy", ".npz", ".pt", ".safetensors")
IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def load_data(spec: str | Path | Tensor | NDArray[Any] | Dataset, split: Split = "train") -> Dataset:
    """The data set that ``spec`` names or holds.

    Arguments:
        spec: one of the table at the top of this module, a tensor, an array, or a data set, which is returned as it is.
        split: "train" or "test", for a bundled data set whose name does not say; files and arrays have no splits.

    Returns:
        Samples of shape (N, \\*S), in float32 (a floating-point tensor in memory keeps its dtype).

    Raises:
        DataError: if there is nothing at ``spec``, or it cannot be read, or it holds no samples, NaN or Inf.

    >>> load_data(np.zeros((5, 8, 8, 3), dtype=np.uint8))
    Dataset(array: 5 samples of shape (3, 8, 8))
    """
    if isinstance(spec, Dataset):
        return spec
    if isinstance(spec, Tensor):
        return Dataset(_samples(spec, "tensor"), name="tensor")
    if isinstance(spec, np.ndarray):
        return _dataset({"samples": spec}, "array")
    if str(spec).startswith("builtin:"):
        return _builtin(str(spec).removeprefix("builtin:"), split)
    path = Path(spec).expanduser()
    if path.is_dir():
        return fashion_mnist(split, path) if has_originals(path) else _folder(path)
    if not path.is_file():
        raise DataError(f"there is no file or folder {path}")
    if path.suffix not in ENDINGS:
        raise DataError(f"{path} ends in {path.suffix!r}: expected {', '.join(ENDINGS)} or a folder of images")
    return _dataset(_arrays(path), str(path))


def _builtin(name: str, split: Split) -> Dataset:
    known: dict[str, Split] = {"fashion-mnist": split, "fashion-mnist/train": "train", "fashion-mnist/test": "test"}
    if name not in known:
        raise DataError(f"unknown bundled data set {name!r}: expected one of {', '.join(known)}")
    return fashion_mnist(known[name])


def _arrays(path: Path) -> dict[str, Any]:
    """All arrays or tensors in a file, by name."""
    try:
        if path.suffix == ".npy":
            return {"samples": np.load(path, allow_pickle=False)}
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers raise errors of many kinds on damaged or forged files
        reason = str(error).strip().partition("\n")[0]
        if "allow_pickle" in reason or "eights" in reason:
            reason = "it holds Python objects, which are never unpickled; save plain arrays or tensors"
        raise DataError(f"{path} cannot be read: {reason}") from error
    if isinstance(loaded, Tensor):
        return {"samples": loaded}
    if isinstance(loaded, dict):
        return {str(key): value for key, value in loaded.items()}
    raise DataError(f"{path} holds a {type(loaded).__name__}: expected a tensor or a dictionary of tensors")


def _dataset(arrays: Mapping[str, Any], name: str) -> Dataset:
    """Pick samples and labels by name."""
    others = [key for key in arrays if key not in LABELS]
    key = next((key for key in SAMPLES if key in arrays), others[0] if len(others) == 1 else None)
    if key is None:
        raise DataError(f"{name} holds {', '.join(arrays) or 'nothing'}: name the samples 'samples'")
    samples = _samples(_tensor(arrays[key], name), name).float()
    label = next((key for key in LABELS if key in arrays), None)
    if label is None:
        return Dataset(samples, name=name)
    labels = _tensor(arrays[label], f"{name}, {label!r},")
    if labels.is_floating_point() or labels.is_complex():
        raise DataError(f"{name} has labels of type {labels.dtype}: expected integers")
    return Dataset(samples, labels.long(), name)


def _tensor(value: Any, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub":
        kind = f"{value.dtype} values" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
        raise DataError(f"{name} holds {kind}: expected an array of real numbers")
    if value.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what overflows becomes Inf, which the data set refuses
            return torch.from_numpy(value.astype(np.float32))
    return torch.from_numpy(value.astype(np.uint8 if value.dtype == np.uint8 else np.int64))


def _samples(x: Tensor, name: str) -> Tensor:
    """Floating-point samples as they are, without a gradient; bytes as images in [-1, 1] with channels first."""
    if x.is_floating_point():
        return x.detach() if x.requires_grad else x
    if x.dtype != torch.uint8:
        raise DataError(f"{name} holds {x.dtype} samples: convert them to floating point, or images to bytes (uint8)")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in (1, 3, 4):
        x = x.movedim(-1, 1)
    elif x.ndim != 4 or x.shape[1] not in (1, 3, 4):
        raise DataError(f"{name} holds bytes of shape {tuple(x.shape)}: expected images (N, H, W) or (N, H, W, C)")
    return (x.float() / 127.5 - 1).contiguous()


def _folder(folder: Path) -> Dataset:
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGES and not any(part[0] == "." for part in path.relative_to(folder).parts)
    )
    if len(paths) < 2:
        raise DataError(f"{folder} holds {len(paths)} images ({', '.join(IMAGES)}): expected at least 2")
    images = [_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.size != images[0].size:
            sizes = ["{} x {}".format(*i.size) for i in (image, images[0])]
            raise DataError(f"{path} is {sizes[0]} pixels and {paths[0]} is {sizes[1]}: resize them to one size")
    mode = "L" if all(image.mode in ("1", "L") for image in images) else "RGB"
    pixels = torch.from_numpy(np.stack([np.asarray(image.convert(mode)) for image in images]))

    parents = [path.relative_to(folder).parts[:-1] for path in paths]
    if not any(parents):
        return Dataset(_samples(pixels, str(folder)), name=str(folder))
    if not all(parents):
        raise DataError(
            f"{folder} holds images both in itself and in sub-folders: the sub-folders would be the classes"
        )
    classes = sorted({parent[0] for parent in parents})
    labels = torch.tensor([classes.index(parent[0]) for parent in parents])
    return Dataset(_samples(pixels, str(folder)), labels, str(folder))


def _image(path: Path) -> Image:
    import PIL.Image

    try:
        with PIL.Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    if image.mode not in ("1", "L", "P", "LA", "RGB", "RGBA"):
        raise DataError(f"{path} has Pillow's mode {image.mode!r}: expected 8-bit grey or RGB")
    return image
