"""Maximum likelihood: its optimum in closed form, its noise, its checkpoints, and what stops it."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from headstart.errors import ArtefactError, DataError, InputError
from headstart.initialization.training import Record, Training, noised, train
from headstart.progress import Progress

LEVELS = (0.5, 4.0)
SHORT = Training(epochs=4, batch_size=64, learning_rate=0.02, levels=4)


def points(n: int = 600, d: int = 2, seed: int = 0) -> Tensor:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return 1.5 + 0.7 * z


class Normal(nn.Module):
    """N(m, (s^2 + sigma^2) I) with m and ln s to be learned."""

    def __init__(self, d: int = 2) -> None:
        super().__init__()
        self.mean, self.log_width = nn.Parameter(torch.zeros(d)), nn.Parameter(torch.zeros(()))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        variance = (2 * self.log_width).exp() + sigma[:, None] ** 2
        return -0.5 * ((x - self.mean).square() / variance + (2 * math.pi * variance).log()).sum(1)


class Kernels(nn.Module):
    """A mixture of as many Gaussians as one likes, whatever the level: enough to learn points by heart."""

    def __init__(self, count: int, d: int = 2) -> None:
        super().__init__()
        self.means = nn.Parameter(1.5 + 1.2 * torch.randn(count, d, generator=torch.Generator().manual_seed(5)))
        self.log_widths = nn.Parameter(torch.zeros(count))

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        squares = (x[:, None] - self.means).square().sum(-1) * (-2 * self.log_widths).exp()
        d = x.shape[1]
        parts = -0.5 * squares - d * self.log_widths - 0.5 * d * math.log(2 * math.pi)
        return parts.logsumexp(1) - math.log(len(self.means))


class Watched(Normal):
    """Keeps what it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor, Tensor | None]] = []
        self.checked: list[Tensor] = []

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        if self.training:
            self.seen.append((x.clone(), sigma.clone(), label))
        else:
            self.checked.append(torch.cat([x, sigma[:, None]], 1))
        return super().forward(x, sigma, label)


class Bomb(Normal):
    """Answers with a number of its own from a call of training on."""

    def __init__(self, call: int, answer: float) -> None:
        super().__init__()
        self.call, self.answer = call, answer

    def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
        self.call -= self.training
        log_prob = super().forward(x, sigma, label)
        return log_prob if self.call >= 0 else log_prob * 0 + self.answer


class KilledError(Exception):
    pass


class Killer(Progress):
    """Ends the process, so to speak, when something has been noted or worked through a number of times."""

    def __init__(self, epochs: int = 10**9, minibatches: int = 10**9) -> None:
        self.epochs, self.minibatches = epochs, minibatches

    def track(self, items: Iterable[Any], description: str, total: int | None = None) -> Iterator[Any]:
        for item in items:
            if description.startswith("epoch"):
                self.minibatches -= 1
                if self.minibatches < 0:
                    raise KilledError
            yield item

    def note(self, text: str) -> None:
        self.epochs -= text.startswith("held-out")
        if self.epochs <= 0:
            raise KilledError


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, w) for v, w in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


# The optimum.


def test_the_fit_is_the_maximum_of_the_likelihood() -> None:
    """For a normal law: mean and width of the data, and as NLL the entropy, averaged over the levels."""
    data, model = points(4000), Normal()
    record = train(model, data, (0.2, 0.8), options=Training(epochs=25, batch_size=128, learning_rate=0.03))
    torch.testing.assert_close(model.mean.detach(), data.mean(0), rtol=0.0, atol=0.03)
    assert float(model.log_width.detach().exp()) == pytest.approx(float(data.std()), abs=0.03)
    u = torch.linspace(math.log(0.2), math.log(0.8), 2001)
    entropy = float((2 * math.pi * math.e * (0.7**2 + (2 * u).exp())).log().mean())
    assert record.train[-1] == pytest.approx(entropy, abs=0.05)
    assert record.held_out[record.best] == pytest.approx(entropy, abs=0.15)
    assert record.gain > 0.5


