r"""A coupling flow that refines a closed-form start.

A base law with a density at every level, such as a Gaussian, a mixture or a Student-t, is moved by an invertible map
that is learned by maximum likelihood on noised data:

.. math:: x = T_\sigma(x_b), \quad x_b \sim p_b(\cdot, \sigma), \qquad
    \log p_\theta(x, \sigma) = \log p_b(T_\sigma^{-1}(x), \sigma) + \log |\det \partial T_\sigma^{-1}(x)|.

The map acts on m leading coordinates, each divided by its standard deviation, and leaves every other direction as
the base has it:

.. math:: y = U^T (x - \mu) / \sqrt{\lambda + \sigma^2}, \qquad
    T_\sigma^{-1}: y \mapsto y_b = f_n \circ \dots \circ f_1(y).

Each :math:`f_i` keeps one half of the coordinates and moves the other half one by one, with parameters that a small
network computes from the first half, from ln sigma and from the class: by a monotonic spline, or by a scale and a
shift. All begin as the identity, so training begins with the base itself. Splines are the identity outside the box
:math:`|y| \le 5`, and a network sees coordinates outside it as if they were on its border: the tails of the law are
the base's, and a heavy-tailed law wants a heavy-tailed base and the coordinate axes (m = d) as its directions.

References:
    Durkan et al., *Neural Spline Flows*, 2019, arXiv 1906.04032 (spline couplings).

    Dinh, Sohl-Dickstein and Bengio, *Density Estimation Using Real NVP*, 2017, arXiv 1605.08803 (affine couplings).

    Fassina et al., *Initialization-Aware Score-Based Diffusion Sampling*, 2026, arXiv 2603.00772 (flows as starts,
    with a normal or a Student-t base). Theirs are affine, start from one product law, and are trained for one horizon;
    ours refine a fitted base and are conditioned on the horizon.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.compute import Compute
from headstart.conditions import Conditions
from headstart.deprecation import gathered
from headstart.errors import InputError
from headstart.extras import needed
from headstart.initialization.base import INITIALIZATIONS, Initialization
from headstart.initialization.gaussian import Gaussian
from headstart.initialization.memory import owned
from headstart.initialization.mixture import Mixture
from headstart.initialization.subspace import Subspace, chunks, moments
from headstart.initialization.training import Record, Training, train
from headstart.noise import Noise
from headstart.saved import Saved

__all__ = ["Couplings", "Flow"]

#: Where splines end, and how many pieces they have.
BOUND, BINS = 5.0, 8

#: The range of levels by default, in units of the data's standard deviation.
LOWEST, HIGHEST = 0.5, 25.0

#: Samples whose density is computed together.
TOGETHER = 4096


class Couplings(nn.Module):
    """Coupling layers in m dimensions, the identity at first.

    Arguments:
        dimension: m.
        context: how many numbers the layers are conditioned on.
        kind: "spline" or "affine".
        transforms: number of layers; each two of them move complementary halves of the coordinates.
        hidden: widths of a layer's network.
        seed: of the halves and of the networks.

    Raises:
        InputError: if a number is below 1, or the kind unknown.
        MissingExtraError: if zuko is not installed.
    """

    def __init__(
        self,
        dimension: int,
        context: int,
        kind: Literal["spline", "affine"] = "spline",
        transforms: int = 5,
        hidden: Sequence[int] = (128, 128),
        seed: int = 0,
    ) -> None:
        super().__init__()
        if min(dimension, context, transforms, *hidden) < 1:
            raise InputError("a coupling flow needs at least 1 dimension, 1 transform, and hidden layers of width 1")
        self.kind, self.hidden = kind, tuple(hidden)
        # The layers draw their first weights from the global generator, which is left as it was found.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            halves = [torch.randperm(dimension) < dimension // 2 for _ in range((transforms + 1) // 2)]
            masks = [half for pair in halves for half in (pair, ~pair)][:transforms]
            self.layers = nn.ModuleList(_layer(mask, context, kind, self.hidden) for mask in masks)

    def forward(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """From data (B, m) to the base (B, m), and the log determinant of the derivative (B,)."""
        total = y.new_zeros(len(y))
        for layer in self.layers:
            y, log_det = layer(context).call_and_ladj(y)
            total = total + log_det
        return y, total

    def inverse(self, y: Tensor, context: Tensor) -> Tensor:
        """From the base (B, m) to data (B, m)."""
        for layer in reversed(self.layers):
            y = layer(context).inv(y)
        return y


@INITIALIZATIONS.register
class Flow(Initialization):
    """A coupling flow on a base law. Made by :meth:`fit`.

    Arguments:
        base: the law that is refined.
        frame: the m directions that the flow acts on, with the data's variances along them.
        couplings: the layers, conditioned on 1 + C numbers for C classes.
        sigmas: the lowest and the highest level that it is made for.
        classes: the classes that it is conditioned on, shape (C,), or None.
        shares: of the classes in the data, shape (C,), for samples without a class.
        gain: nats by which training lowered the held-out NLL of the base.

    Attributes:
        record: how training went, or None for a flow that was loaded.
    """

    name = "flow"
    cites = ("fassina2026initialization", "durkan2019neural", "dinh2017density")
    closed_form = False
    trained = True

    def __init__(
        self,
        base: Initialization,
        frame: Subspace,
        couplings: Couplings,
        sigmas: tuple[float, float],
        classes: Tensor | None = None,
        shares: Tensor | None = None,
        gain: float = 0.0,
    ) -> None:
        self.shape, self.base, self.frame, self.couplings = base.shape, base, frame, couplings
        self.sigmas = (float(sigmas[0]), float(sigmas[1]))
        self.classes, self.shares = (None if tensor is None else owned(tensor) for tensor in (classes, shares))
        self.gain, self.knows = gain, base.knows if classes is None else tuple({"label": 0} | dict.fromkeys(base.knows))
        self.record: Record | None = None

    @classmethod
    @gathered(compute=Compute)
    def fit(
        cls,
        data: Tensor,
        base: Initialization | None = None,
        dimensions: int = 80,
        kind: Literal["spline", "affine"] = "spline",
        transforms: int = 5,
        hidden: Sequence[int] = (128, 128),
        sigmas: tuple[float, float] | None = None,
        labels: Tensor | None = None,
        subspace: Subspace | None = None,
        training: Training | None = None,
        seed: int = 0,
        compute: Compute | None = None,
    ) -> Flow:
        """Fit to clean data (N, \\*S), by maximum likelihood at all levels between two.

        If no epoch of training does better than the base on held-out data, the flow is the base, with a ``gain`` of 0.
        A base that was fitted to the same data has seen the samples that are held out here. The gain then comes
        out too small, and with a base of many parameters, such as a mixture of many components, it may be 0.

        Arguments:
            data: the samples.
            base: the law to refine; by default a Gaussian, fitted on the data.
            dimensions: how many leading directions m the flow acts on; from d on, they are the coordinate axes.
            kind: "spline" or "affine".
            transforms: number of coupling layers.
            hidden: widths of each layer's network.
            sigmas: the lowest and the highest level; by default 0.5 and 25 times the data's standard deviation.
            labels: classes, shape (N,), for a flow that is conditioned on them.
            subspace: the leading directions; by default the base's, or those of the data.
            training: how it is trained.
            seed: of the first weights, and of training.
            compute: the device where the layers work, and who is told of the training.

        Raises:
            DataError: if there are fewer than two samples, or NaN or Inf among them.
            InputError: if a number is out of its range, the base has no density or another shape, the labels do not
                fit, or training diverges in its first epoch.
            ArtefactError: if the checkpoint of the training is of another one, damaged, or cannot be written.
            MissingExtraError: if zuko is not installed.
        """
        shape, variances = tuple(data.shape[1:]), moments(data)[1]
        if dimensions < 1:
            raise InputError(f"a flow needs at least 1 dimension: got {dimensions}")
        if labels is not None and labels.shape != (len(data),):
            raise InputError(f"labels have shape {tuple(labels.shape)}: expected ({len(data)},), one for each sample")
        if base is not None and (not base.tractable or base.shape != shape):
            raise InputError(f"a flow for samples of shape {shape} needs a base with a density for them: got {base!r}")
        if sigmas is None:
            width = float(variances.mean().sqrt())
            sigmas = (LOWEST * width, HIGHEST * width)
        if subspace is None:
            found = getattr(base, "subspace", None)
            subspace = found if isinstance(found, Subspace) else Subspace.fit(data, max(dimensions, 256))
        frame = _axes(data) if dimensions >= len(variances) else _leading(subspace, dimensions)
        base = Gaussian(shape, subspace) if base is None else base
        classes, shares = (None, None) if labels is None else _classes(labels)
        context = 1 if classes is None else 1 + len(classes)
        couplings = Couplings(len(frame.variances), context, kind, transforms, hidden, seed)
        flow = cls(base, frame, couplings, sigmas, classes, shares)
        trained, points = flow._trained_on(data)
        flow.record = train(
            _Likelihood(trained),
            points,
            sigmas,
            labels=labels,
            options=training,
            seed=seed,
            compute=compute,
        )
        flow.gain = flow.record.gain
        couplings.requires_grad_(False)
        return flow

    def _sample(self, noise: Noise, sigma: float, given: Conditions) -> Tensor:
        label = given.get("label")
        if self.classes is not None and self.shares is not None and label is None:
            share = noise.uniform().cpu().double() * self.shares.sum()
            pick = torch.searchsorted(self.shares.cumsum(0), share, right=True).clamp_max(len(self.classes) - 1)
            label = self.classes[pick]
            given = given.with_label(label)
        x = self.base.sample(noise, sigma, given)
        levels = torch.full((len(x),), sigma, dtype=torch.float64)
        with torch.no_grad():
            return self._moved(x.cpu().double(), levels, label, inverse=True)[0].to(x)

    def _log_prob(self, x: Tensor, sigma: float, given: Conditions) -> Tensor:
        x, levels = x.cpu().double(), torch.full((len(x),), sigma, dtype=torch.float64)
        if self.classes is None or self.shares is None or given.get("label") is not None:
            return self._densities(x, levels, given)
        classes = [torch.full((len(x),), c) for c in self.classes.tolist()]
        each = [self._densities(x, levels, given.with_label(label)) for label in classes]
        return torch.logsumexp(torch.stack(each, dim=-1) + self.shares.log(), dim=-1)

    def _densities(self, x: Tensor, sigma: Tensor, given: Conditions) -> Tensor:
        """Log densities (B,) of x (B, \\*S) at levels sigma (B,), all in float64 on the CPU."""
        parts = []
        for i in range(0, len(x), TOGETHER):
            rows = slice(i, i + TOGETHER)
            own = given.take(rows)
            origin, log_det = self._moved(x[rows], sigma[rows], own.get("label"), inverse=False)
            parts.append(self._base_densities(origin, sigma[rows], own) + log_det)
        return torch.cat(parts) if parts else x.new_zeros(0)

    def _base_densities(self, x: Tensor, sigma: Tensor, given: Conditions) -> Tensor:
        """Those of the base, level by level."""
        levels, group = torch.unique(sigma, return_inverse=True)
        parts, order = [], []
        for number, level in enumerate(levels.tolist()):
            rows = (group == number).nonzero()[:, 0]
            # Not by way of log_prob: while a training diverges, NaN is an answer and no mistake of the caller's.
            parts.append(self.base._log_prob(x[rows], level, given.take(rows)))
            order.append(rows)
        return torch.cat(parts)[torch.cat(order).argsort()] if parts else x.new_zeros(0)

    def _moved(self, x: Tensor, sigma: Tensor, label: Tensor | None, inverse: bool) -> tuple[Tensor, Tensor]:
        """From data to the base, or back, and the log determinant from data to the base; float64 on the CPU."""
        z = (x.flatten(1) - self.frame.mean) @ self.frame.basis
        scales = (self.frame.variances + sigma[:, None] ** 2).sqrt()
        weight = next(self.couplings.parameters())
        y, context = (z / scales).to(weight), self._context(sigma, label).to(weight)
        if inverse:
            moved, log_det = self.couplings.inverse(y, context), y.new_zeros(len(y))
        else:
            moved, log_det = self.couplings(y, context)
        # What does not move stays as it is to the last bit, in single precision too.
        shift = scales * (moved - y).to(z)
        return x + (shift @ self.frame.basis.T).reshape(x.shape), log_det.to(z)

    def _context(self, sigma: Tensor, label: Tensor | None) -> Tensor:
        """The context of the layers (B, 1 + C): ln sigma from -1 to 1, and the class."""
        low, high = (math.log(level) for level in self.sigmas)
        level = (2 * sigma.log() - low - high)[:, None] / (high - low or 1.0)
        if self.classes is None or label is None:
            return level
        own = label.cpu()[:, None] == self.classes
        if not own.any(dim=1).all():
            raise InputError(f"labels must be among the classes fitted on: {self.classes.tolist()}")
        return torch.cat([level, own.to(level)], dim=1)

    def _trained_on(self, data: Tensor) -> tuple[Flow, Tensor]:
        """The flow whose likelihood is maximised, and its data: where the base lets it, in few directions alone.

        If the leading coordinates are independent of all others under the base, the others' density does not depend on
        the weights. Noise has the same law in every frame, so noised leading coordinates are those of noised data.
        """
        space, m = getattr(self.base, "subspace", None), len(self.frame.variances)
        if not isinstance(space, Subspace) or not _leads(self.frame, space):
            return self, data
        base = _marginal(self.base, m)
        if base is None:
            return self, data
        k = math.prod(base.shape)
        points = torch.cat([((x - space.mean) @ space.basis[:, :k]).float() for x in chunks(data)])
        mean, eye = (self.frame.mean - space.mean) @ space.basis[:, :k], torch.eye(k, dtype=torch.float64)
        frame = Subspace(mean, eye[:, :m], self.frame.variances, self.frame.residual)
        return Flow(base, frame, self.couplings, self.sigmas, self.classes, self.shares), points

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        values, tensors = self.base.state()
        saved = {f"base.{name}": tensor for name, tensor in tensors.items()}
        saved.update({f"frame.{name}": tensor for name, tensor in self.frame.tensors().items()})
        saved.update({f"couplings.{name}": tensor.cpu() for name, tensor in self.couplings.state_dict().items()})
        if self.classes is not None and self.shares is not None:
            saved.update(classes=self.classes, shares=self.shares)
        return {
            "shape": list(self.shape),
            "kind": self.couplings.kind,
            "transforms": len(self.couplings.layers),
            "hidden": list(self.couplings.hidden),
            "sigmas": list(self.sigmas),
            "gain": self.gain,
            "base": {"name": self.base.name, "values": values},
        }, {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in saved.items()}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Flow:
        saved = Saved(values, tensors)
        below = Saved(saved.value("base"), saved.group("base").tensors)
        name = below.value("name")
        if not isinstance(name, str) or name not in INITIALIZATIONS or INITIALIZATIONS[name] is cls:
            raise InputError(f"unknown base {name!r}: expected one of {', '.join(INITIALIZATIONS)}, but for {cls.name}")
        base = INITIALIZATIONS[name].from_state(below.value("values"), below.tensors)
        if not base.tractable or base.shape != saved.shape():
            raise InputError(f"the base {name!r} has no density, or samples of another shape")
        frame = Subspace.from_tensors(saved.group("frame").tensors, math.prod(base.shape))
        classes = saved.classes("classes", None)
        shares = None if classes is None else saved.tensor("shares", len(classes), low=0.0, high=1.001)
        m, context = len(frame.variances), 1 if classes is None else 1 + len(classes)
        weights = saved.group("couplings")
        transforms = weights.whole("transforms", len(tensors))
        hidden = saved.wholes("hidden", len(tensors), weights.numbers)
        # A layer's matrices are of neighbouring widths, from and to half of the coordinates.
        widths = (m // 2, *hidden, m // 2)
        if transforms * sum(a * b for a, b in itertools.pairwise(widths)) > weights.numbers:
            raise InputError(f"{transforms} transforms with hidden layers {hidden} have more weights than are saved")
        couplings = weights.filled(lambda: Couplings(m, context, saved.value("kind"), transforms, hidden))
        return cls(base, frame, couplings, saved.levels(), classes, shares, saved.number("gain"))

    def __repr__(self) -> str:
        low, high = self.sigmas
        classes = "" if self.classes is None else f", classes={len(self.classes)}"
        return (
            f"Flow({self.base!r}, {len(self.couplings.layers)} {self.couplings.kind} couplings in "
            f"{len(self.frame.variances)} dimensions{classes}, horizons {low:.4g} to {high:.4g}, "
            f"gain {self.gain:.3g} nats)"
        )


class _Likelihood(nn.Module):
    """A flow as what :func:`train` trains."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.couplings, self.flow = flow.couplings, flow

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        given = Conditions.of(None if label is None else {"label": label.cpu()}, len(x))
        return self.flow._densities(x.cpu().double(), sigma.cpu().double(), given)


