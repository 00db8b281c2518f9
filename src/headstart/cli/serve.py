"""``headstart serve``: samples of a plan by HTTP."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from headstart.cli.common import Answer, BatchSize, Device, Json, ModelSpec, Terminated, command, usable
from headstart.cli.conditions import SharedFiles, read_conditions

__all__ = ["EXAMPLES", "serve"]

EXAMPLES = (
    "headstart serve plan builtin:fashion-mnist",
    "headstart serve plan4 builtin:fashion-mnist --also plan8 --port 8080",
    "headstart serve plan python:mymodel:load --max-n 64",
)


@command(*EXAMPLES)
def serve(
    plan: Annotated[Path, typer.Argument(readable=False, metavar="PLAN", help="The folder that headstart fit made.")],
    model: ModelSpec,
    also: Annotated[
        list[Path] | None,
        typer.Option(
            readable=False, metavar="PLAN", help="A plan of the same data with other evaluations. Repeatable."
        ),
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Where to listen; 0.0.0.0 is everywhere.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="Of that address.")] = 8000,
    max_n: Annotated[int, typer.Option(metavar="N", min=1, help="Samples of one request.")] = 256,
    queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="Samples that may wait; more are refused by 429, Retry-After.")
    ] = 1024,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.1, help="Until a request is given up, and to end.")
    ] = 60.0,
    shared: SharedFiles = None,
    device: Device = "cpu",
    batch_size: BatchSize = 64,
    as_json: Json = False,
) -> Answer:
    """Serve samples of a PLAN by HTTP, with a page to try it, until Ctrl-C or SIGTERM.

    Requests that come together share a batch. They need the key in HEADSTART_API_KEY, if the environment holds one.
    """
    from headstart.serve import check_libraries

    check_libraries()
    device = usable(device)
    from headstart.models import load_denoiser
    from headstart.plan import Plan
    from headstart.serve.app import application, key_of_environment, run
    from headstart.serve.limits import Limits

    app = application(
        [Plan.load(folder) for folder in (plan, *(also or ()))],
        load_denoiser(model, device),
        device=device,
        limits=Limits(n=max_n, queue_size=queue, batch_size=batch_size, timeout=timeout),
        key=key_of_environment(),
        shared=read_conditions(None, shared),
    )
    with contextlib.suppress(Terminated):  # uvicorn has answered what was open, and passes the signal on
        run(app, host, port, timeout, lambda address: print(f"The page is at {address}", file=sys.stderr, flush=True))
    return Answer("The service has ended", {"ended": True})
