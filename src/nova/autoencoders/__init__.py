"""Pixels and latents: the video autoencoder, long clips in windows, and one face over all autoencoders."""
