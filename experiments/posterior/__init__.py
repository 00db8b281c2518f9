"""Posteriors of two simulators: a plan of 4 evaluations against sbi's own sampler at 500 steps."""
