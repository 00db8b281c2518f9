"""The folder of a plan: whole or not there, checked when it is read, and read in every version."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from headstart.budget import Budget, discretization_error
from headstart.errors import ArtefactError, HeadstartWarning, InputError
from headstart.files import exchange
from headstart.initialization import Flow, Initialization, Training
from headstart.latents import Latents, Space
from headstart.plan import Conditioning, Plan, Record
from headstart.plan.file import write
from headstart.profile import Profile
from headstart.solver import DDPM
from headstart.targets import gmm25
from tests.cases import SOLVERS, STARTS, TARGET
from tests.plan.cases import CANDIDATES, make

STORED = Path(__file__).parent / "stored"
SAMPLE_OF_VERSION = {
    1: [[0.6986319422721863, 1.6946088075637817]],
    2: [[0.2053869366645813, 1.9860341548919678]],
    3: [[0.8037019968032837, 2.083800792694092]],
}


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("solver", SOLVERS, ids=repr)
def test_a_plan_is_loaded_as_it_was_saved(start, solver, tmp_path):
    plan = make(start, solver)
    if plan.initialization.oracle:
        plan = replace(plan, budget=Budget(None, (0.5,)))
    plan.save(tmp_path / "a" / "plan")
    loaded = Plan.load(str(tmp_path / "a" / "plan"))
    label = torch.arange(20) % 2
    assert torch.equal(loaded.sample(TARGET, 20, label=label), plan.sample(TARGET, 20, label=label))
    assert torch.equal(loaded.sample(TARGET, 20), plan.sample(TARGET, 20))
    assert repr(loaded) == repr(plan)
    assert loaded.explain() == plan.explain()
    assert loaded.to_dict() == plan.to_dict()
    for name in ("nfe", "schedule", "solver", "budget", "record"):
        assert getattr(loaded, name) == getattr(plan, name)
    for name in ("sigmas", "losses", "corrector", "defect"):
        np.testing.assert_array_equal(getattr(loaded.profile, name), getattr(plan.profile, name))
    assert discretization_error(loaded.profile, plan.schedule) == discretization_error(plan.profile, plan.schedule)
    for name in ("sigma_data", "shape", "seed", "digest"):
        assert getattr(loaded.profile, name) == getattr(plan.profile, name)
    assert loaded.profile.samples is None


def test_saving_twice_gives_the_same_bytes(tmp_path):
    make().save(tmp_path / "a")
    Plan.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("plan.json", "tensors.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_folder_holds_two_files_that_others_can_read(tmp_path):
    plan = make()
    plan.save(tmp_path / "plan")
    assert os.listdir(tmp_path) == ["plan"]
    assert sorted(os.listdir(tmp_path / "plan")) == ["plan.json", "tensors.safetensors"]
    values = json.loads((tmp_path / "plan" / "plan.json").read_text(), parse_constant=pytest.fail)
    assert values.pop("tensors_sha256")
    assert values == json.loads(json.dumps(plan.to_dict(), allow_nan=False))
    since_4 = {"final": None, "turn": 0.0}
    assert [{**since_4, **candidate} for candidate in values["candidates"]] == list(map(asdict, CANDIDATES))
    assert not any(since_4.keys() & candidate.keys() for candidate in values["candidates"])
    tensors = safetensors.torch.load_file(tmp_path / "plan" / "tensors.safetensors")
    assert torch.equal(tensors["profile.losses"], torch.from_numpy(plan.profile.losses))


def test_an_older_plan_is_replaced(tmp_path):
    make("mixture", DDPM()).save(tmp_path / "plan")
    make().save(tmp_path / "plan")
    assert repr(Plan.load(tmp_path / "plan")) == repr(make())
    assert os.listdir(tmp_path) == ["plan"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["thesis.tex"], "exists and is not a plan: choose another name"),
        (["plan.json", "thesis.tex"], "is a plan and holds thesis.tex too: choose another name"),
        (["plan.json", "tensors.safetensors", ".git"], r"is a plan and holds \.git too"),
    ],
    ids=str,
)
def test_nothing_but_a_plan_is_replaced(files, said, tmp_path):
    (tmp_path / "mine").mkdir()
    for name in files:
        (tmp_path / "mine" / name).write_text("dear")
    with pytest.raises(ArtefactError, match=f"mine {said}"):
        make().save(tmp_path / "mine")
    assert {path.name: path.read_text() for path in (tmp_path / "mine").iterdir()} == dict.fromkeys(files, "dear")
    assert os.listdir(tmp_path) == ["mine"]


def test_a_file_is_not_replaced(tmp_path):
    (tmp_path / "mine").write_text("dear")
    with pytest.raises(ArtefactError, match="mine exists and is not a plan"):
        make().save(tmp_path / "mine")
    with pytest.raises(ArtefactError, match="cannot be read"):
        make().save(tmp_path / "mine" / "plan")
    assert (tmp_path / "mine").read_text() == "dear"


@pytest.mark.parametrize("older", [False, True])
def test_a_full_disk_leaves_nothing_half_written(older, tmp_path):
    """The system lets no file grow beyond 512 bytes."""
    resource = pytest.importorskip("resource")
    if older:
        make("mixture", DDPM()).save(tmp_path / "plan")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (512, before[1]))
    try:
        with pytest.raises(ArtefactError, match=r"cannot be written to .*plan: File too large"):
            make().save(tmp_path / "plan")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.listdir(tmp_path) == ["plan"] * older
    if older:
        assert repr(Plan.load(tmp_path / "plan")) == repr(make("mixture", DDPM()))


def test_an_empty_folder_is_taken_and_a_link_is_followed(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    for start in ("gaussian", "mixture"):
        make(start).save(tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert repr(Plan.load(tmp_path / "empty")) == repr(make(start))
    assert sorted(os.listdir(tmp_path)) == ["empty", "link"]


def test_the_working_directory_cannot_be_exchanged(tmp_path, monkeypatch):
    make().save(tmp_path / "plan")
    monkeypatch.chdir(tmp_path / "plan")
    for place in (".", tmp_path / "plan"):
        with pytest.raises(ArtefactError, match="is the working directory"):
            make().save(place)


def test_a_plan_whose_writer_was_killed_between_two_moves_is_found(tmp_path):
    """Where folders cannot be exchanged, there is a moment without a plan in its place."""
    make("mixture").save(tmp_path / "plan")
    left = tmp_path / ".headstart-part-abcd1234"
    (left / "ready").mkdir(parents=True)
    (tmp_path / "plan").rename(left / "ready" / "plan")
    with pytest.warns(HeadstartWarning, match="finished writing plan"):
        assert repr(Plan.load(tmp_path / "plan")) == repr(make("mixture"))
    assert os.listdir(tmp_path) == ["plan"]


def save_again_and_again(folder, swap, until):
    plans = [make("gaussian"), make("mixture")]
    while not until.is_set():
        for plan in plans:
            write(plan, folder, swap)


@pytest.mark.parametrize("swap", [exchange, lambda one, other: False], ids=["exchanged", "moved"])
def test_a_plan_is_loaded_while_it_is_replaced(swap, tmp_path):
    make().save(tmp_path / "plan")
    context = multiprocessing.get_context("fork")
    until = context.Event()
    writer = context.Process(target=save_again_and_again, args=(tmp_path / "plan", swap, until))
    writer.start()
    try:
        found = {repr(Plan.load(tmp_path / "plan")) for _ in range(150)}
    finally:
        until.set()
        writer.join()
    assert found <= {repr(make("gaussian")), repr(make("mixture"))}
    assert os.listdir(tmp_path) == ["plan"]


def damage(folder, change):
    """Apply ``change`` to the values of plan.json."""
    values = json.loads((folder / "plan.json").read_text())
    change(values)
    (folder / "plan.json").write_text(json.dumps(values))


def put(*path_and_value):
    """A change that sets a value somewhere inside."""
    *path, last, value = path_and_value

    def change(values):
        for key in path:
            values = values[key]
        values[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("version", 7), "has version 7, and this headstart reads up to 6: upgrade it"),
        (put("version", 0), "damaged: version"),
        (put("version", "1"), "damaged: version"),
        (put("format", "other"), "is not a plan: plan.json does not say"),
        (lambda values: values.pop("format"), "is not a plan"),
        (lambda values: values.pop("nfe"), "damaged: nfe: Field required"),
        (lambda values: values.pop("tensors_sha256"), "damaged: tensors_sha256: Field required"),
        (lambda values: values["profile"].pop("seed"), r"damaged: profile\.seed: Field required"),
        (lambda values: values["candidates"][0].pop("nats"), r"damaged: candidates\.0\.nats: "),
        (put("extra", 1), "damaged: extra: Extra inputs"),
        (put("nfe", "many"), "damaged: nfe"),
        (put("criterion", "taste"), "damaged: criterion"),
        (put("initialization", "name", "laplace"), "unknown initialization 'laplace': expected one of isotropic, "),
        (put("solver", "name", "rk4"), "unknown solver 'rk4': expected one of euler"),
        (put("solver", "parameters", {"churn": 1.0}), "damaged: .*DPMSolverPP2M"),
        (put("initialization", "values", {}), "damaged: 'shape'"),
        (put("initialization", "name", "mixture"), "damaged: the tensor 'weights' is missing"),
        (put("schedule", "sigmas", [1.0, 2.0]), "strictly decreasing"),
        (put("schedule", "sigmas", []), "at least two levels"),
        (put("schedule", "sigmas", 1, float("nan")), "NaN is not a finite number"),
        (put("budget", "initialization", 0, float("inf")), "Infinity is not a finite number"),
        (put("candidates", 1, "nats", float("nan")), "NaN is not a finite number"),
        (put("initialization", "values", "shape", [float("-inf")]), "-Infinity is not a finite number"),
        (put("tensors_sha256", "0" * 64), "tensors.safetensors is not the file"),
    ],
)
def test_damaged_values_are_named(change, message, tmp_path):
    make().save(tmp_path / "plan")
    damage(tmp_path / "plan", change)
    with pytest.raises(ArtefactError, match=message):
        Plan.load(tmp_path / "plan")


@pytest.mark.parametrize(("name", "value"), [("sigmas", [1.0]), ("hidden", ["x"]), ("transforms", "x"), ("gain", "x")])
def test_damaged_values_of_a_flow_are_named(name, value, tmp_path):
    data = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    start = Flow.fit(data, hidden=(4,), transforms=1, training=Training(epochs=1))
    replace(make(), initialization=start).save(tmp_path / "plan")
    assert isinstance(Plan.load(tmp_path / "plan").initialization, Flow)
    damage(tmp_path / "plan", put("initialization", "values", name, value))
    with pytest.raises(ArtefactError, match="plan is damaged: "):
        Plan.load(tmp_path / "plan")


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("candidates", [["x"], [1], "x", None])
def test_candidates_that_are_none_are_named_in_every_version(version, candidates, tmp_path):
    make().save(tmp_path / "plan")
    damage(tmp_path / "plan", lambda values: values.update(version=version, candidates=candidates))
    with pytest.raises(ArtefactError, match="is damaged"):
        Plan.load(tmp_path / "plan")


@pytest.mark.parametrize("version", SAMPLE_OF_VERSION)
def test_a_plan_of_an_older_version_is_read_and_samples_as_it_did(version):
    """Written by the headstart of its time, which drew this sample of it."""
    plan = Plan.load(STORED / f"version-{version}")
    assert (plan.nfe, plan.record.source) == (3, "data")
    assert (plan.profile.trajectories is None) == (version < 3)
    assert all(math.isfinite(c.nats) for c in plan.record.candidates)
    expected = torch.tensor(SAMPLE_OF_VERSION[version])
    torch.testing.assert_close(plan.sample(gmm25(), seeds=[5]), expected, rtol=0, atol=1e-5)


def test_a_number_that_overflows_is_not_finite(tmp_path):
    make().save(tmp_path / "plan")
    text = (tmp_path / "plan" / "plan.json").read_text()
    (tmp_path / "plan" / "plan.json").write_text(text.replace("0.0625", "1e999"))
    with pytest.raises(ArtefactError, match="1e999 is not a finite number"):
        Plan.load(tmp_path / "plan")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"plan"', "{}", "\udcff"], ids=repr)
def test_json_that_is_no_plan(text, tmp_path):
    make().save(tmp_path / "plan")
    (tmp_path / "plan" / "plan.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtefactError, match=r"is damaged: plan\.json is not JSON|is not a plan"):
        Plan.load(tmp_path / "plan")


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_flipped_bit_in_the_tensors_is_seen(place, tmp_path):
    make().save(tmp_path / "plan")
    file = tmp_path / "plan" / "tensors.safetensors"
    blob = bytearray(file.read_bytes())
    blob[place] ^= 1
    file.write_bytes(blob)
    with pytest.raises(ArtefactError, match=r"tensors\.safetensors is not the file that the plan was saved with"):
        Plan.load(tmp_path / "plan")


@pytest.mark.parametrize("name", ["plan.json", "tensors.safetensors"])
def test_a_missing_file_is_named(name, tmp_path):
    make().save(tmp_path / "plan")
    (tmp_path / "plan" / name).unlink()
    with pytest.raises(ArtefactError, match=f"is not a plan: .*{name} cannot be read"):
        Plan.load(tmp_path / "plan")


def test_a_path_that_is_no_folder(tmp_path):
    (tmp_path / "file").write_text("dear")
    for path in (tmp_path / "file", tmp_path / "nothing"):
        with pytest.raises(ArtefactError, match=r"is not a plan: .*cannot be read"):
            Plan.load(path)


@pytest.mark.parametrize("name", ["\ud800", "a\0b"], ids=["surrogate", "zero"])
def test_a_name_that_no_file_can_have_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for work in (Plan.load, make().save, Profile.load, Initialization.load, make().profile.save):
        with pytest.raises(ArtefactError, match="no name that a file can have"):
            work(name)
    assert os.listdir(tmp_path) == []


def test_tensors_of_others_are_refused(tmp_path):
    """A whole safetensors file with the right sum, but without what the plan needs."""

    make().save(tmp_path / "plan")
    for blob in (safetensors.torch.save({"other": torch.ones(2)}), b"no tensors"):
        (tmp_path / "plan" / "tensors.safetensors").write_bytes(blob)
        damage(tmp_path / "plan", put("tensors_sha256", hashlib.sha256(blob).hexdigest()))
        with pytest.raises(ArtefactError, match="is damaged"):
            Plan.load(tmp_path / "plan")


def test_a_plan_of_version_3_is_written_again_as_it_was(tmp_path):
    """To the byte, so that the version need not be raised."""
    Plan.load(STORED / "version-3").save(tmp_path / "plan")
    for name in ("plan.json", "tensors.safetensors"):
        assert (tmp_path / "plan" / name).read_bytes() == (STORED / "version-3" / name).read_bytes()


def doubted(plan):
    return replace(plan, record=replace(plan.record, doubts=("it is no denoiser", "or is it?")))


def test_what_a_start_knows_is_kept_in_a_plan_of_version_5(tmp_path):
    known = Conditioning(("x", "context['text']"), ("ids",), (1.25, 0.03))
    for told, said in (
        (known, "ignored the conditions would pay 1.25"),
        (Conditioning((), ("x",)), "nothing of the con"),
    ):
        plan = make()
        plan = replace(plan, record=replace(plan.record, conditioning=told))
        plan.save(tmp_path / "plan")
        assert json.loads((tmp_path / "plan" / "plan.json").read_text())["version"] == 5
        loaded = Plan.load(tmp_path / "plan")
        assert loaded.record == plan.record
        assert said in loaded.explain()
        assert loaded.digest == plan.digest


def test_latents_are_kept_in_a_plan_of_version_6_by_their_numbers_and_their_name(tmp_path):
    """A file never runs code: until the plan is given what decodes, it says what is missing."""
    latents = Latents(lambda x: x / 2, lambda z: 2 * z, (0.5, 4.0), (1.0, -1.0), "python:mine:codec")
    plan = make()
    latent = plan.with_latents(latents)
    latent.save(tmp_path / "plan")
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["version"] == 6
    loaded = Plan.load(tmp_path / "plan")
    assert (loaded.record, loaded.digest) == (latent.record, latent.digest)
    assert loaded.record.latents == Space("python:mine:codec", (0.5, 4.0), (1.0, -1.0))
    assert "python:mine:codec" in loaded.explain()
    law = TARGET
    with pytest.raises(InputError, match=r"load_latents\(plan.record.latents\), which runs python:mine:codec"):
        loaded.sample(law, 3)
    z = plan.sample(law, 3)
    torch.testing.assert_close(loaded.with_latents(latents).sample(law, 3), latents.decode(z), rtol=0, atol=0)
    torch.testing.assert_close(loaded.with_latents(None).sample(law, 3), z, rtol=0, atol=0)
    assert loaded.with_latents(None).digest == plan.digest


def test_a_doubt_is_kept_and_a_plan_without_one_stays_of_version_3(tmp_path):
    for plan, version in ((make(), 3), (doubted(make()), 4)):
        plan.save(tmp_path / "plan")
        assert json.loads((tmp_path / "plan" / "plan.json").read_text())["version"] == version
        loaded = Plan.load(tmp_path / "plan")
        assert loaded.record == plan.record
        assert [line for line in loaded.explain().splitlines() if line.startswith("Doubt")] == [
            f"Doubt      {doubt}" for doubt in plan.record.doubts
        ]


@pytest.mark.parametrize("said", [{"final": 0.125}, {"turn": -0.5}], ids=lambda said: next(iter(said)))
def test_what_a_pilot_says_more_of_a_candidate_is_kept(said, tmp_path):
    plan = make()
    record = replace(plan.record, candidates=(*CANDIDATES[:2], replace(CANDIDATES[2], **said)))
    replace(plan, record=record).save(tmp_path / "plan")
    assert json.loads((tmp_path / "plan" / "plan.json").read_text())["version"] == 4
    assert Plan.load(tmp_path / "plan").record == record


@pytest.mark.parametrize("name", [field.name for field in fields(Record)])
def test_every_field_of_the_record_is_saved_and_must_be_there(name, tmp_path):
    plan = doubted(make())
    replace(plan, record=replace(plan.record, latents=Space())).save(tmp_path / "plan")
    damage(tmp_path / "plan", lambda values: values.pop(name))
    with pytest.raises(ArtefactError, match=f"damaged: {name}: Field required"):
        Plan.load(tmp_path / "plan")


def test_the_digest_tells_plans_apart_but_not_by_the_time_that_fitting_took(tmp_path):
    plan = make()
    assert replace(plan, record=replace(plan.record, fit_seconds=99.0)).digest == plan.digest
    plan.save(tmp_path / "plan")
    assert Plan.load(tmp_path / "plan").digest == plan.digest
    assert replace(plan, record=replace(plan.record, seed=8)).digest != plan.digest
    assert make("mixture").digest != plan.digest
