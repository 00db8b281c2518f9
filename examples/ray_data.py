"""Samples of many seeds as a job of Ray Data: workers hold the plan and the network, and blocks of seeds come."""

import numpy as np
import ray

from headstart import Noise, Sampler, Schedule
from headstart.initialization import Gaussian
from headstart.solver import Heun
from headstart.targets import gmm25


class Draw:
    """A worker. Yours has ``Plan.load(folder)`` and ``load_denoiser(spec, "cuda")`` in their places."""

    def __init__(self):
        self.denoiser = gmm25()
        start = Gaussian.fit(self.denoiser.sample(Noise(range(500))))
        self.plan = Sampler(start, Schedule((4.0, 1.0, 0.3, 0.0)), Heun())

    def __call__(self, block):
        return {"seed": block["id"], "sample": self.plan.sample(self.denoiser, seeds=block["id"]).numpy()}


def main(count=1000, workers=2):
    # A block of seeds is a unit of work, which Ray tries again elsewhere if its worker is lost. With a network on GPUs,
    # num_gpus=1 gives each worker one; write_parquet or write_webdataset in place of take_all keeps the samples.
    seeds = ray.data.range(count, override_num_blocks=8)
    drawn = seeds.map_batches(Draw, batch_size=100, concurrency=workers).take_all()
    drawn.sort(key=lambda row: row["seed"])
    print(f"{len(drawn)} samples of {Draw().plan.nfe} evaluations each, a function of their seeds")
    return np.stack([row["sample"] for row in drawn])


if __name__ == "__main__":
    main()
