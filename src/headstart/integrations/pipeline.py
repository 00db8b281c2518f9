r"""A pipeline of diffusers that samples by a plan, unchanged for its user.

:func:`apply` gives the pipeline a scheduler of its own kind, a real ``SchedulerMixin``, whose timesteps are the
evaluations of the plan. Whoever calls the pipeline as before then gets samples that start from the plan's start, visit
its levels exactly and move with its solver, whatever number of steps is asked for:

.. code-block:: python

    with apply(plan, pipe):
        images = pipe("a lighthouse", generator=torch.manual_seed(0)).images

The state that is handed to the pipeline is what its network sees at the next evaluation, :math:`z = \alpha x`, so that
neither ``init_noise_sigma`` nor ``scale_model_input`` scale anything (both are the identity), and pipelines that call
them and those that do not agree. The pipeline's own noise is replaced where its network is first called.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from functools import cache
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from headstart.errors import InputError
from headstart.extras import require
from headstart.integrations.diffusers import convention, network_of
from headstart.integrations.stepping import Stepping, evaluation_levels
from headstart.noise import Noise
from headstart.sampler import Sampler

__all__ = ["Applied", "apply", "seeds_of"]

#: Seeds are drawn below the library's own streams (:class:`headstart.noise.Stream`).
SEEDS = 2**59


def apply(sampler: Sampler, pipe: Any) -> Applied:
    """Make a pipeline sample by a plan.

    The arguments of a call stay what they were: prompts, guidance, generators, output. The number of steps is the
    plan's; ``latents`` are refused, since the plan draws the start, with seeds from the call's ``generator``
    (:func:`seeds_of`). Under guidance an evaluation of the plan is a call of the network for each of its prompts.

    Arguments:
        sampler: a plan, or any start, schedule and solver, for the network's own space.
        pipe: a pipeline of diffusers with one network and a scheduler.

    Returns:
        A handle whose ``undo()`` gives the pipeline back its scheduler; it may also be used in a ``with`` statement.

    Raises:
        InputError: if the pipeline starts from an image, was given a plan before, its scheduler is of no denoiser, or
            the plan starts above what its network knows.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    if "strength" in parameters:
        raise InputError(f"{type(pipe).__name__} starts from a noised image, and a plan from its own start")
    if isinstance(pipe.scheduler, _PlannedSteps):
        raise InputError("the pipeline samples by a plan already: undo that first")
    network = network_of(pipe)
    steps = _scheduler_class()(sampler, pipe.scheduler)
    return Applied(pipe, network, steps)


def seeds_of(generator: Any, count: int) -> list[int]:
    """The seeds of ``count`` samples that a pipeline's ``generator`` stands for.

    Arguments:
        generator: one of PyTorch, which gives them all, or a list with one for each sample. Each is drawn from.
        count: how many.

    >>> seeds_of(torch.Generator().manual_seed(0), 2) == seeds_of(torch.Generator().manual_seed(0), 2)
    True
    """
    each = generator if isinstance(generator, list | tuple) else [generator]
    if len(each) not in (1, count):
        raise InputError(f"there are {len(each)} generators for {count} samples: give one, or one for each")
    rows = [count] if len(each) == 1 else [1] * count
    return [
        int(seed)
        for source, row in zip(each, rows, strict=True)
        for seed in torch.randint(SEEDS, (row,), generator=source, device=source.device)
    ]


class Applied:
    """A pipeline that samples by a plan. Made by :func:`apply`.

    Attributes:
        pipe: the pipeline.
        scheduler: the one that it has meanwhile.
    """

    def __init__(self, pipe: Any, network: nn.Module, scheduler: Any) -> None:
        self.pipe, self.scheduler = pipe, scheduler
        self._before = pipe.scheduler, type(pipe)
        pipe.scheduler = scheduler
        pipe.__class__ = _planned(type(pipe))
        self._hook = network.register_forward_pre_hook(scheduler.begin, with_kwargs=True)

    def undo(self) -> None:
        """Give the pipeline back its own scheduler. Doing it twice does nothing."""
        if self._before is not None:
            self.pipe.scheduler, self.pipe.__class__ = self._before
            self._hook.remove()
            self._before = None  # type: ignore[assignment]

    def __enter__(self) -> Any:
        return self.pipe

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.undo()

    def __repr__(self) -> str:
        state = "undone" if self._before is None else repr(self.scheduler.sampler)
        return f"Applied({type(self.pipe).__name__}: {state})"


