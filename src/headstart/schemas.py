"""The plain values that files of profiles and trainings hold, as they are checked when one is read.

They stand apart from what is saved, since pydantic takes as long to import as a fifth of PyTorch, and a program that
reads no file does without it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from headstart.arrays import LARGEST

__all__: list[str] = []  # for the modules that read the files


class ProfileValues(BaseModel):
    """The plain values of a saved profile, beside its curves."""

    model_config = ConfigDict(extra="forbid")

    sigma_data: Annotated[float, Field(ge=0, le=LARGEST)]
    shape: list[Annotated[int, Field(ge=1)]]
    seed: Annotated[int, Field(ge=0)]
    digest: str


class TrainingValues(BaseModel):
    """The plain values of a checkpoint of a training, beside its weights."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["headstart-training"]
    identity: dict[str, Any]
    train: list[FiniteFloat]
    held_out: Annotated[list[FiniteFloat], Field(min_length=1)]
    best: Annotated[int, Field(ge=0)]
    stopped: str
    seconds: Annotated[FiniteFloat, Field(ge=0)]
