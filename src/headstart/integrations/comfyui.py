r"""A node of ComfyUI that draws the start of a plan.

A folder below ComfyUI's ``custom_nodes`` with one line in its ``__init__.py`` makes it known:

.. code-block:: python

    from headstart.integrations.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

``SamplerCustomAdvanced`` takes its output as NOISE n, beside the levels of ``headstart export PLAN --to comfyui`` in
``ManualSigmas``. ComfyUI begins at :math:`z + s_0 n` with a latent z, or for flows at :math:`t n + (1 - t) z` with
:math:`t = s_0 / (1 + s_0)`. Both are the plan's start :math:`x_T`, in the network's units, for

.. math:: n = (x_T - z) / s_0.

A plan that starts at the highest level of a network has to be shortened: there ComfyUI multiplies n by :math:`\sqrt{1 +
s_0^2}` instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.plan import Plan
from headstart.sampler import Sampler

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "PlanNoise", "StartNode"]


@dataclass(frozen=True)
class PlanNoise:
    """The noise that takes ComfyUI to a plan's start: an object of its type NOISE.

    Attributes:
        sampler: the plan.
        seed: of the first latent of a batch; the next ones have the next seeds.
    """

    sampler: Sampler
    seed: int = 0

    def generate_noise(self, input_latent: dict[str, Any]) -> Tensor:
        """Noise of the shape of ``input_latent["samples"]``, (B, \\*S).

        Raises:
            InputError: if the plan is for samples of another shape.
        """
        latent: Tensor = input_latent["samples"]
        start = self.sampler.initialization
        if start.shape != tuple(latent.shape[1:]):
            raise InputError(f"the plan is for samples of shape {start.shape}, and the latent is {tuple(latent.shape)}")
        places = input_latent.get("batch_index") or range(len(latent))
        x = start.sample(Noise(self.seed + place for place in places), self.sampler.horizon)
        return (x - latent.to(x)) / self.sampler.horizon


class StartNode:
    """The node: from a folder of a plan and a seed to NOISE."""

    RETURN_TYPES: ClassVar[tuple[str, ...]] = ("NOISE",)
    FUNCTION: ClassVar[str] = "noise"
    CATEGORY: ClassVar[str] = "sampling/custom_sampling/noise"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        """The fields of the node."""
        return {
            "required": {
                "plan": ("STRING", {"default": "plan"}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**53}),
            }
        }

    def noise(self, plan: str, seed: int) -> tuple[PlanNoise]:
        """The output of the node."""
        return (PlanNoise(Plan.load(plan), seed),)


NODE_CLASS_MAPPINGS = {"HeadstartStart": StartNode}
NODE_DISPLAY_NAME_MAPPINGS = {"HeadstartStart": "headstart start"}
