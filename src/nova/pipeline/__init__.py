"""From prompts, images and clips to pixels: `NovaPipeline`."""

from nova.pipeline.pipeline import NovaPipeline, NovaPipelineOutput

__all__ = ["NovaPipeline", "NovaPipelineOutput"]
