"""Images refined from coarse ones: conditional starts against unconditional ones, by the ensemble's scores."""
