"""The service answers with the library's samples, within its limits, to who has the key, until it ends."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor

from headstart.denoiser import expand
from headstart.errors import InputError
from headstart.initialization import Isotropic
from headstart.latents import Latents
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.schedule import rho_grid
from headstart.serve.app import Meters, application
from headstart.serve.batching import Task
from headstart.serve.engine import Draw
from headstart.serve.limits import Limits
from headstart.solver import Euler

SHAPE = (1, 4, 4)


def denoiser(x: Tensor, sigma: Any, label: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
    """N(label / 10 + shift, 1/4) in every pixel, by operations on each number alone: the same in every batch."""
    if label is not None and int(label.max()) > 9:
        raise IndexError("there are 10 classes")
    mean = 0.0 if label is None else label.reshape(-1, 1, 1, 1) / 10
    mean = mean if shift is None else mean + shift.reshape(-1, 1, 1, 1)
    return mean + 0.25 / (0.25 + expand(sigma, x) ** 2) * (x - mean)


def plan(steps: int) -> Plan:
    profile = Profile(
        sigmas=np.array([8.0, 1.0, 0.05]),
        losses=np.array([[2.0, 1.0, 0.01], [2.5, 0.5, 1 / 3]]),
        corrector=np.array([[0.1, 0.2], [0.3, 0.4]]),
        defect=np.array([[0.01, 0.02], [0.03, 0.04]]),
        sigma_data=0.5,
        shape=SHAPE,
        seed=5,
        digest="0f",
    )
    return Plan(Isotropic(SHAPE), rho_grid(steps, 4.0, 0.05), Euler(), None, profile)


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return [plan(3), plan(5)]


@pytest.fixture
def client(plans: list[Plan]) -> Iterator[TestClient]:
    with TestClient(application(plans, denoiser, limits=Limits(n=32, batch_size=16))) as client:
        yield client


def numbers(answer: Any) -> Tensor:
    assert answer.status_code == 200, answer.text
    return torch.tensor(answer.json()["samples"], dtype=torch.float32)


def test_answers_are_the_librarys_for_the_same_seeds(client: TestClient, plans: list[Plan]) -> None:
    for body, expected in (
        ({"n": 3}, plans[0].sample(denoiser, 3)),
        ({"n": 2, "first_seed": 7, "nfe": 5}, plans[1].sample(denoiser, seeds=[7, 8])),
        ({"seeds": [2**64 - 1, 4], "label": 3}, plans[0].sample(denoiser, seeds=[2**64 - 1, 4], label=3)),
        ({"n": 2, "label": [1, 9]}, plans[0].sample(denoiser, 2, label=torch.tensor([1, 9]))),
        ({"n": 2, "conditions": {"shift": [0.5, -2]}}, plans[0].sample(denoiser, 2, shift=torch.tensor([0.5, -2.0]))),
    ):
        assert torch.equal(numbers(client.post("/v1/samples", json=body)), expected)


def test_requests_that_come_together_get_their_own_samples(client: TestClient, plans: list[Plan]) -> None:
    def one(seed: int) -> Tensor:
        return numbers(client.post("/v1/samples", json={"seeds": [seed, seed + 100], "label": seed % 3}))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(one, range(24)))
    for seed, samples in enumerate(found):
        assert torch.equal(samples, plans[0].sample(denoiser, seeds=[seed, seed + 100], label=seed % 3))


def test_samples_come_as_arrays_and_as_images(client: TestClient, plans: list[Plan]) -> None:
    found = np.load(io.BytesIO(client.post("/v1/samples", json={"n": 4, "format": "npz"}).content), allow_pickle=False)
    assert np.array_equal(found["samples"], plans[0].sample(denoiser, 4).numpy())
    assert found["seeds"].tolist() == [0, 1, 2, 3]
    image = client.post("/v1/samples", json={"n": 4, "format": "png"})
    assert (image.headers["content-type"], image.content[:4]) == ("image/png", b"\x89PNG")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"n": 0},
        {"n": 33},
        {"n": 2, "seeds": [1]},
        {"seeds": []},
        {"seeds": [-1]},
        {"seeds": [2**64]},
        {"n": 2, "first_seed": 2**64 - 1},
        {"n": 1, "nfe": 4},
        {"n": 1, "label": 99},
        {"n": 2, "label": [1]},
        {"n": 1, "label": 1.5},
        {"n": 2, "conditions": {"shift": [[1, 2], [1]]}},
        {"n": 2, "conditions": {"unknown": [1, 2]}},
        {"n": 2, "conditions": {"shift": [0, 1e300]}},
        {"n": 1, "format": "exe"},
        {"n": 1, "other": 1},
    ],
)
def test_what_cannot_be_answered_is_refused_and_the_service_goes_on(client: TestClient, body: Any) -> None:
    answer = client.post("/v1/samples", json=body)
    assert answer.status_code == 422
    assert answer.json()["detail"]
    assert client.post("/v1/samples", json={"n": 1}).status_code == 200


def test_a_class_that_the_network_does_not_know_is_refused_for_trajectories_too(client: TestClient) -> None:
    answer = client.post("/v1/trajectories", json={"seeds": [0], "label": 10})
    assert (answer.status_code, "there are 10 classes" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize("timeout", [math.inf, math.nan, 0.0])
def test_limits_are_finite(timeout: float) -> None:
    with pytest.raises(InputError, match=r"timeout is .*: expected a finite number above 0"):
        Limits(timeout=timeout)


def test_a_request_states_its_length_and_has_an_end(client: TestClient) -> None:
    assert client.post("/v1/samples", content=b" " * (Limits.body_bytes + 1)).status_code == 413
    assert client.post("/v1/samples", content=iter([b"{}"])).status_code == 411
    assert client.post("/v1/samples", content=b"[" * 100_000).status_code in (400, 422)


def test_a_full_queue_answers_when_to_come_again(plans: list[Plan]) -> None:
    begun, free = threading.Event(), threading.Event()

    def slow(x: Tensor, sigma: Any) -> Tensor:
        begun.set()
        assert free.wait(30)
        return denoiser(x, sigma)

    with TestClient(application(plans, slow, limits=Limits(queue_size=4))) as client, ThreadPoolExecutor(3) as pool:
        first = pool.submit(client.post, "/v1/samples", json={"n": 1})
        assert begun.wait(30)
        second = pool.submit(client.post, "/v1/samples", json={"n": 4})
        while client.app.state.batcher.waiting < 4:  # type: ignore[attr-defined]
            pass
        refused = client.post("/v1/samples", json={"n": 1})
        free.set()
        assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (429, True)
        assert first.result().status_code == second.result().status_code == 200


def test_a_key_is_asked_for_where_there_is_one(plans: list[Plan]) -> None:
    with TestClient(application(plans, denoiser, key="secret")) as client:
        for path in ("/v1/plan", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code == 401
            assert client.get(path, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.post("/v1/samples", json={"n": 1}).status_code == 401
        assert all(client.get(path).status_code == 200 for path in ("/", "/health", "/docs", "/openapi.json"))


def test_a_network_that_fails_is_no_fault_of_the_client(plans: list[Plan]) -> None:
    with TestClient(application(plans, lambda x, sigma: x * torch.nan)) as client:
        answer = client.post("/v1/samples", json={"n": 1})
        assert (answer.status_code, "NaN" in answer.json()["detail"]) == (500, True)


def test_trajectories_begin_at_the_horizons_and_end_at_the_samples(client: TestClient, plans: list[Plan]) -> None:
    lanes = client.post("/v1/trajectories", json={"seeds": [3, 4], "label": 2, "nfe": 5}).json()
    assert [(lane["lane"], lane["nfe"]) for lane in lanes] == [("plan", 5), ("equal", 5), ("classic", 35)]
    for lane in lanes:
        frames = lane["frames"]
        assert frames[-1]["evaluations"] == lane["nfe"]
        assert [frame["sigma"] for frame in frames] == sorted((frame["sigma"] for frame in frames), reverse=True)
        assert [frame["seconds"] for frame in frames] == sorted(frame["seconds"] for frame in frames)
        assert all(frame["image"].startswith("data:image/webp;base64,") for frame in frames)
    assert [lane["frames"][0]["sigma"] for lane in lanes] == [plans[1].horizon, 80, 80]


def test_trajectories_come_as_a_part_of_the_page(client: TestClient) -> None:
    answer = client.post("/v1/trajectories", json={"seeds": [3], "nfe": 3, "format": "html"})
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.text.count('<li class="lane"') == 3
    assert "<script" not in answer.text
    assert client.post("/v1/trajectories", json={"seeds": [3], "format": "exe"}).status_code == 422


def test_the_plan_the_metrics_and_the_health_are_told(client: TestClient, plans: list[Plan]) -> None:
    about = client.get("/v1/plan").json()
    assert [(p["nfe"], p["digest"]) for p in about["plans"]] == [(p.nfe, p.digest) for p in plans]
    assert (about["shape"], about["limits"]["n"], about["default_nfe"]) == ([1, 4, 4], 32, 3)
    client.post("/v1/samples", json={"n": 5})
    told = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    assert (float(told["headstart_samples_total"]), float(told["headstart_evaluations_total"])) == (5, 15)
    assert float(told['headstart_requests_total{path="/v1/samples",status="200"}']) == 1
    assert client.get("/health").json() == {"status": "ok"}


def test_samples_that_were_not_drawn_are_not_counted() -> None:
    meters, tasks = Meters(), [Task(2, None, Draw(3, (seed, seed + 1), {})) for seed in (0, 2)]
    tasks[0].answer.set_result(torch.zeros(2, *SHAPE))
    tasks[1].answer.set_exception(InputError("no such class"))
    meters.told(tasks, 1.0)
    assert meters.registry.get_sample_value("headstart_samples_total") == 2
    assert meters.registry.get_sample_value("headstart_evaluations_total") == 2 * 3
    assert meters.registry.get_sample_value("headstart_batch_seconds_count") == 1


def test_the_pages_need_nothing_from_elsewhere(client: TestClient) -> None:
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not any(mark in answer.text for mark in ("http://", "https://", "src=", "@import"))
    assert "/v1/samples" in client.get("/docs").text


def test_plans_that_are_not_served_together_are_refused(plans: list[Plan]) -> None:
    latent = plans[0].with_latents(Latents(lambda x: x, lambda z: z))
    for wrong, said in (
        ([], "shapes"),
        ([plans[0], plans[0]], "as many evaluations"),
        ([latent], "decodes no latents"),
    ):
        with pytest.raises(InputError, match=said):
            application(wrong, denoiser)
