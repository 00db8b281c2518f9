"""The application: the addresses of the service, its limits, its key, its metrics and its page.

==========================  ====  ============================================================================
address                     key   answer
==========================  ====  ============================================================================
``GET /``                         the page to try a plan
``GET /health``                   ``{"status": "ok"}``, or 503 once the service ends
``GET /docs``                     this interface, as a page; ``/openapi.json`` as JSON
``GET /v1/plan``            yes   the plans, the shape of a sample, the limits
``POST /v1/samples``        yes   samples, as JSON, ``.npz`` or PNG
``POST /v1/trajectories``   yes   the way to a few samples, and that of the classic sampler
``GET /metrics``            yes   counts and times, as Prometheus reads them
==========================  ====  ============================================================================

Where the environment holds ``HEADSTART_API_KEY``, requests need ``Authorization: Bearer KEY``. What the queue has no
room for is answered by 429 with ``Retry-After``, what goes beyond the limits by 413 or 422, and what takes too long by
503.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import html
import io
import json
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat
from torch import Tensor

from headstart.compute import Compute
from headstart.denoiser import Denoiser
from headstart.errors import DenoiserError, InputError
from headstart.plan import Plan
from headstart.report.images import image_grid, is_images, png
from headstart.report.lanes import SHOWN, pictured
from headstart.report.page import fragment, render
from headstart.serve.batching import Batcher, BusyError, ClosedError, Task
from headstart.serve.engine import Draw, Engine, Race
from headstart.serve.limits import Limits

__all__ = ["KEY", "application", "run"]

#: Where the key comes from.
KEY = "HEADSTART_API_KEY"


def _seed(value: int) -> int:
    if not 0 <= value < 2**64:
        raise ValueError("a seed is from 0 to 2^64 - 1")
    return value


def _label(value: int) -> int:
    if not 0 <= value < 2**63:
        raise ValueError("a class is from 0 to 2^63 - 1")
    return value


Seed = Annotated[int, AfterValidator(_seed)]
Label = Annotated[int, AfterValidator(_label)]
Row = list[FiniteFloat]
Rows = Row | list[Row] | list[list[Row]] | list[list[list[Row]]]

BEARER = HTTPBearer(auto_error=False, description=f"The key of {KEY}, if the service has one.")

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Samples(BaseModel):
    """Samples to draw: so many from ``first_seed`` on, or those of ``seeds``."""

    model_config = ConfigDict(extra="forbid")

    n: Annotated[int, Field(ge=1)] | None = None
    first_seed: Seed = 0
    seeds: Annotated[list[Seed], Field(min_length=1)] | None = None
    label: Label | list[Label] | None = None
    conditions: dict[str, Rows] = {}
    nfe: Annotated[int, Field(ge=1)] | None = None
    format: Literal["json", "npz", "png"] = "json"


class Trajectories(BaseModel):
    """A few samples whose way is wanted."""

    model_config = ConfigDict(extra="forbid")

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=SHOWN)]
    label: Label | None = None
    nfe: Annotated[int, Field(ge=1)] | None = None
    format: Literal["json", "html"] = "json"


class Meters:
    """Counts and times for Prometheus."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        of: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("headstart_requests", "Requests.", ["path", "status"], **of)
        self.seconds = Histogram("headstart_request_seconds", "From request to answer.", ["path"], **of)
        self.samples = Counter("headstart_samples", "Samples drawn.", **of)
        self.evaluations = Counter("headstart_evaluations", "Network evaluations of samples.", **of)
        self.batch = Histogram(
            "headstart_batch_samples", "Samples of a batch.", buckets=[2**i for i in range(13)], **of
        )
        self.work = Histogram("headstart_batch_seconds", "Time that a batch took.", **of)
        self.waiting = Gauge("headstart_waiting_samples", "Samples in the queue.", **of)
        ProcessCollector(registry=self.registry)

    def told(self, tasks: Sequence[Task], seconds: float) -> None:
        """Count a batch, all of whose tasks are done; the samples of those that failed were not drawn."""
        self.work.observe(seconds)
        drawn = (task.payload for task in tasks if task.answer.exception() is None)
        draws = [payload for payload in drawn if isinstance(payload, Draw)]
        if draws:
            count = sum(len(draw.seeds) for draw in draws)
            self.batch.observe(count)
            self.samples.inc(count)
            self.evaluations.inc(count * draws[0].nfe)