def _planned(kind: type) -> type:
    """The class of a pipeline, whose calls tell the scheduler of their generator and refuse what the plan decides."""

    @functools.wraps(kind.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = inspect.signature(kind.__call__).bind_partial(self, *args, **kwargs).arguments
        given = {**given, **given.get("kwargs", {})}
        if given.get("latents") is not None:
            raise InputError("latents were given, and the plan draws the start: leave them out, or undo the plan")
        count, steps = given.get("num_inference_steps"), len(self.scheduler.levels)
        if count is not None and count != steps:
            warnings.warn(f"num_inference_steps={count} is not used: the plan makes {steps} evaluations", stacklevel=2)
        self.scheduler.restart(given.get("generator"))
        return kind.__call__(self, *args, **kwargs)

    return type(kind.__name__, (kind,), {"__call__": call, "__module__": kind.__module__, "__doc__": kind.__doc__})


@cache
def _scheduler_class() -> type:
    """The scheduler, as a class that diffusers takes for one of its own."""
    diffusers = require("diffusers", "peers", "a pipeline")
    bases = (_PlannedSteps, diffusers.SchedulerMixin, diffusers.ConfigMixin)
    return type("PlannedScheduler", bases, {"__module__": __name__, "__doc__": _PlannedSteps.__doc__})


class _PlannedSteps:
    """The evaluations of a plan as the timesteps of a scheduler.

    Attributes:
        sampler: the plan.
        levels: sigma at each evaluation.
        sigmas: the same as a tensor, with the last level of the schedule.
        timesteps: what the network is told for each of them.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(self, sampler: Sampler, scheduler: Any) -> None:
        self.sampler, self._internal_dict = sampler, scheduler.config
        self._denoiser_of = convention(scheduler)
        self.levels = evaluation_levels(sampler)
        for name in ("alphas_cumprod", "betas", "final_alpha_cumprod"):
            if hasattr(scheduler, name):
                setattr(self, name, getattr(scheduler, name))
        like = torch.ones(1, 1)
        self.sigmas = torch.tensor([*self.levels, sampler.schedule.sigmas[-1]])
        self.timesteps = torch.cat([self._seen(like, level)[1] for level in self.levels])
        self.restart(None)

    def restart(self, generator: Any) -> None:
        """Begin anew, with seeds from a generator as it is now: the pipeline goes on to draw from it."""
        if isinstance(generator, list | tuple):
            self._generator: Any = [each.clone_state() for each in generator]
        elif generator is not None:
            self._generator = generator.clone_state()
        else:
            self._generator = torch.Generator().manual_seed(int(torch.randint(SEEDS, ())))
        self._begin()

    def _begin(self) -> None:
        self._steps: Stepping | None = None
        self._told = 0
        self._handed: Tensor | None = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        timesteps: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
        **_: Any,
    ) -> None:
        """Take the timesteps of the plan, whatever is asked for."""
        self.timesteps, self.num_inference_steps = self.timesteps.to(device), len(self.levels)
        self._begin()

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Sampling by a plan begins at its start."""

    @property
    def step_index(self) -> int:
        """How many evaluations were made."""
        return self._told

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The states themselves: they are what the network sees."""
        return sample

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Before a network's call: if it is the first of a run, put the plan's start in the place of its input."""
        if self._told:
            return None
        name = None if args else next(iter(inspect.signature(module.forward).parameters))
        given = args[0] if name is None else kwargs[name]
        if self._steps is None:
            count = _distinct(given)
            shape = tuple(given.shape[1:])
            start = self.sampler.initialization
            if start.shape != shape:
                raise InputError(f"the plan is for samples of shape {start.shape}, and the pipeline makes {shape}")
            noise = Noise(
                seeds_of(self._generator, count), given.device, torch.promote_types(given.dtype, torch.float32)
            )
            label = kwargs.get("class_labels")
            label = label[:count] if isinstance(label, Tensor) and not label.is_floating_point() else None
            x = start.sample(noise, self.sampler.horizon, label)
            self._steps = Stepping(self.sampler.solver, self.sampler.schedule, x, noise)
        z = self._next(given)
        return ((z, *args[1:]), kwargs) if name is None else (args, {**kwargs, name: z})

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        generator: Any = None,
        return_dict: bool = True,
        **_: Any,
    ) -> Any:
        """Go on with the network's answer to what it was shown last.

        Raises:
            InputError: if no network was called before, or the states were changed in between.
        """
        steps = self._steps
        if steps is None or steps.sigma is None:
            raise InputError("there is no evaluation to go on from: a network is called before each step")
        if self._handed is not None and not torch.equal(self._handed, sample):
            raise InputError("the latents were changed between two steps, which a plan does not know: undo it first")
        count, channels = steps.x.shape[:2]
        out = model_output[:count, :channels] if model_output.ndim > 2 else model_output[:count]
        denoised = self._denoiser_of(lambda z, time: out.to(z.dtype))(steps.x, steps.sigma)
        steps.tell(denoised)
        self._told += 1
        self._handed = self._next(sample)
        if not return_dict:
            return (self._handed,)
        clean = _repeated(denoised, sample)
        return require("diffusers", "peers", "a pipeline").schedulers.scheduling_ddim.DDIMSchedulerOutput(
            self._handed, clean
        )

    def _next(self, like: Tensor) -> Tensor:
        """The network's next input, or the samples once all is done, in the form of ``like``."""
        assert self._steps is not None
        x, sigma = self._steps.x, self._steps.sigma
        return _repeated(x if sigma is None else self._seen(x, sigma)[0], like)

    def _seen(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """The network's input for x, and the time that it is told."""
        seen = []

        def record(z: Tensor, time: Tensor) -> Tensor:
            seen.append((z, time))
            return z

        self._denoiser_of(record)(x, sigma)
        return seen[0]

    def __len__(self) -> int:
        return int(self._internal_dict.num_train_timesteps)


def _distinct(batch: Tensor) -> int:
    """How many samples a batch holds that repeats them for guidance: 3 of (a, b, c, a, b, c)."""
    for copies in (3, 2):
        if len(batch) % copies == 0:
            count = len(batch) // copies
            if all(torch.equal(batch[:count], part) for part in torch.split(batch, count)):
                return count
    return len(batch)


def _repeated(x: Tensor, like: Tensor) -> Tensor:
    """x as often as the batch of ``like`` holds it, in its type and device."""
    return x.repeat(len(like) // len(x), *[1] * (x.ndim - 1)).to(like)
