"""Presets: named sets of ordinary options, from the published defaults to quick drafts.

What they give up is measured on the small model (benchmarks/presets.py, docs/generate.md). An option given beside a
preset wins over the preset's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nova.errors import UsageError, nearest


@dataclass(frozen=True)
class Preset:
    """Options by their names in `NovaPipeline.__call__`; what is not among them keeps its default."""

    summary: str
    options: Mapping[str, int | float]


PRESETS: Mapping[str, Preset] = {
    "exact": Preset("the published defaults", {}),
    "fast": Preset("few sets of tokens, denoised in few steps", {"num_inference_steps": 8, "num_diffusion_steps": 8}),
    "draft": Preset(
        "a frame in two sets of tokens, the second one unguided",
        {"num_inference_steps": 2, "num_diffusion_steps": 7, "guidance_end": 0.5},
    ),
}


def preset_options(name: str) -> Mapping[str, int | float]:
    """The options of a preset. Raises UsageError for a name that is none."""
    if name not in PRESETS:
        raise UsageError(f"preset: {name!r}{nearest(str(name), PRESETS)}")
    return PRESETS[name].options