def application(
    plans: Sequence[Plan],
    denoiser: Denoiser,
    *,
    device: str = "cpu",
    limits: Limits | None = None,
    key: str | None = None,
    shared: Mapping[str, Any] | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    Arguments:
        plans: of the same data, told apart by their evaluations; the first one is the default.
        denoiser: the network, on ``device``.
        device: where it works.
        limits: of requests, batches and the queue.
        key: that requests need; none by default.
        shared: conditions that all samples share.

    Raises:
        InputError: if the plans do not go together.
    """
    limits = limits or Limits()
    engine = Engine(plans, denoiser, Compute(device, batch_size=limits.batch_size), shared)
    meters = Meters()
    batcher = Batcher(engine.work, limits.batch_size, limits.queue_size, meters.told)
    meters.waiting.set_function(lambda: batcher.waiting)
    state = {"ending": False}

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        state["ending"] = True
        await asyncio.to_thread(batcher.close, limits.timeout)

    app = FastAPI(title="headstart", docs_url=None, redoc_url=None, lifespan=lifespan, description=_description(plans))

    def allowed(given: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> None:
        if key and not (given and hmac.compare_digest(given.credentials.encode(), key.encode())):
            raise HTTPException(401, "expected Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"})

    guarded = [Depends(allowed)]
    front = render("serve.html", verdict="From a learned start to the sample")

    @app.middleware("http")
    async def counted(request: Request, then: Callable[[Request], Awaitable[Response]]) -> Response:
        began = time.perf_counter()
        length = request.headers.get("content-length", "")
        if request.method == "POST" and not (length.isascii() and length.isdigit()):
            response: Response = JSONResponse({"detail": "a request says how long it is"}, 411)
        elif request.method == "POST" and (len(length) > 12 or int(length) > limits.body_bytes):
            response = JSONResponse({"detail": f"a request has at most {limits.body_bytes} bytes"}, 413)
        else:
            response = await then(request)
        path = getattr(request.scope.get("route"), "path", "other")
        meters.requests.labels(path, str(response.status_code)).inc()
        meters.seconds.labels(path).observe(time.perf_counter() - began)
        response.headers.update(HEADERS)
        return response

    async def done(task: Task) -> Any:
        try:
            return await asyncio.wait_for(asyncio.wrap_future(batcher.submit(task)), limits.timeout)
        except BusyError as error:
            raise HTTPException(429, str(error), {"Retry-After": str(error.retry_after)}) from error
        except ClosedError as error:
            raise HTTPException(503, str(error)) from error
        except TimeoutError as error:
            raise HTTPException(503, f"it took longer than {limits.timeout:g} s") from error
        except (InputError, DenoiserError) as error:
            asked = task.payload  # with conditions, which the network may not know
            given = bool(asked.conditions) if isinstance(asked, Draw) else asked.label is not None
            raise HTTPException(422 if given or isinstance(error, InputError) else 500, str(error)) from error

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def page() -> str:
        return front

    @app.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    def reference() -> str:
        return _reference(app.openapi())

    @app.get("/health", summary="Whether the service takes requests")
    def health() -> Response:
        return JSONResponse({"status": "ending" if state["ending"] else "ok"}, 503 if state["ending"] else 200)

    @app.get("/metrics", dependencies=guarded, summary="Counts and times, as Prometheus reads them")
    def metrics() -> Response:
        return Response(generate_latest(meters.registry), media_type="text/plain; version=0.0.4")

    @app.get("/v1/plan", dependencies=guarded, summary="The plans, the shape of a sample, the limits")
    def plan() -> dict[str, Any]:
        return {
            "shape": list(engine.shape),
            "plans": [_about(plan) for plan in engine.plans.values()],
            "default_nfe": plans[0].nfe,
            "shown": SHOWN,
            "limits": {"n": limits.n, "values": limits.values, "body_bytes": limits.body_bytes},
        }

    @app.post("/v1/samples", dependencies=guarded, summary="Samples, each a function of its seed")
    async def samples(asked: Samples) -> Response:
        draw = _draw(asked, _nfe(asked.nfe, engine, plans), limits, engine.shape)
        drawn = await done(Task(len(draw.seeds), draw.key, draw))
        return await asyncio.to_thread(_written, drawn, draw, asked.format)

    @app.post("/v1/trajectories", dependencies=guarded, summary="The way to a few samples, beside the classic sampler")
    async def trajectories(asked: Trajectories) -> Response:
        race = Race(_nfe(asked.nfe, engine, plans), tuple(asked.seeds), asked.label)
        lanes = await done(Task(len(race.seeds) * limits.race_cost, None, race))
        if asked.format == "html":
            return HTMLResponse(fragment("lanes.html", "lane_list", pictured(lanes, "seconds")))
        return JSONResponse(lanes)

    app.state.batcher = batcher
    return app


def _nfe(asked: int | None, engine: Engine, plans: Sequence[Plan]) -> int:
    nfe = plans[0].nfe if asked is None else asked
    if nfe not in engine.plans:
        raise HTTPException(422, f"no plan has {nfe} evaluations: expected one of {', '.join(map(str, engine.plans))}")
    return nfe


def _draw(asked: Samples, nfe: int, limits: Limits, shape: tuple[int, ...]) -> Draw:
    """The samples of a request, within the limits."""
    if (asked.n is None) == (asked.seeds is None):
        raise HTTPException(422, "expected either n or seeds")
    count = asked.n or len(asked.seeds or ())
    most = limits.most(shape)
    if count > most:
        raise HTTPException(422, f"a request draws at most {most} samples: got {count}")
    seeds = asked.seeds or range(asked.first_seed, asked.first_seed + count)
    if seeds[-1] >= 2**64:
        raise HTTPException(422, "seeds go up to 2^64 - 1")
    conditions: dict[str, Tensor] = {}
    if asked.label is not None:
        labels = [asked.label] * count if isinstance(asked.label, int) else asked.label
        conditions["label"] = torch.tensor(labels)
    for name, rows in asked.conditions.items():
        if name in conditions:
            raise HTTPException(422, "the label is given twice")
        try:
            conditions[name] = torch.tensor(rows, dtype=torch.float32)
        except (ValueError, TypeError) as error:
            raise HTTPException(422, f"the condition {name} has rows of different shapes") from error
        if not torch.isfinite(conditions[name]).all():
            raise HTTPException(422, f"the condition {name} has numbers beyond those of float32")
    for name, value in conditions.items():
        if len(value) != count:
            raise HTTPException(422, f"{name} has {len(value)} rows for {count} samples")
    return Draw(nfe, tuple(seeds), conditions)


def _written(samples: Tensor, draw: Draw, form: str) -> Response:
    """Samples in the form that was asked for."""
    if form == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, samples=samples.float().numpy(), seeds=np.array(draw.seeds, dtype=np.uint64))
        return Response(buffer.getvalue(), media_type="application/octet-stream")
    if form == "png":
        if not is_images(samples):
            raise HTTPException(422, f"samples of shape {tuple(samples.shape[1:])} are no images: take json or npz")
        grid = image_grid(samples.float().numpy(), max(1, int(len(samples) ** 0.5)), (-1.0, 1.0))
        return Response(png(grid), media_type="image/png")
    return JSONResponse({"samples": samples.double().tolist(), "seeds": list(draw.seeds), "nfe": draw.nfe})


def _about(plan: Plan) -> dict[str, Any]:
    return {
        "nfe": plan.nfe,
        "digest": plan.digest,
        "initialization": plan.initialization.name,
        "horizon": plan.horizon,
        "schedule": plan.schedule.name,
        "sigmas": list(plan.schedule.sigmas),
        "solver": plan.solver.name,
    }


def _description(plans: Sequence[Plan]) -> str:
    return "Samples of a diffusion model in " + " or ".join(str(plan.nfe) for plan in plans) + " network evaluations."


def _reference(schema: Mapping[str, Any]) -> str:
    """The interface as a page: every address with its parameters and answers, and the schemas of what is sent."""
    parts = []
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            body = about.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = body.get("$ref", "").rpartition("/")[2]
            sent = f'<p>Body: <a href="#{name}">{name}</a></p>' if name else ""
            key = "<p>Needs the key, if the service has one.</p>" if about.get("security") else ""
            parts.append(
                f"<h2>{method.upper()} {html.escape(path)}</h2><p>{html.escape(about['summary'])}</p>{sent}{key}"
            )
    for name, value in schema["components"]["schemas"].items():
        shown = html.escape(json.dumps(value, indent=1))
        parts.append(f'<h2 id="{name}">{name}</h2><p>{html.escape(value.get("description", ""))}</p><pre>{shown}</pre>')
    style = "body{font:1rem/1.5 system-ui,sans-serif;max-width:50rem;margin:auto;padding:1rem;color-scheme:light dark}"
    style += "pre{overflow:auto;max-height:20rem;border:1px solid;padding:.5rem}"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>headstart: the interface</title><style>{style}</style><main><h1>The interface</h1>"
        f'<p>{html.escape(schema["info"]["description"])} <a href="openapi.json">As JSON</a></p>{"".join(parts)}</main>'
    )


def run(app: FastAPI, host: str, port: int, timeout: float, told: Callable[[str], None] = lambda address: None) -> None:
    """Serve until SIGINT or SIGTERM: then nothing new is taken, and what was taken is answered.

    Arguments:
        app: made by :func:`application`.
        host: the address to listen at.
        port: of it; 0 is one that is free.
        timeout: seconds that open requests have to end.
        told: called with the address of the page.

    Raises:
        InputError: if it cannot listen there.
    """
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=max(1, int(timeout)))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise InputError(f"cannot listen at {host}, port {port}: {error.strerror or error}") from error
        told(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[listening])


def key_of_environment() -> str | None:
    """The key that requests need, from the environment; None where there is none."""
    return os.environ.get(KEY) or None
