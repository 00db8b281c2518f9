r"""Models of diffusers as denoisers.

A scheduler of diffusers says what its network sees and predicts:

===========================================  ====================================  ==========================
scheduler                                    the network sees                      its time
===========================================  ====================================  ==========================
with ``alphas_cumprod`` (DDPM, DDIM, Euler,  :math:`x / \sqrt{1 + \sigma^2}`       index of the table, also
DPM-Solver, UniPC, ...)                                                            fractional
the same, with continuous timesteps          the same                              :math:`\tfrac14 \ln \sigma`
EDM (EDMEuler, EDMDPMSolverMultistep)        :math:`x / \sqrt{\sigma^2 + c^2}`     :math:`\tfrac14 \ln \sigma`
flow matching (FlowMatch..., and those with  :math:`x / (1 + \sigma)`              :math:`1000\, \sigma /
``use_flow_sigmas``)                                                               (1 + \sigma)`
score-based (ScoreSdeVe)                     :math:`x`                             :math:`\sigma`
===========================================  ====================================  ==========================

with x and :math:`\sigma` in the variance-exploding units of :mod:`headstart.denoiser`. Nothing is clipped:
``clip_sample`` and ``thresholding`` are of a scheduler's steps, and the steps are ours.

:func:`from_diffusers` takes a pipeline, or a network and a scheduler; :func:`load` a folder of either. How a pipeline
samples by a plan is in :mod:`headstart.integrations.pipeline`.

References:
    von Platen et al., *Diffusers: State-of-the-Art Diffusion Models*, 2022; diffusers 0.42.1.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from headstart.artefact import parse_json
from headstart.denoiser import (
    Denoiser,
    DiscreteVariancePreserving,
    Prediction,
    RectifiedFlow,
    VarianceExploding,
    adapt,
    expand,
)
from headstart.errors import DenoiserError, InputError
from headstart.extras import require
from headstart.files import read_regular
from headstart.latents import Space
from headstart.models.load import LOADERS, Loader

__all__ = ["Latents", "RawEDM", "convention", "from_diffusers", "load", "network_of", "read_scheduler"]

#: Our names of what a network predicts.
PREDICTIONS: Mapping[str, Prediction] = {
    "epsilon": "epsilon",
    "v_prediction": "v",
    "sample": "x0",
    "original_sample": "x0",
    "flow_prediction": "flow",
}

#: Schedulers of networks that were distilled to jump to the data: their output is no mean of the data.
CONSISTENCY = ("LCM", "TCD", "CMStochasticIterative", "SCM", "FlowMatchLCM", "FlowMapEuler")

#: Networks whose pipelines hand them the scheduler's time over 1000.
UNIT_TIME = ("Flux", "Flux2", "Chroma", "QwenImage", "LongCatImage", "OvisImage", "AuraFlow")

#: Networks whose time runs from noise to data, and whose velocity points there.
REVERSED = ("Lumina2", "ZImage", "LuminaNextDiT2D", "Mochi")

COUNTS_UP = "counts time from noise to data: use headstart.adapt with RectifiedFlow(data_at=1)"

#: Arguments of networks that all samples share whatever their length.
SHARED = ("img_ids", "txt_ids")


def from_diffusers(model: Any, scheduler: Any = None, *, rounded: bool = False, **fixed: Any) -> Denoiser:
    """A denoiser from a pipeline of diffusers, or from one of its networks and a scheduler.

    It takes the conditions that the network takes (``encoder_hidden_states``, ``added_cond_kwargs``,
    ``pooled_projections``, ...), and ``label`` for ``class_labels``; a tensor of one row is shared by all samples.
    Samples are in the network's own space: latents, where there is a VAE (:class:`Latents` goes there and back). For
    guidance, see :func:`headstart.guide`, with the conditions of an empty prompt as ``unconditional``.

    Arguments:
        model: a pipeline, or its UNet or transformer.
        scheduler: says what the network sees and predicts; by default the pipeline's own.
        rounded: hand a network of discrete time the nearest whole time in place of a fractional one.
        fixed: conditions that never change, handed to the network as they are.

    Raises:
        InputError: if it is no such model, or what its scheduler says is of no denoiser.
    """
    network = network_of(model)
    if scheduler is None:
        scheduler = getattr(model, "scheduler", None)
    if scheduler is None:
        raise InputError("what does the network see? Give its scheduler too: from_diffusers(network, scheduler)")
    name = type(network).__name__
    if name.startswith(REVERSED):
        raise InputError(f"{name} {COUNTS_UP}")
    unit = 1e-3 if name.startswith(UNIT_TIME) else float(_setting(network, "timestep_scale", 1.0))
    return convention(scheduler, rounded)(_Network(network, unit, fixed).train(network.training))


def network_of(model: Any) -> nn.Module:
    """The network of a pipeline: its UNet or transformer; a network is returned as it is.

    Raises:
        InputError: if there is none, or more than one.
    """
    if isinstance(model, nn.Module):
        return model
    names = ("unet", "transformer", "prior", "decoder")
    found = [network for name in names if isinstance(network := getattr(model, name, None), nn.Module)]
    if not found:
        raise InputError(f"a {type(model).__name__} has no unet and no transformer: give the network itself")
    if getattr(model, "transformer_2", None) is not None or getattr(model, "unet_2", None) is not None:
        raise InputError(f"{type(model).__name__} changes its network on the way down: give one network alone")
    return found[0]


def convention(scheduler: Any, rounded: bool = False) -> Callable[[Callable[..., Tensor]], Denoiser]:
    """A function from networks to denoisers, by what a scheduler says that its network sees and predicts.

    A network is called as ``network(z, time, **conditions)``, with the scheduler's time.

    Raises:
        InputError: if it is no scheduler, or of networks that are no denoisers, or predicts something unknown.
    """
    name = type(scheduler).__name__
    config = getattr(scheduler, "config", None)
    if config is None:
        raise InputError(f"a {name} is no scheduler of diffusers: it has no config")
    if name.startswith(CONSISTENCY):
        raise InputError(
            f"{name} is of networks that jump to the data in one step, and no denoisers: "
            "a plan needs the network that they were distilled from, and its scheduler"
        )
    if _setting(scheduler, "invert_sigmas", False):
        raise InputError(f"this {name} {COUNTS_UP}")
    if name.startswith("ScoreSdeVe"):
        return _adapter("score", VarianceExploding(float(config.sigma_max)))
    is_flow = name.startswith("FlowMatch") or _setting(scheduler, "use_flow_sigmas", False)
    said = _setting(scheduler, "prediction_type", "flow_prediction" if is_flow else "epsilon")
    if said not in PREDICTIONS:
        raise InputError(f"{name} says that its network predicts {said!r}: expected one of {', '.join(PREDICTIONS)}")
    prediction = PREDICTIONS[said]
    if is_flow:
        return _adapter(prediction, RectifiedFlow(float(config.num_train_timesteps)))
    if (spread := _setting(scheduler, "sigma_data", None)) is not None:
        if prediction not in ("epsilon", "v"):
            raise InputError(f"{name} says that its network predicts {said!r}: EDM's raw output is meant by epsilon")
        sign = 1.0 if prediction == "epsilon" else -1.0
        arctan = name.startswith("Cosine")
        return lambda network: RawEDM(network, float(spread), sign, float(config.sigma_max), arctan)
    if _setting(scheduler, "timestep_type", "discrete") == "continuous" and prediction == "v":
        return _adapter(prediction, _LogTime(float(max(scheduler.sigmas))))
    if not hasattr(scheduler, "alphas_cumprod"):
        raise InputError(f"{name} does not say what its network sees: expected alphas_cumprod, or a flow or EDM")
    return _adapter(prediction, DiscreteVariancePreserving(_levels(scheduler), rounded=rounded))


def _adapter(prediction: Prediction, process: Any) -> Callable[[Callable[..., Tensor]], Denoiser]:
    return lambda network: adapt(network, prediction, process)


def _setting(holder: Any, name: str, default: Any) -> Any:
    """A value of a configuration, which may lack it or be no mapping."""
    config = getattr(holder, "config", None)
    return config.get(name, default) if isinstance(config, Mapping) else getattr(config, name, default)


def _levels(scheduler: Any) -> list[float]:
    """The table of alphas_cumprod without a last entry of infinite noise, for which some write 2^-24."""
    table = torch.as_tensor(scheduler.alphas_cumprod).double().cpu()
    kept = table[:-1] if table[-1] <= 0 or _setting(scheduler, "rescale_betas_zero_snr", False) else table
    if len(kept) < len(table):
        warnings.warn(
            f"{type(scheduler).__name__}: the last level of its table is pure noise (zero terminal SNR), which no "
            f"finite sigma is: it is left out, and the network is used up to sigma = {(1 / kept[-1] - 1).sqrt():.6g}",
            stacklevel=4,
        )
    return cast("list[float]", kept.tolist())


@dataclass(frozen=True)
class _LogTime:
    r""":math:`z = x / \sqrt{1 + \sigma^2}`; the network's time is :math:`\tfrac14 \ln \sigma`."""

    sigma_max: float

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        return 0.25 * sigma.log()


