"""What a run shows on the way, with its averaged weights: samples of fixed prompts, and the held-out loss.

It looks at a copy of the model, draws from generators of its own and keeps its faults to itself: the run makes the
same numbers as one that nobody looks at. Samples start from the same noise every time, so that pictures of different
steps can be compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from nova.errors import UsageError
from nova.media import contact_sheet, write_image
from nova.models.nova import NovaTransformer
from nova.pipeline import NovaPipeline
from nova.text import encode_text
from nova.training.cluster import Cluster
from nova.training.heldout import held_out_loss
from nova.training.log import RunLog
from nova.training.redact import redacted
from nova.training.train import Observer
from nova.training.transformer import Encode, Inputs, Source, TransformerRun, scheduler_for

SAMPLES = "samples"
_COLUMNS, _SHEET_WIDTH = 8, 2048
"""Most frames beside each other on a sheet, and how wide it should be at most, in pixels."""


def observer(
    config: TransformerRun,
    folder: Path,
    inputs: Inputs,
    held_out: Source | None,
    encode: Encode | None,
    cluster: Cluster,
) -> Observer | None:
    """What `config.observe` asks for, or None if that is nothing. Only the main process looks.

    Sheets of samples go to `folder`/samples/step-<n>.png. `held_out` are samples that are not trained on, `encode` is
    for those that come without text features.

    Raises UsageError for prompts that are no classes of a class-conditional model.
    """
    if not config.observe.every or (held_out is None and not config.observe.prompts):
        return None
    looks: dict[str, Callable[[NovaTransformer, int, RunLog], None]] = {}
    if held_out is not None:
        looks["the held-out loss"] = partial(_measure, config, held_out, inputs, encode)
    if config.observe.prompts and cluster.main:
        conditions = _conditions(config, inputs)
        looks["samples"] = partial(_show, config, folder / SAMPLES, inputs, conditions)

    def look(model: nn.Module, step: int, log: RunLog) -> None:
        if not cluster.main:
            return
        assert isinstance(model, NovaTransformer)
        for name, act in looks.items():
            try:
                with torch.random.fork_rng(devices=[cluster.device] if cluster.device.type == "cuda" else []):
                    act(model.to(cluster.device), step, log)
            except Exception as error:  # whatever it is, such as too little memory, weeks of training go on
                reason = next(iter(str(error).splitlines()), "")
                log.say(redacted(f"step {step}: {name} left out ({type(error).__name__}: {reason}); training goes on"))

    return Observer(config.observe.every, look)


def _measure(
    config: TransformerRun,
    samples: Source,
    inputs: Inputs,
    encode: Encode | None,
    model: NovaTransformer,
    step: int,
    log: RunLog,
) -> None:
    log.observed(step, held_out_loss(config, model, samples, inputs.autoencoder, encode))


def _show(
    config: TransformerRun,
    folder: Path,
    inputs: Inputs,
    conditions: dict[str, Any],
    model: NovaTransformer,
    step: int,
    log: RunLog,
) -> None:
    device = next(model.parameters()).device
    if device.type == "cuda" and config.precision == "bfloat16":
        model = model.to(torch.bfloat16)
    # The run's own autoencoder stays where it is.
    pipeline = NovaPipeline(model, scheduler_for(config), copy.deepcopy(inputs.vae).to(device))
    pipeline.set_progress_bar_config(disable=True)
    clips: UInt8[np.ndarray, "b f H W 3"] = pipeline(
        **conditions,
        num_inference_steps=config.observe.steps,
        num_diffusion_steps=config.observe.diffusion_steps,
        guidance_scale=config.observe.guidance,
        generator=list(range(len(config.observe.prompts))),
        output_type="np",
        return_dict=False,
    )[0]
    columns = max(1, min(_COLUMNS, _SHEET_WIDTH // clips.shape[3]))
    sheet = contact_sheet(list(zip(config.observe.prompts, clips, strict=True)), columns)
    log.images(step, "samples", sheet)
    folder.mkdir(exist_ok=True)
    write_image(folder / f"step-{step}.png", sheet)


def _conditions(config: TransformerRun, inputs: Inputs) -> dict[str, Any]:
    """The prompts as the pipeline takes them, without the text encoder that they need to be encoded once only."""
    prompts, classes = config.observe.prompts, config.model.classes
    if classes is None:
        features = encode_text(inputs.tokenizer, inputs.text_encoder, prompts, config.model.text_tokens)
        return {"prompt_embeds": [rows.float().cpu() for rows in features]}
    for prompt in prompts:
        if not (prompt.isdecimal() and int(prompt) < classes):
            raise UsageError(f"observe.prompts: {prompt!r} is no class; this model takes 0 to {classes - 1}")
    return {"class_labels": [int(prompt) for prompt in prompts]}
