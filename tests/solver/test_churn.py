"""The noise of EDM's churn and of ancestral sampling: by hand, in law, and its limits."""

import math

import pytest
import torch

from headstart.errors import InputError
from headstart.noise import Noise
from headstart.schedule import Schedule, rho_grid
from headstart.solver import DDPM, Heun


def test_a_churned_step_by_hand(gaussian):
    """EDM, Algorithm 2, from 4 to 1 in a grid of two steps, S_churn = 0.5, S_noise = 1.1: gamma = 0.25, raised to 5."""
    x = torch.tensor([[3.0, -2.0, 1.0]], dtype=torch.float64)
    solver = Heun(churn=0.5, churn_min=2.0, churn_noise=1.1)
    states = list(solver.trajectory(gaussian, x, Schedule([4.0, 1.0, 0.0]), Noise([11])))
    raised = x + 1.1 * math.sqrt(5**2 - 4**2) * Noise([11]).normal((3,)).double()
    first = (raised - gaussian(raised, 5.0)) / 5
    euler = raised - 4 * first
    second = (euler - gaussian(euler, 1.0)) / 1
    torch.testing.assert_close(states[0], raised - 4 * (first + second) / 2, rtol=1e-12, atol=1e-12)
    # 1 lies below the window, so the last step draws nothing.
    torch.testing.assert_close(states[1], gaussian(states[0], 1.0), rtol=0, atol=0)


def test_churn_is_capped_at_the_square_root_of_two(gaussian):
    levels = []

    def denoiser(x, sigma):
        levels.append(sigma[0].item())
        return gaussian(x, sigma)

    Heun(churn=1e6).solve(denoiser, torch.ones(1, 3, dtype=torch.float64), Schedule([4.0, 1.0]), Noise([0]))
    assert levels == pytest.approx([4 * math.sqrt(2), 1.0])


@pytest.mark.parametrize("window", [(30.0, 40.0), (0.0, 0.01)])
def test_no_churn_outside_the_window(window, gaussian):
    x, schedule = torch.ones(1, 3), rho_grid(4, 20.0, 0.02)
    outside = Heun(churn=10, churn_min=window[0], churn_max=window[1]).solve(gaussian, x, schedule, Noise([1]))
    assert torch.equal(outside, Heun().solve(gaussian, x, schedule))


@pytest.mark.parametrize(
    "arguments",
    [
        {"churn": -1.0},
        {"churn": math.inf},
        {"churn": math.nan},
        {"churn_noise": -0.1},
        {"churn_noise": math.nan},
        {"churn_min": -1.0},
        {"churn_min": 2.0, "churn_max": 1.0},
        {"churn_max": math.nan},
    ],
    ids=str,
)
def test_churn_is_checked(arguments):
    with pytest.raises(InputError, match="churn"):
        Heun(**arguments)


@pytest.mark.parametrize("solver", [DDPM(), Heun(churn=12)], ids=repr)
def test_mean_and_variance_by_monte_carlo(solver, standard_gaussian):
    """16,000 draws of the final law on N(0, 1), within 4 standard errors of the moments carried through by hand."""
    samples, width, start = 2000, 8, 6.0
    schedule = rho_grid(5, 5.0, 0.3, rho=3, final_zero=False)
    x = torch.full((samples, width), start, dtype=torch.float64)
    states = solver.solve(standard_gaussian, x, schedule, Noise(range(samples))).flatten()
    mean, variance = start, 0.0
    for a, b in schedule.pairs():
        if isinstance(solver, DDPM):
            r = b**2 / a**2
            gain, added = r + (1 - r) / (1 + a**2), r * (a**2 - b**2)
        else:
            raised = a * (1 + min(12 / 5, math.sqrt(2) - 1))
            first = raised / (1 + raised**2)  # (x - D(x)) / sigma, over x
            second = b / (1 + b**2) * (1 + (b - raised) * first)
            gain = 1 + (b - raised) * (first + second) / 2
            added = gain**2 * (raised**2 - a**2)
        mean, variance = gain * mean, gain**2 * variance + added
    n = samples * width
    assert states.mean().item() == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert states.var().item() == pytest.approx(variance, abs=4 * variance * math.sqrt(2 / (n - 1)))
