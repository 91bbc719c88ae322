"""Noise, without networks: diffusion processes as tables of coefficients, and the loop that runs them."""
