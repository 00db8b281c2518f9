"""Mixtures of 25 Gaussians, where everything that the budget estimates is known exactly."""