@dataclass(frozen=True)
class RawEDM:
    r"""A raw network F of EDM as a denoiser.

    .. math:: D = \frac{c^2}{c^2 + \sigma^2}\, x
        \pm \frac{c \sigma}{\sqrt{c^2 + \sigma^2}}\, F\Big(\frac{x}{\sqrt{c^2 + \sigma^2}}, \tfrac14 \ln \sigma\Big)

    Attributes:
        network: F, called as ``network(z, time, **conditions)``.
        sigma_data: c.
        sign: of F's part: 1, or -1 for diffusers' ``v_prediction``.
        sigma_max: the highest level that the network knows.
        arctan: its time is :math:`\tfrac2\pi \arctan \sigma` instead.

    References:
        Karras et al., *Elucidating the Design Space of Diffusion-Based Generative Models*, NeurIPS 2022, Table 1.
    """

    network: Callable[..., Tensor]
    sigma_data: float = 0.5
    sign: float = 1.0
    sigma_max: float = math.inf
    arctan: bool = False

    def __call__(self, x: Tensor, sigma: Any, /, **conditions: Any) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        level = torch.as_tensor(sigma, dtype=wide.dtype, device=x.device).expand(len(x))
        if bool((level > self.sigma_max * (1 + 1e-6)).any()):
            raise InputError(
                f"the network knows noise up to sigma = {self.sigma_max:.6g}: got {float(level.max()):.6g}"
            )
        c, norm = self.sigma_data, (level**2 + self.sigma_data**2).sqrt()
        time = level.atan() * (2 / math.pi) if self.arctan else 0.25 * level.log()
        out = self.network((wide / expand(norm, wide)).to(x.dtype), time, **conditions)
        keep, add = (c / norm) ** 2, self.sign * c * level / norm
        return (expand(keep, wide) * wide + expand(add, wide) * out).to(x.dtype)