def _layer(mask: Tensor, context: int, kind: str, hidden: tuple[int, ...]) -> nn.Module:
    """A coupling that moves the coordinates where the mask is false, or a single coordinate: the identity at first."""
    with needed("zuko", "flows", "a coupling flow"):
        from zuko.flows.coupling import GeneralCouplingTransform
        from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform
    families: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
        "spline": (MonotonicRQSTransform, [(BINS,), (BINS,), (BINS - 1,)]),
        "affine": (MonotonicAffineTransform, [(), ()]),
    }
    if kind not in families:
        raise InputError(f"unknown kind of coupling {kind!r}: expected spline or affine")
    univariate, shapes = families[kind]
    layer: nn.Module = GeneralCouplingTransform(
        len(mask),
        context,
        mask,
        univariate=univariate,
        shapes=shapes,
        hidden_features=hidden,
        activation=nn.SiLU,
    )
    network = layer.hyper
    assert isinstance(network, nn.Sequential)
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    layer.hyper = nn.Sequential(nn.Hardtanh(-BOUND, BOUND), network)
    return layer


def _leading(subspace: Subspace, dimensions: int) -> Subspace:
    m = min(dimensions, len(subspace.variances))
    return Subspace(subspace.mean, subspace.basis[:, :m], subspace.variances[:m], subspace.residual)


