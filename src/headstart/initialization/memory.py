"""How the tensors of a start lie in memory.

Which kernel multiplies a matrix depends on its layout and on the address that it begins at, and kernels differ in the
last bits. Every start holds tensors that lie in one way, and so draws the same samples whether it was fitted, made by
hand, or read from a file, in whose bytes a tensor may begin anywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["owned"]


def owned(tensor: Tensor) -> Tensor:
    """A copy of the tensor in rows (C order), in newly allocated memory."""
    return tensor.clone(memory_format=torch.contiguous_format)