def test_classes_reach_the_model_with_their_samples() -> None:
    data = torch.arange(100).float()[:, None].expand(100, 2)
    model = Watched()
    train(model, data, (1e-3, 1e-3), labels=torch.arange(100), options=replace(SHORT, batch_size=16))
    assert model.seen
    for x, _, label in model.seen:
        assert label is not None
        torch.testing.assert_close(x[:, 0].round().long(), label)


# Noise.


def test_noised_data_have_their_level_of_noise_and_one_level_in_each_part_of_the_range() -> None:
    x0 = points(6000)
    x, sigma = noised(x0, LEVELS, 50, torch.Generator().manual_seed(3))
    part = (sigma / LEVELS[0]).log() / math.log(LEVELS[1] / LEVELS[0]) * 50
    assert part.unique().floor().long().tolist() == list(range(50))
    assert torch.bincount(part.floor().long()).tolist() == [120] * 50
    eps = (x - x0) / sigma[:, None]
    assert eps.mean(0).abs().max() < 4 / math.sqrt(6000)
    torch.testing.assert_close(eps.T @ eps / 6000, torch.eye(2), rtol=0.0, atol=0.08)
    assert x.dtype == sigma.dtype == torch.float32


def test_levels_are_log_uniform() -> None:
    """By the distance of their distribution function from the straight line, of a number of draws of one each."""
    generator = torch.Generator().manual_seed(0)
    sigma = torch.cat([noised(points(1), LEVELS, 4, generator)[1] for _ in range(2000)]).sort().values
    u = (sigma / LEVELS[0]).log() / math.log(LEVELS[1] / LEVELS[0])
    assert (u - torch.linspace(0, 1, 2000)).abs().max() < 1.95 / math.sqrt(2000)  # Kolmogorov, 0.1 %


def test_a_range_may_be_a_single_level() -> None:
    x, sigma = noised(torch.zeros(5000, 1), (2.0, 2.0), 4, torch.Generator().manual_seed(0))
    assert sigma.unique().tolist() == [2.0]
    assert float(x.std()) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("kind", ["dynamic", "fixed"])
def test_dynamic_noise_is_new_in_every_epoch_and_fixed_noise_is_not(kind: Any) -> None:
    model = Watched()
    record = train(model, points(200), LEVELS, options=replace(SHORT, noise=kind, held_out=0.2, learning_rate=1e-9))
    rows = torch.cat([torch.cat([x, sigma[:, None]], 1) for x, sigma, _ in model.seen])
    assert len(record.train) == 4
    assert len(rows) == 4 * 160
    assert len(rows.unique(dim=0)) == (640 if kind == "dynamic" else 160)
    epochs = rows.reshape(4, 160, 3)
    assert not torch.equal(epochs[0], epochs[1])  # in another order
    checks = torch.stack(model.checked)
    assert len(checks) == 5
    assert (checks == checks[0]).all()  # held-out samples, of which epochs are compared, keep theirs


def test_fixed_noise_overfits_few_points_and_dynamic_noise_does_not() -> None:
    gaps = {}
    for kind in ("dynamic", "fixed"):
        options = Training(
            epochs=150, batch_size=60, learning_rate=0.03, decay="constant", noise=kind, held_out=0.5, patience=10**6
        )
        record = train(Kernels(40), points(120), (1.0, 1.0), options=options)
        gaps[kind] = record.held_out[-1] - sum(record.train[-10:]) / 10
    assert gaps["fixed"] > 0.5
    assert gaps["fixed"] > 4 * abs(gaps["dynamic"])


# Steps.


