"""A posterior of sbi: NPSE is trained by sbi itself, whose posterior then samples by a plan.

A linear simulator stands in for yours; of it the exact posterior is known.
"""

import torch
from sbi.inference import NPSE
from sbi.utils import BoxUniform

from headstart import Sampler, Schedule
from headstart.choose import own_samples
from headstart.initialization import Gaussian
from headstart.integrations.sbi import from_sbi, to_sbi
from headstart.solver import DPMSolverPP2M


def main(simulations=1000, epochs=20):
    torch.manual_seed(0)
    prior = BoxUniform(-2 * torch.ones(2), 2 * torch.ones(2))
    theta = prior.sample((simulations,))
    observed = torch.tensor([[0.4, -0.2]])
    trainer = NPSE(prior, sde_type="vp", show_progress_bars=False)
    trainer.append_simulations(theta, theta + 0.3 * torch.randn_like(theta))
    estimator = trainer.train(max_num_epochs=epochs)
    posterior = trainer.build_posterior(estimator)
    own = posterior.sample((64,), x=observed, steps=50, show_progress_bars=False)

    # The observation becomes a part of the denoiser; with time, plan = fit(denoiser, None, nfe=4, shape=(2,)).
    denoiser = from_sbi(estimator, observed)
    start = Gaussian.fit(own_samples(denoiser, (2,), 200))
    plan = Sampler(start, Schedule((1.5, 0.6, 0.25, 0.1, 0.0)), DPMSolverPP2M())
    steps = to_sbi(plan, posterior, observed)
    given = {"predictor": steps.predictor, "ts": steps.ts}
    samples = posterior.sample((256,), x=observed, show_progress_bars=False, **given)
    print(f"{len(samples)} samples of {plan.nfe} evaluations each, mean {samples.mean(dim=0).tolist()}", end=" ")
    print(f"beside that of {len(own)} of sbi, {own.mean(dim=0).tolist()}")
    return samples


if __name__ == "__main__":
    main()
