"""How good a denoiser is where the truth is known."""
