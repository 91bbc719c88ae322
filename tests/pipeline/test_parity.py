"""The published implementation's recorded generations, made again from the same seeds."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from safetensors.torch import load_file

from nova import NovaPipeline

_NAMES = {"motion_flow": "motion_score", "num_images_per_prompt": "num_videos_per_prompt"}
_SAME = (
    "prompt",
    "negative_prompt",
    "num_inference_steps",
    "num_diffusion_steps",
    "guidance_scale",
    "guidance_trunc",
    "guidance_renorm",
    "image_guidance_scale",
    "min_guidance_scale",
    "flow_shift",
    "class_labels",
)


def test_recorded_calls(record: Path) -> None:
    pipe = NovaPipeline.from_pretrained(record)
    pipe.set_progress_bar_config(disable=True)
    for call in json.loads((record / "calls.json").read_text()):
        expected = load_file(record / call["expected"])
        arguments = {name: call[name] for name in _SAME if name in call}
        arguments |= {ours: call[theirs] for theirs, ours in _NAMES.items() if theirs in call}
        if call["image"]:
            arguments["image"] = np.asarray(PIL.Image.open(record / call["image"]).convert("RGB"))
        latents = pipe(
            **arguments,
            num_frames=pipe.autoencoder.frames(call.get("max_latent_length", 1)),
            generator=torch.Generator().manual_seed(call["seed"]),
            output_type="latent",
        ).frames
        assert (latents - expected["latents"]).abs().max() < 1e-4, call
        pixels = torch.cat([pipe.autoencoder.decode(one) for one in latents.split(1)])
        wanted = expected["pixels"] if expected["pixels"].ndim == 5 else expected["pixels"].unsqueeze(2)
        assert (pixels - wanted).abs().max() < 1e-4, call
