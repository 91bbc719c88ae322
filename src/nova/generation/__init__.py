"""From prompt tokens to latents: frame by frame, set by set, token by token."""
