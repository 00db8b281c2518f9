"""``headstart convert``: a pickled network as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import Answer, Json, command

__all__ = ["EXAMPLES", "convert"]

EXAMPLES = ("headstart convert edm-cifar10-32x32-uncond-vp.pkl -o cifar10.safetensors",)


@command(*EXAMPLES)
def convert(
    source: Annotated[Path, typer.Argument(readable=False, metavar="FILE", help="A pickle of EDM or EDM2.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", readable=False, metavar="OUT", help="The file that gets the network.")
    ],
    as_json: Json = False,
) -> Answer:
    """Write the network of a pickle as safetensors, without executing anything of it.

    The result is loaded as edm:OUT or edm2:OUT, like the pickle.
    """
    from headstart.integrations.weights import convert as converted

    record = converted(source, output)
    numbers = sum(tensor.numel() for tensor in record.tensors.values())
    kind = "edm2" if record.kind == "Precond" else "edm"
    return Answer(
        f"{output}: {record.kind}, {len(record.tensors)} tensors of {numbers:,} numbers; load it as {kind}:{output}",
        {"out": str(output), "class": record.kind, "tensors": len(record.tensors), "numbers": numbers, "kind": kind},
    )
