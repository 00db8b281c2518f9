"""A small latent model: an autoencoder, a denoiser of its latents, and a plan that returns images."""
