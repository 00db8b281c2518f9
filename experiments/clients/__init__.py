"""Plans on networks of other packages, beside those packages' own samplers."""