def _axes(data: Tensor) -> Subspace:
    """The coordinate axes, with medians for means, and for variances those of a normal whose central 95 % are as wide.

    A few extreme values, of which heavy tails have many, do not change where the splines' box lies.
    """
    points = torch.cat(list(chunks(data))).numpy()
    low, middle, high = np.quantile(points, [0.025, 0.5, 0.975], axis=0)
    widths = torch.from_numpy((high - low) / (2 * 1.959964))
    eye = torch.eye(points.shape[1], dtype=torch.float64)
    return Subspace(torch.from_numpy(middle), eye, widths.square(), torch.zeros((), dtype=torch.float64))


def _leads(frame: Subspace, space: Subspace) -> bool:
    """Whether the frame's directions are the first of a space's."""
    own = space.basis[:, : frame.basis.shape[1]]
    return own.shape == frame.basis.shape and torch.equal(own, frame.basis)


def _marginal(base: Initialization, count: int) -> Initialization | None:
    """The base's law of the leading coordinates of its subspace, the first ``count`` or the few more that it ties to
    them, if that law is a family and the others are independent of it."""
    if not isinstance(base, Gaussian | Mixture):
        return None
    space, k = base.subspace, count if isinstance(base, Gaussian) else max(count, base.means.shape[1])
    zero, eye = torch.zeros(k, dtype=torch.float64), torch.eye(k, dtype=torch.float64)
    leading = Subspace(zero, eye, space.variances[:k], zero.sum())
    if isinstance(base, Gaussian):
        return Gaussian((k,), leading)
    return Mixture((k,), leading, base.weights, base.means, base.eigenvectors, base.eigenvalues, base.owners)


def _classes(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes in the data, and their shares."""
    classes, counts = torch.unique(labels.cpu().long(), return_counts=True)
    return classes, counts.double() / len(labels)
