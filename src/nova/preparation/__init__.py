"""From raw media and captions to latent shards."""
