"""Images refined from coarse ones: conditional starts against unconditional ones, by the scores of ensembles.

Fashion-MNIST at 7 x 7 is the condition, at 28 x 28 the sample: a field refined from a coarse one, at our size. The
network is a small one of our own, trained on the training images (:mod:`experiments.refinement.network`).

For every seed the network is measured on images that are held out, and plans of 2, 3 and 4 evaluations are fitted: of
all starts that ``fit`` considers by itself, of each family of conditional starts alone, and of the unconditional
families. Beside them are EDM's Heun sampler with 35 evaluations from noise, with the same conditions, and the
interpolated coarse image. A run goes on where it was stopped.

1. **Scores**: of a number of test images, each with an ensemble, the CRPS of the pixels and the energy score of the
   image, both by the true image, and the width of the ensembles over the error of their means. Errors are over the
   cases of all seeds.
2. **Distance**: the energy distance of each ensemble to one of Heun's sampler for the same coarse image and other
   seeds, as a mean over the cases. It is the sampler's own error: the scores hold what the coarse image leaves open as
   well, which no sampler can mend. Its estimate has no bias, and is 0 for the network's own law.

References:
    Mardani et al., *Residual Corrective Diffusion Modeling for Km-scale Atmospheric Downscaling*, 2023, arXiv
    2309.15214 (which refines fields so, with a regression for the mean).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from experiments.common import Run, estimate, groups
from experiments.refinement.network import FACTOR, Refiner, coarsened, refiner
from headstart.choose import fit, fit_starts, hold_out
from headstart.compare.cells import Cells
from headstart.data import fashion_mnist
from headstart.files import atomic_write
from headstart.initialization import Initialization
from headstart.metrics import crps, energy_score, spread_to_error
from headstart.noise import generator_of
from headstart.plan import Plan
from headstart.profile import Profile
from headstart.sampler import CLASSIC_NFE, Sampler, classic

__all__ = ["distances", "refinement", "verdict"]

#: The starts that each method chooses from.
METHODS: Mapping[str, tuple[str, ...]] = {
    "plan": ("isotropic", "gaussian", "mixture", "regression", "conditional-mixture"),
    "regression": ("regression",),
    "conditional mixture": ("conditional-mixture",),
    "network's mean": ("network-mean",),
    "unconditional": ("isotropic", "gaussian", "mixture"),
}

HEUN, COARSE, HEUN_AGAIN = "Heun", "the coarse image", "Heun, other seeds"

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Sizes:
    """How much is done."""

    images: int = 3000
    nfe: tuple[int, ...] = (2, 3, 4)
    cases: int = 150
    members: int = 10
    usual: int = CLASSIC_NFE
    pilot_samples: int = 128
    methods: tuple[str, ...] = tuple(METHODS)


QUICK = Sizes(300, (2,), 6, 4, 5, 24, ("plan", "unconditional"))


def refinement(run: Run) -> dict[str, Any]:
    """Images refined from coarse ones: conditional starts against unconditional ones, by the scores of ensembles."""
    sizes = QUICK if run.quick else Sizes()
    network = refiner(run.device)
    train, test = (fashion_mnist(split, bundled=run.quick).samples for split in ("train", "test"))
    cells = run.cells()
    rows: list[Row] = []
    for seed in range(run.seeds):
        setup = _Setup(run, sizes, network, train, test, cells, seed)
        for row in setup.rows():
            rows.append(row)
            run.table("summary", _summary(rows))
            run.figure("scores", _scores(_summary(rows)))
    run.figure("ensembles", _Setup(run, sizes, network, train, test, cells, 0).picture())
    return {
        "data": f"{min(sizes.images, len(train))} of {len(train)} training images for a seed, {len(test)} test images",
        "cases": sizes.cases,
        "members": sizes.members,
        "summary": _summary(rows),
        "rows": [{name: _mean(value) for name, value in row.items()} for row in rows],
    }


@dataclass(frozen=True, eq=False)
class _Setup:
    """The plans of one seed, and its cases."""

    run: Run
    sizes: Sizes
    network: Refiner
    train: Tensor
    test: Tensor
    cells: Cells
    seed: int

    def rows(self) -> Iterator[Row]:
        """The scores of every method, one by one."""
        heun = self.heun
        for stream, method in enumerate((HEUN, HEUN_AGAIN)):
            yield self.row(method, heun.nfe, partial(self.own, stream), self.own(1 - stream))
        for nfe in self.sizes.nfe:
            for method in self.sizes.methods:
                yield self.row(
                    method, nfe, partial(self.of_plan, method, nfe), self.own(1), partial(self.plan, method, nfe)
                )
        up = F.interpolate(coarsened(self.truth), scale_factor=float(FACTOR), mode="bilinear")
        yield self.row(COARSE, 0, lambda: up[:, None].expand(-1, 2, -1, -1, -1), self.own(1))

    def row(
        self,
        method: str,
        nfe: int,
        draw: Callable[[], Tensor],
        reference: Tensor,
        sampler: Callable[[], Sampler] | None = None,
    ) -> Row:
        """The scores of one method at one number of evaluations, case by case."""

        def scored() -> dict[str, Any]:
            ensembles = draw()
            start = {} if sampler is None else {"start": sampler().initialization.name, "horizon": sampler().horizon}
            return start | {
                "crps": crps(ensembles, self.truth).tolist(),
                "energy": energy_score(ensembles, self.truth).tolist(),
                "distance": distances(ensembles, reference).tolist(),
                "width": spread_to_error(ensembles, self.truth),
            }

        return self.cells({"method": method, "nfe": nfe, "seed": self.seed}, scored)

    @property
    def heun(self) -> Sampler:
        """EDM's Heun sampler from noise."""
        return classic((1, 28, 28), self.sizes.usual)

    @cached_property
    def truth(self) -> Tensor:
        """The test images of the cases."""
        order = torch.randperm(len(self.test), generator=generator_of(self.seed + 1000))
        return self.test[order[: self.sizes.cases]]

    @cached_property
    def fitted(self) -> tuple[Tensor, Profile, dict[str, Initialization]]:
        """The training images of this seed, and what was measured and fitted on them for all methods."""
        images = self.train[torch.randperm(len(self.train), generator=generator_of(self.seed))[: self.sizes.images]]
        given = {"coarse": coarsened(images)}
        on, held_out = hold_out(images, self.seed)
        profile = Profile.measure(
            self.network,
            images[held_out],
            conditions={"coarse": given["coarse"][held_out]},
            seed=self.seed,
            device=self.run.device,
            progress=self.run.progress,
        )
        names = list(dict.fromkeys(name for method in self.sizes.methods for name in METHODS[method]))
        starts = fit_starts(
            images[on],
            names,
            seed=self.seed,
            progress=self.run.progress,
            conditions={"coarse": given["coarse"][on]},
            denoiser=self.network,
        )
        return images, profile, dict(zip(names, starts, strict=True))

    def plan(self, method: str, nfe: int) -> Plan:
        """The plan of a method, kept on disk."""
        folder = self.run.out / "plans" / f"{self.seed}-{method.replace(' ', '-')}-{nfe}"
        if not folder.exists():
            images, profile, starts = self.fitted
            fit(
                self.network,
                images,
                nfe,
                conditions={"coarse": coarsened(images)},
                profile=profile,
                initialization=[starts[name] for name in METHODS[method]],
                pilot_samples=self.sizes.pilot_samples,
                check=False,
                novelty=False,
                seed=self.seed,
                device=self.run.device,
                progress=self.run.progress,
            ).save(folder)
        return Plan.load(folder)

    def of_plan(self, method: str, nfe: int) -> Tensor:
        """The ensembles of a plan."""
        return self.ensembles(self.plan(method, nfe), 0, self.truth)

    def own(self, stream: int) -> Tensor:
        """The ensembles of Heun's sampler by the seeds of a stream, kept on disk."""
        path = self.run.out / f"heun-{self.seed}-{stream}.safetensors"
        if not path.exists():
            atomic_write(save({"x": self.ensembles(self.heun, stream, self.truth)}), path)
        return load_file(path)["x"]

    def ensembles(self, sampler: Sampler, stream: int, truth: Tensor) -> Tensor:
        """The members (N, K, 1, 28, 28) of all cases, by the same seeds for every sampler."""
        n, k = len(truth), self.sizes.members
        first = (2 * self.seed + stream) * 2**32
        samples = sampler.sample(
            self.network,
            seeds=range(first, first + n * k),
            conditions={"coarse": coarsened(truth).repeat_interleave(k, dim=0)},
            device=self.run.device,
            progress=self.run.progress,
        )
        return samples.reshape(n, k, *samples.shape[1:])

    def picture(self, members: int = 5) -> Figure:
        """One coarse image, its truth, members of the ensembles, their means and their spread, by each sampler."""
        members, nfe, truth = min(members, self.sizes.members), self.sizes.nfe[0], self.truth[:1]
        lines = {f"{HEUN}, {self.heun.nfe}": self.own(0)[0, :, 0]}
        for method in ("plan", "unconditional"):
            lines[f"{method}, {nfe}"] = self.ensembles(self.plan(method, nfe), 0, truth)[0, :, 0]
        figure = Figure(figsize=(1.1 * (members + 4), 1.2 * len(lines)), layout="constrained")
        axes = figure.subplots(len(lines), members + 4, squeeze=False)
        for line, (name, ensemble) in zip(axes, lines.items(), strict=True):
            pictures = [coarsened(truth)[0, 0], truth[0, 0], *ensemble[:members], ensemble.mean(0)]
            titles = ["coarse", "truth", *(f"member {i + 1}" for i in range(members)), "mean"]
            for ax, picture, title in zip(line, pictures, titles, strict=False):
                ax.imshow(picture, cmap="gray", vmin=-0.41, vmax=1.01)
                ax.set_title(title, fontsize=7)
            line[-1].imshow(ensemble.std(0), cmap="magma", vmin=0, vmax=0.4)
            line[-1].set_title("spread", fontsize=7)
            line[0].set_ylabel(name, fontsize=7)
            for ax in line:
                ax.set(xticks=[], yticks=[])
        return figure


