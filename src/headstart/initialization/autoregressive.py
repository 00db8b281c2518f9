"""A start that is the law of an autoregressive flow on pixels (:mod:`headstart.initialization.patch_flow`).

It is trained by maximum likelihood on noised data, at all levels of a range at once, and serves every horizon of it.

References:
    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772.

    Zhai et al., *Normalizing Flows are Capable Generative Models*, 2024, arXiv 2412.06329.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from headstart.compute import Compute
from headstart.conditions import Conditions
from headstart.deprecation import gathered
from headstart.errors import DataError, InputError
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.patch_flow import PatchFlow
from headstart.initialization.subspace import moments
from headstart.initialization.training import Record, Training, train
from headstart.noise import Noise
from headstart.saved import INTEGERS, Saved

__all__ = ["Autoregressive", "PatchFlow"]

#: The range of levels that a flow is trained at, in standard deviations of the data, if none is given.
LOWEST, HIGHEST = 0.5, 25.0


@INITIALIZATIONS.register
class Autoregressive(Initialization):
    """The law of a :class:`PatchFlow`. Its samples cost T passes of one patch for each block.

    Arguments:
        flow: the trained flow.
        labels: the classes that it was trained with, in its order; empty if it was trained without.

    Attributes:
        record: how training went, or None for a flow that was loaded.

    Raises:
        InputError: if there is not one label for each class of the flow.
    """

    name = "autoregressive"
    cites = ("fassina2026initialization", "zhai2024normalizing", "papamakarios2017masked")
    closed_form = False
    trained = True

    def __init__(self, flow: PatchFlow, labels: Sequence[int] = ()) -> None:
        self.flow = flow.eval().requires_grad_(False)
        self.shape, self.sigmas = flow.shape, flow.sigmas
        self.labels = tuple(int(label) for label in labels)
        self.knows = ("label",) if self.labels else ()
        self.record: Record | None = None
        if len(self.labels) != flow.classes:
            raise InputError(f"the flow has {flow.classes} classes, and there are {len(self.labels)} labels for them")

    @classmethod
    @gathered(compute=Compute)
    def fit(
        cls,
        data: Tensor,
        patch: int = 4,
        channels: int = 64,
        blocks: int = 2,
        layers: int = 2,
        heads: int = 4,
        *,
        sigmas: tuple[float, float] | None = None,
        labels: Tensor | None = None,
        training: Training | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> Autoregressive:
        """Fit to data (N, \\*S) that are noised at all levels of a range, by maximum likelihood.

        For images of 64 x 64, Fassina et al. (2026) take ``patch=2, channels=128, blocks=1, layers=8`` and a learning
        rate of 3e-4.

        Arguments:
            data: clean samples, (N, C, H, W) or (N, d).
            patch: side of a patch of an image, which divides H and W; length of a patch of flat data, which divides d.
            channels: of the transformers, a multiple of ``heads``.
            blocks: number of blocks, in alternating directions.
            layers: attention layers of each block.
            heads: attention heads.
            sigmas: the lowest and the highest horizon; 0.5 and 25 standard deviations of the data by default.
            labels: classes, shape (N,).
            training: how it is trained.
            seed: of the first weights, and of training.
            compute: the device to train on, and who is told of it; samples are drawn where their noise is.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            InputError: if the numbers do not fit each other or the data, or training diverges in its first epoch.
            ArtefactError: if the checkpoint of the training is of another one, damaged, or cannot be written.
        """
        mean, variances = moments(data)
        sigma_data = math.sqrt(float(variances.mean()))
        if sigmas is None:
            if sigma_data == 0:
                raise DataError("all samples are the same: say at which levels (sigmas) to train")
            sigmas = (LOWEST * sigma_data, HIGHEST * sigma_data)
        if labels is not None and labels.shape != (len(data),):
            raise InputError(f"labels have shape {tuple(labels.shape)}: expected ({len(data)},), one for each sample")
        known, index = (None, None) if labels is None else torch.unique(labels.cpu(), return_inverse=True)
        sizes = {"patch": patch, "channels": channels, "blocks": blocks, "layers": layers, "heads": heads}
        classes = 0 if known is None else len(known)
        flow = PatchFlow(data.shape[1:], sigma_data, sigmas, **sizes, classes=classes, seed=seed)
        flow.mean.copy_(mean.view(flow.shape))
        record = train(flow, data, sigmas, labels=index, options=training, seed=seed, compute=compute)
        start = cls(flow.cpu(), () if known is None else known.tolist())
        start.record = record
        return start

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        normal = noise.normal((math.prod(self.shape),))
        flow, index = self._flow(normal), self._index(given.get("label"))
        z = normal.to(flow.mean.dtype)
        parts = [flow.invert(z[i], torch.full_like(z[i, 0], sigma), _rows(index, i)) for i in flow.parts(len(z))]
        return torch.cat(parts).to(normal)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        flow, index = self._flow(x), self._index(given.get("label"))
        x = x.to(flow.mean.dtype)
        levels = torch.full((len(x),), sigma, device=x.device, dtype=x.dtype)
        return torch.cat([flow(x[i], levels[i], _rows(index, i)) for i in flow.parts(len(x))]).double().cpu()

    def _flow(self, like: Tensor) -> PatchFlow:
        """The flow on a tensor's device and in its type, in float32 at least."""
        dtype, mean = torch.promote_types(like.dtype, torch.float32), self.flow.mean
        if (mean.device, mean.dtype) == (like.device, dtype):
            return self.flow
        return copy.deepcopy(self.flow).to(like.device, dtype)

    def _index(self, label: Tensor | None) -> Tensor | None:
        """Classes (B,) as the flow counts them."""
        if label is None or not self.labels:
            return None
        own = label.cpu()[:, None] == torch.tensor(self.labels)
        if not own.any(dim=1).all():
            raise InputError(f"labels must be among the classes fitted on: {list(self.labels)}")
        return own.long().argmax(dim=1)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = {name: tensor.cpu() for name, tensor in self.flow.state_dict().items()}
        return {**self.flow.options, "labels": list(self.labels)}, tensors

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Autoregressive:
        saved, most = Saved(values, tensors), Saved(values, tensors).numbers
        sizes = {name: saved.whole(name, most) for name in ("patch", "channels", "heads")}
        sizes |= {name: saved.whole(name, len(tensors)) for name in ("blocks", "layers")}
        sizes["classes"] = saved.whole("classes", most, low=0)
        labels = saved.wholes("labels", sizes["classes"], INTEGERS.max, low=INTEGERS.min)

        def make() -> PatchFlow:
            return PatchFlow(saved.shape(), saved.number("sigma_data"), saved.levels(), **sizes)

        saved.check_size(make)
        return cls(saved.filled(make), labels)

    def __repr__(self) -> str:
        flow, options = self.flow, self.flow.options
        patch = flow.shape[:-2] + (flow.patch,) * min(2, len(flow.shape))
        classes = f", classes={len(self.labels)}" if self.labels else ""
        low, high = flow.sigmas
        return (
            f"Autoregressive({flow.length} patches of shape {patch}, {options['blocks']} blocks of {options['layers']} "
            f"layers, {options['channels']} channels{classes}, horizons {low:.4g} to {high:.4g})"
        )


def _rows(index: Tensor | None, rows: slice) -> Tensor | None:
    return None if index is None else index[rows]
