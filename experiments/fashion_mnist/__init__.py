"""Families of starts, horizons and numbers of evaluations, on Fashion-MNIST."""