class _Network(nn.Module):
    """A network of diffusers as ``network(z, time, **conditions)``, whose answer is a tensor of z's shape."""

    def __init__(self, model: nn.Module, unit: float, fixed: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.unit, self.fixed = model, unit, dict(fixed)

    def forward(self, z: Tensor, time: Tensor, **conditions: Any) -> Tensor:
        if "label" in conditions:
            conditions["class_labels"] = conditions.pop("label")
        given = {name: _shared(value, len(z), name) for name, value in conditions.items() if value is not None}
        dtype = next((p.dtype for p in self.model.parameters() if p.is_floating_point()), z.dtype)
        time = time if self.unit == 1 else self.unit * time
        out = self.model(z.to(dtype), timestep=time, **self.fixed, **given)
        return _tensor_of(out, z.shape[1]).to(z.dtype)


def _tensor_of(out: Any, channels: int) -> Tensor:
    """A network's answer itself, and of one with twice the channels, which learned a variance too, the first half."""
    out = getattr(out, "sample", out)
    out = out[0] if isinstance(out, tuple) else out
    if isinstance(out, Tensor) and out.ndim > 2 and out.shape[1] == 2 * channels:
        return out[:, :channels]
    return cast(Tensor, out)


def _shared(value: Any, count: int, name: str) -> Any:
    """A condition with one row for each sample: a single row is that of all of them."""
    if isinstance(value, Mapping):
        return {key: _shared(inner, count, key) for key, inner in value.items()}
    if isinstance(value, Tensor) and value.ndim > 0 and len(value) == 1 and name not in SHARED:
        return value.expand(count, *value.shape[1:])
    return value


@dataclass(frozen=True)
class Latents:
    r"""To the space of a latent network and back: :math:`z = (\text{latents} - \text{shift}) \cdot \text{scale}`.

    Attributes:
        vae: with ``encode`` and ``decode``, and in its config ``scaling_factor``, ``shift_factor``, and by channel
            ``latents_mean`` and ``latents_std``, as far as they are there.

    Images are of shape (B, C, H, W), in [-1, 1].
    """

    vae: Any

    def __post_init__(self) -> None:
        if not (hasattr(self.vae, "encode") and hasattr(self.vae, "decode")):
            raise InputError(f"a {type(self.vae).__name__} does not encode and decode: give a pipeline's vae")

    @property
    def space(self) -> Space:
        """The part that a plan keeps (:meth:`headstart.Plan.with_latents`): numbers, and no name that builds a VAE."""
        shift, scale = (torch.as_tensor(each).flatten().tolist() for each in self._affine(torch.zeros(1, 1)))
        return Space("", tuple(scale), tuple(shift))

    @torch.no_grad()
    def encode(self, images: Tensor, /) -> Tensor:
        """The latents of images, as the network sees them: the mode of what the encoder says."""
        code = self.vae.encode(images)
        latents = code.latent_dist.mode() if hasattr(code, "latent_dist") else code.latent
        shift, scale = self._affine(latents)
        return cast(Tensor, (latents - shift) * scale)

    @torch.no_grad()
    def decode(self, z: Tensor, /) -> Tensor:
        """The images of latents."""
        shift, scale = self._affine(z)
        return cast(Tensor, self.vae.decode(z / scale + shift).sample)

    def _affine(self, like: Tensor) -> tuple[Tensor | float, Tensor | float]:
        def by_channel(name: str) -> Tensor | None:
            values = _setting(self.vae, name, None)
            return None if values is None else torch.as_tensor(values).to(like).reshape(1, -1, *[1] * (like.ndim - 2))

        mean, std = by_channel("latents_mean"), by_channel("latents_std")
        shift = _setting(self.vae, "shift_factor", None) or 0.0
        scale = _setting(self.vae, "scaling_factor", None) or 1.0
        return (shift if mean is None else mean + shift), (scale if std is None else scale / std)


def load(path: str, device: torch.device | str = "cpu") -> Denoiser:
    """The denoiser of a pipeline that was saved to a folder, or of a folder of a network with its scheduler.

    Of a pipeline only the network and the scheduler are read. Nothing is downloaded, only classes of diffusers itself
    are made, and weights are read from safetensors: nothing in the folder is executed.

    Arguments:
        path: what ``save_pretrained`` of a pipeline or of a network wrote; beside the latter a
            ``scheduler_config.json`` or a folder ``scheduler``.
        device: where the network is put.

    Raises:
        DenoiserError: if there is no such folder, something is missing, or a class is none of diffusers.
    """
    folder = Path(path)
    index = folder / "model_index.json"
    if index.is_file():
        parts = _read(index)
        there = [name for name, part in parts.items() if isinstance(part, list) and part and part[0] is not None]
        name = next((name for name in ("unet", "transformer") if name in there), None)
        if name is None or "scheduler" not in there:
            raise DenoiserError(f"{index} names no unet or transformer, or no scheduler")
        network, scheduler = folder / name, folder / "scheduler"
    elif (folder / "config.json").is_file():
        network = folder
        places = (folder, folder / "scheduler", folder.parent / "scheduler")
        scheduler = next((place for place in places if (place / "scheduler_config.json").is_file()), folder)
    else:
        raise DenoiserError(f"{path} holds no model of diffusers: expected model_index.json or config.json in it")
    model = _component(network, "config.json", use_safetensors=True).to(device).eval()
    return from_diffusers(model, read_scheduler(scheduler))


def read_scheduler(folder: Path) -> Any:
    """The scheduler that was saved to a folder.

    Raises:
        DenoiserError: if it is missing or damaged, or its class is none of diffusers.
    """
    return _component(folder, "scheduler_config.json")


def _read(file: Path) -> dict[str, Any]:
    try:
        return dict(parse_json(read_regular(file).decode("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DenoiserError(f"{file} cannot be read: {error}") from error


def _component(folder: Path, file: str, **options: Any) -> Any:
    """The network or the scheduler of a folder, whose class must be one of diffusers."""
    diffusers = require("diffusers", "peers", "a network of diffusers")
    name = str(_read(folder / file).get("_class_name", ""))
    kind = getattr(diffusers, name, None) if name.isidentifier() and not name.startswith("_") else None
    if not (isinstance(kind, type) and hasattr(kind, "from_pretrained")):
        raise DenoiserError(f"{folder / file} names the class {name!r}, which diffusers does not have")
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # a damaged folder fails in many ways
        raise DenoiserError(f"cannot load {folder}: {type(error).__name__}: {error}") from error


LOADERS.register(Loader("diffusers", load, "diffusers:FOLDER"))