def test_steps_are_clipped_slow_down_and_are_averaged() -> None:
    """Gradients, rates and weights of every step, held against the formulas."""
    rates, norms, weights = [], [], []
    model = Normal()

    def before(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        rates.append(optimiser.param_groups[0]["lr"])
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        norms.append(float(torch.cat(gradients).norm()))

    def after(*_: Any) -> None:
        weights.append(model.mean.detach().clone())

    hooks = [
        register_optimizer_step_pre_hook(before),
        register_optimizer_step_post_hook(after),
    ]
    options = Training(epochs=5, batch_size=90, learning_rate=0.01, clip=0.05, ema=0.8, levels=4)
    try:
        record = train(model, points(500), LEVELS, options=options)
    finally:
        for hook in hooks:
            hook.remove()
    assert len(rates) == 25
    assert rates == pytest.approx([0.005 * (1 + math.cos(math.pi * k / 25)) for k in range(25)])
    assert norms == pytest.approx([0.05] * 25, rel=1e-4)
    average = torch.zeros(2)
    for step, weight in enumerate(weights):
        kept = min(0.8, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * weight
    assert record.best == 5
    torch.testing.assert_close(model.mean.detach(), average, rtol=1e-5, atol=1e-6)
    assert not model.training
    assert model.mean.grad is None


def test_a_seed_decides_everything_and_the_global_generator_nothing() -> None:
    models = []
    for seed, other in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(other)
        before, model = torch.get_rng_state(), Normal()
        train(model, points(), LEVELS, options=SHORT, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        models.append(model)
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


# Checkpoints.


@pytest.mark.parametrize("noise", ["dynamic", "fixed"])
@pytest.mark.parametrize("killer", [Killer(epochs=2), Killer(minibatches=23)], ids=["after an epoch", "in an epoch"])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, noise: Any, killer: Killer) -> None:
    options = replace(SHORT, noise=noise)
    whole, parts = Normal(), Normal()
    record = train(whole, points(), LEVELS, options=options)
    killer = Killer(killer.epochs, killer.minibatches)
    options = replace(options, checkpoint=tmp_path / "new folder" / "training.safetensors")
    with pytest.raises(KilledError):
        train(parts, points(), LEVELS, options=options, progress=killer)
    parts = Normal()
    resumed = train(parts, points(), LEVELS, options=options)
    assert same(whole, parts)
    assert replace(resumed, seconds=0.0) == replace(record, seconds=0.0)
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["training.safetensors"]


def test_a_finished_training_is_read_and_not_repeated(tmp_path: Path) -> None:
    options, first, again = replace(SHORT, checkpoint=tmp_path / "t"), Normal(), Watched()
    record = train(first, points(), LEVELS, options=options)
    assert train(again, points(), LEVELS, options=options) == record
    assert same(first, again)
    assert again.seen == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"learning_rate": 0.5}}, "other options"),
        ({"options": {"noise": "fixed", "epochs": 9}, "seed": 3}, "other options and seed"),
        ({"data": points(seed=1)}, "other data"),
        ({"sigmas": (0.5, 5.0)}, "other levels"),
        ({"labels": torch.ones(600)}, "other labels"),
        ({"model": Kernels(2)}, "other model"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    options = replace(SHORT, epochs=1, checkpoint=tmp_path / "t")
    train(Normal(), points(), LEVELS, options=options)
    options = replace(options, **change.get("options", {}))
    with pytest.raises(ArtefactError, match=said):
        train(
            change.get("model", Normal()),
            change.get("data", points()),
            change.get("sigmas", LEVELS),
            labels=change.get("labels"),
            options=options,
            seed=change.get("seed", 0),
        )


def test_a_model_that_began_elsewhere_is_another_model(tmp_path: Path) -> None:
    options, other = replace(SHORT, epochs=1, checkpoint=tmp_path / "t"), Normal()
    train(Normal(), points(), LEVELS, options=options)
    nn.init.constant_(other.mean, 1.0)
    with pytest.raises(ArtefactError, match="other model"):
        train(other, points(), LEVELS, options=options)


def test_a_damaged_checkpoint_is_named_and_never_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    file = tmp_path / "t"
    options = replace(SHORT, epochs=1, checkpoint=file)
    train(Normal(), points(), LEVELS, options=options)
    good = file.read_bytes()
    for blob in (pickle.dumps(Trap()), b"", good[: len(good) // 2], good.replace(b"held_out", b"held_up_")):
        file.write_bytes(blob)
        with pytest.raises(ArtefactError, match="damaged"):
            train(Normal(), points(), LEVELS, options=options)
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtefactError, match="cannot write"):
        train(Normal(), points(), LEVELS, options=replace(SHORT, checkpoint=tmp_path / "file" / "t"))


# What stops it.


@pytest.mark.parametrize(("answer", "said"), [(math.nan, "not finite"), (math.inf, "not finite"), (-1e6, "rose")])
def test_a_fit_that_diverges_stops_and_keeps_what_was_good(tmp_path: Path, answer: float, said: str) -> None:
    """600 samples are 540 to train on, so 9 minibatches an epoch: it goes wrong in the third."""
    model = Bomb(20, answer)
    record = train(model, points(), LEVELS, options=SHORT)
    assert said in record.stopped
    assert "epoch 3" in record.stopped
    assert len(record.train) == record.best == 2
    file = tmp_path / "t"
    with pytest.raises(KilledError):
        train(Normal(), points(), LEVELS, options=replace(SHORT, checkpoint=file), progress=Killer(epochs=2))
    saved = safetensors.torch.load_file(file)
    assert all(torch.equal(weight, saved[f"best.{name}"]) for name, weight in model.state_dict().items())


def test_an_extreme_value_is_no_divergence() -> None:
    """Its NLL is huge at any weights, in the minibatches or in the held-out share."""
    data = points()
    data[::100] = 1e8
    record = train(Normal(), data, LEVELS, options=SHORT)
    assert max(record.train) > 1e12
    assert len(record.train) == 4


def test_a_fit_that_diverges_at_once_is_an_error() -> None:
    with pytest.raises(InputError, match=r"epoch 1.*learning rate below 0\.02"):
        train(Bomb(4, math.nan), points(), LEVELS, options=SHORT)
    model = Normal()
    nn.init.constant_(model.mean, math.nan)
    with pytest.raises(InputError, match="before training is nan"):
        train(model, points(), LEVELS, options=SHORT)


def test_training_stops_when_it_no_longer_helps_and_keeps_the_best_epoch() -> None:
    """From the optimum, large steps only lead away: the best is what training began with."""
    data, model = points(), Normal()
    with torch.no_grad():
        model.mean.copy_(data.mean(0))
        model.log_width.fill_(math.log(0.7))
    options = Training(epochs=30, batch_size=64, learning_rate=1.0, patience=3, ema=0.0)
    record = train(model, data, (0.1, 0.2), options=options)
    assert record.best == 0
    assert record.gain == 0
    assert record.stopped == "no better epoch in 3"
    assert len(record.train) == 3
    assert torch.equal(model.mean, data.mean(0))


def test_a_record_says_how_it_went() -> None:
    record = Record((2.5, 2.0), (3.0, 2.25, 2.5), 1, "all epochs are done", 1.25)
    assert repr(record) == (
        "Record(2 epochs in 1.2 s; held-out NLL 3.0000 before, 2.2500 in the best epoch, 1; "
        "stopped: all epochs are done)"
    )
    assert record.gain == 0.75


# Bad input.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("levels", 0),
        ("patience", 0),
        ("learning_rate", 0.0),
        ("learning_rate", math.nan),
        ("weight_decay", -1.0),
        ("held_out", 1.0),
        ("clip", 0.0),
        ("ema", 1.0),
        ("decay", "linear"),
        ("noise", "frozen"),
    ],
)
def test_an_option_out_of_its_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        Training(**{name: value})


def test_data_and_levels_that_do_not_fit_are_named() -> None:
    bad = points()
    bad[3, 1] = math.nan
    for data in (bad, points(1), torch.zeros(5)):
        with pytest.raises(DataError, match="at least two samples"):
            train(Normal(), data, LEVELS)
    for sigmas in ((0.0, 1.0), (2.0, 1.0), (1.0, math.inf), (math.nan, 1.0)):
        with pytest.raises(InputError, match="levels"):
            train(Normal(), points(), sigmas)
    with pytest.raises(InputError, match="labels"):
        train(Normal(), points(), LEVELS, labels=torch.zeros(3))
    with pytest.raises(InputError, match="seed"):
        train(Normal(), points(), LEVELS, seed=-1)


def test_a_model_that_returns_no_densities_is_named() -> None:
    class Wrong(Normal):
        def forward(self, x: Tensor, sigma: Tensor, label: Tensor | None) -> Tensor:
            return super().forward(x, sigma, label)[:, None]

    with pytest.raises(InputError, match=r"expected log densities of shape \(60,\)"):
        train(Wrong(), points(), LEVELS)


def test_two_samples_are_enough() -> None:
    record = train(Normal(), points(2), LEVELS, options=SHORT)
    assert len(record.train) == 4
