"""A plan for the samplers of k-diffusion: its levels and the states at the first of them."""

from headstart import Noise, Sampler, Schedule
from headstart.compare.peers.packages import load
from headstart.initialization import Gaussian
from headstart.integrations.export import export
from headstart.solver import Heun
from headstart.targets import gmm25


def main():
    model = gmm25()  # stands in for your model(x, sigma)
    start = Gaussian.fit(model.sample(Noise(range(500))))
    plan = Sampler(start, Schedule((9.0, 3.0, 1.0, 0.3, 0.0)), Heun())

    found = export(plan, "k-diffusion", seeds=range(16))
    sampling = load("k_diffusion")  # import k_diffusion.sampling, without the rest of the package
    samples = getattr(sampling, found.call)(model, found.tensors["x"], found.tensors["sigmas"].float(), disable=True)
    print(f"{len(samples)} samples by {found.call}, {found.evaluations} evaluations each:", *found.notes, sep="\n")
    return samples


if __name__ == "__main__":
    main()
