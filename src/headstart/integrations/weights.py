"""Published weights on definitions of our own: checked name by name, and kept as safetensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from headstart.artefact import read_tensors, write_tensors
from headstart.denoiser import Denoiser
from headstart.errors import ArtefactError, DenoiserError, InputError
from headstart.integrations.pickles import NetworkRecord, network_record, read_pickle

__all__ = ["convert", "fill", "loader", "one_hot", "read_record", "self_attention"]

#: The form of a converted network, and its version.
FORM, VERSION = "headstart-network", 1

#: No argument of a network is larger.
LARGEST = 2**20


def read_record(path: str | Path) -> NetworkRecord:
    """The network in a pickle, or in a file of :func:`convert`.

    Raises:
        DenoiserError: if it is neither, or is damaged. Nothing of it was executed.
    """
    if Path(path).suffix != ".safetensors":
        return network_record(read_pickle(path))
    try:
        values, tensors = read_tensors(Path(path), FORM, VERSION)
        return NetworkRecord(str(values["class"]), dict(values["arguments"]), tensors)
    except (ArtefactError, KeyError, TypeError, ValueError) as error:
        raise DenoiserError(f"{path} holds no converted network: {error}") from error


def convert(source: str | Path, target: str | Path) -> NetworkRecord:
    """Write the network of a pickle as safetensors, with its class and arguments. Nothing is executed.

    Raises:
        DenoiserError: if there is no network in the pickle.
        ArtefactError: if the file cannot be written.
    """
    record = read_record(source)
    values = {"class": record.kind, "arguments": dict(record.arguments)}
    write_tensors(Path(target), FORM, VERSION, values, record.tensors)
    return record


def fill(module: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """The module with these parameters and buffers, in float32 and in evaluation mode.

    Raises:
        DenoiserError: if a name is missing, unknown, or has another shape.
    """
    wanted = module.state_dict()
    missing, unknown = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unknown:
        said = [f"lacks {', '.join(missing[:3])}"] * bool(missing) + [f"has {', '.join(unknown[:3])}"] * bool(unknown)
        raise DenoiserError(f"the file is of another network: it {' and '.join(said)}")
    wrong = [name for name, tensor in wanted.items() if tensor.shape != tensors[name].shape]
    if wrong:
        shapes = f"{tuple(tensors[wrong[0]].shape)} in the place of {tuple(wanted[wrong[0]].shape)}"
        raise DenoiserError(f"the file is of another network: {wrong[0]} has the shape {shapes}")
    module.load_state_dict({name: tensors[name].to(tensor.dtype) for name, tensor in wanted.items()})
    return module.eval().requires_grad_(False)


def loader(network: Callable[[NetworkRecord], nn.Module]) -> Callable[[str, torch.device | str], Denoiser]:
    """A loader of pickles and converted files onto the definition that ``network`` makes of its record."""

    def load(path: str, device: torch.device | str = "cpu") -> Denoiser:
        record = read_record(path)
        _check_size(path, record)
        try:
            module = network(record)
        except (TypeError, ValueError, IndexError, ZeroDivisionError, RuntimeError) as error:
            if isinstance(error, DenoiserError):
                raise DenoiserError(f"{path}: {error}") from error
            raise DenoiserError(f"{path} records arguments that make no network: {error}") from error
        filled: Denoiser = fill(module, record.tensors).to(device)
        return filled

    return load


def _check_size(path: str, record: NetworkRecord) -> None:
    """A DenoiserError where arguments make more of a network than there are tensors for it in the file."""
    for name, value in record.arguments.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        if len(numbers) > LARGEST or any(isinstance(number, int | float) and number > LARGEST for number in numbers):
            raise DenoiserError(f"{path} records arguments that make no network: {name} is {str(value)[:40]}")
    blocks, levels = record.arguments.get("num_blocks"), record.arguments.get("channel_mult")
    count = (blocks if isinstance(blocks, int) else 1) * (len(levels) if isinstance(levels, list | tuple) else 1)
    if count > len(record.tensors):
        raise DenoiserError(f"{path} records {count} blocks of a network, and holds {len(record.tensors)} tensors")


def one_hot(label: Any, classes: int, count: int, device: torch.device) -> Tensor | None:
    """Classes (B, L) of whole numbers (B,), of one number, or as they are; zeros for None; None without classes.

    Raises:
        InputError: if the network has no classes, or a label is none of them.
    """
    if not classes:
        if label is not None:
            raise InputError("the network has no classes: it takes no label")
        return None
    if label is None:
        return torch.zeros(count, classes, device=device)
    found = torch.as_tensor(label, device=device)
    each = (found.shape[:-1] if found.shape[-1:] == (classes,) else None) if found.is_floating_point() else found.shape
    if each is None or each.numel() not in (1, count):
        raise InputError(
            f"the label has shape {tuple(found.shape)} and type {found.dtype}: expected one class or {count}, in whole "
            f"numbers or as rows of {classes}"
        )
    if found.is_floating_point():
        return found.reshape(-1, classes).expand(count, classes)
    if bool(((found < 0) | (found >= classes)).any()):
        raise InputError(f"the network has the classes 0 to {classes - 1}: got {found.flatten()[:5].tolist()}")
    return F.one_hot(found.long().reshape(-1).expand(count), classes).float()


def self_attention(qkv: Tensor, heads: int, normalize: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Attention over pixels: (B, 3 C, H, W) to (B, C, H, W), where each head's channels hold q, k and v in turn.

    Arguments:
        qkv: the projections.
        heads: how many.
        normalize: of q, k and v, which have shape (B, heads, channels, 3, pixels) then.
    """
    b, channels, h, w = qkv.shape
    parts = qkv.reshape(b, heads, channels // heads // 3, 3, h * w)
    parts = parts if normalize is None else normalize(parts)
    q, k, v = parts.transpose(2, 4).unbind(3)
    return F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(b, channels // 3, h, w)
