"""The mollified Cantor law, whose modes a sampler separates only where its noise levels leave room for it."""