def distances(a: Tensor, b: Tensor) -> Tensor:
    """The energy distance of two ensembles (N, K, \\*S) and (N, L, \\*S) of each case, without bias: (N,)."""
    x, y = a.double().flatten(2), b.double().flatten(2)
    k, m = x.shape[1], y.shape[1]
    within = [2 * torch.stack([torch.pdist(own).sum() for own in z]) / (n * (n - 1)) for z, n in ((x, k), (y, m))]
    return 2 * torch.cdist(x, y).mean((1, 2)) - within[0] - within[1]


def _summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each method at each number of evaluations over the cases of all seeds; errors are of means over the cases.

    The scores are also there as parts of Heun's and, case by case, less Heun's.
    """
    heun = {row["seed"]: row for row in rows if row["method"] == HEUN}
    found = []
    for (method, nfe), own in groups(rows, "method", "nfe").items():
        row: dict[str, Any] = {"method": method, "nfe": nfe}
        for name in ("crps", "energy", "distance"):
            told = estimate([value for each in own for value in each[name]])
            row |= {name: told["mean"], f"{name}_error": told["error"]}
            if name != "distance":
                base = [value for each in own for value in heun[each["seed"]][name]]
                apart = estimate([a - b for a, b in zip(_all(own, name), base, strict=True)])
                row |= {f"{name}_to_heun": _all(own, name).mean() / np.mean(base)}
                row |= {f"{name}_less_heun": apart["mean"], f"{name}_less_heun_error": apart["error"]}
        row["width"] = sum(each["width"] for each in own) / len(own)
        starts = (f"{each['start']} at {each['horizon']:.3g}" for each in own if "start" in each)
        found.append(row | {"starts": ", ".join(dict.fromkeys(starts)), "seeds": len(own)})
    return found


def _mean(value: Any) -> Any:
    """The mean of the scores of cases; other values as they are."""
    return float(np.mean(value)) if isinstance(value, list) else value


def _all(rows: Sequence[Row], name: str) -> NDArray[np.float64]:
    return np.concatenate([row[name] for row in rows])


def _scores(summary: Sequence[Row]) -> Figure:
    """The scores and the distance by the number of evaluations."""
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    titles = {"crps": "CRPS of the pixels", "energy": "energy score", "distance": "distance to Heun's ensembles"}
    for ax, (name, title) in zip(figure.subplots(1, 3), titles.items(), strict=True):
        for (method,), own in groups(summary, "method").items():
            x, y, error = ([row[key] for row in own] for key in ("nfe", name, f"{name}_error"))
            if method == HEUN:
                ax.axhline(0 if name == "distance" else y[0], color="0.5", linestyle="--", label=f"Heun, {x[0]}")
            elif method in METHODS:
                ax.errorbar(x, y, error, marker="o", markersize=3, label=method)
        ax.set(title=title, xlabel="evaluations", xticks=sorted({r["nfe"] for r in summary if r["method"] in METHODS}))
    figure.axes[0].legend(frameon=False, fontsize=7)
    return figure


def verdict(results: Mapping[str, Any]) -> str:
    """The result in sentences: the plan at each number of evaluations, against Heun's and unconditional starts."""
    known = {(row["method"], row["nfe"]): row for row in results["summary"]}
    heun = next(row for row in results["summary"] if row["method"] == HEUN)
    counts = sorted(nfe for method, nfe in known if method == "plan")

    def said(name: str) -> str:
        pairs = (f"{known['plan', n][name]:.3f} ({known['unconditional', n][name]:.3f}) at {n}" for n in counts)
        return ", ".join(pairs)

    return (
        f"Plans have these parts of the CRPS of EDM's Heun sampler at {heun['nfe']} evaluations, in brackets those of "
        f"unconditional starts: {said('crps_to_heun')}; of its energy score {said('energy_to_heun')}. The energy "
        f"distance to its ensembles is {said('distance')}."
    )
