"""Prompts -> text features: the last hidden states of a causal language model (Phi), one row a token.

A prompt is encoded alone and without padding or special tokens, so its rows depend on nothing but itself.
Loading reads tokenizer.json, config.json and safetensors from a folder: no network, no remote code, no pickles.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from nova.errors import CheckpointError, UsageError
from nova.weights import load_into, read_weights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

_UNUSED = ("lm_head.", "rotary_emb.inv_freq")  # in published weights, not part of the encoder
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


@torch.no_grad()
def encode_text(
    tokenizer: PreTrainedTokenizerFast,
    encoder: PreTrainedModel,
    prompts: Sequence[str],
    max_tokens: int,
    batch_size: int = 1,
) -> list[Float[Tensor, "l dim"]]:
    """Features of each prompt, as many rows as it has tokens, on the encoder's device and in its type.

    An empty prompt has no rows. With `batch_size` 1 a prompt's rows are bit-identical whatever the list; a larger
    one runs prompts of equal length together, which is faster and equal up to rounding. What does not fit in
    `max_tokens` is left out, and a UserWarning quotes it. Raises UsageError for a prompt that is not text.
    """
    if max_tokens < 1 or batch_size < 1:
        raise UsageError(f"max_tokens {max_tokens}, batch_size {batch_size}: expected 1 or more of each")
    unique: dict[str, list[int]] = {prompt: _token_ids(tokenizer, prompt, max_tokens) for prompt in prompts}
    by_length: dict[int, list[str]] = defaultdict(list)
    for prompt, ids in unique.items():
        by_length[len(ids)].append(prompt)
    rows = {prompt: _no_rows(encoder) for prompt in by_length.pop(0, [])}
    for alike in by_length.values():
        for start in range(0, len(alike), batch_size):
            batch = alike[start : start + batch_size]
            input_ids = torch.tensor([unique[prompt] for prompt in batch], device=encoder.device)
            rows.update(zip(batch, encoder(input_ids=input_ids).last_hidden_state, strict=True))
    return [rows[prompt] for prompt in prompts]


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a Hugging Face folder, from its tokenizer.json alone. Raises CheckpointError."""
    from transformers import PreTrainedTokenizerFast

    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path}: is missing; a tokenizer folder needs it")
    beside = path.with_name("tokenizer_config.json")
    settings = _json(beside) if beside.is_file() else {}
    special = {name: token for name in _SPECIAL if (token := _token(settings.get(name))) is not None}
    try:
        return PreTrainedTokenizerFast(tokenizer_file=str(path), clean_up_tokenization_spaces=False, **special)
    except Exception as error:  # the tokenizers library raises bare exceptions
        raise CheckpointError(f"{path}: is not a tokenizer ({_line(error)}); get a whole copy") from error


def load_text_encoder(folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The text model of a Hugging Face folder, on the CPU, frozen, for evaluation.

    Published folders call their class PhiEncoderModel; it is the body of Phi. Raises
    CheckpointError for files that are missing or damaged, for pickles, for unknown model types, and for weights
    that are missing, left over or of another shape, by name.
    """
    folder = Path(folder)
    encoder = unloaded_text_encoder(folder, dtype)
    prefix = f"{encoder.base_model_prefix}."
    weights = {name.removeprefix(prefix): value for name, value in read_weights(folder).items() if not _unused(name)}
    return load_into(encoder, weights, folder, dtype).eval().requires_grad_(False)


def unloaded_text_encoder(folder: str | Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The text model that a folder's config.json describes, its weights on the meta device. Raises CheckpointError."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModel

    folder = Path(folder)
    settings = _json(folder / "config.json")
    kind = settings.pop("model_type", None)
    settings.pop("auto_map", None)  # the folder's own code is never run
    try:
        config = AutoConfig.for_model(kind, **settings)
        with init_empty_weights(include_buffers=False):
            return AutoModel.from_config(config, dtype=dtype)
    except Exception as error:  # unknown types, wrong fields: transformers raises many kinds
        reason = f"model type {kind!r} cannot be built ({_line(error)})"
        raise CheckpointError(f"{folder / 'config.json'}: {reason}") from error


def _token_ids(tokenizer: PreTrainedTokenizerFast, prompt: str, max_tokens: int) -> list[int]:
    try:
        prompt.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise UsageError(f"prompt: {prompt!r} is not Unicode text") from error
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if len(ids) > max_tokens:
        lost = tokenizer.decode(ids[max_tokens:])
        warnings.warn(f"the prompt is longer than {max_tokens} tokens; left out: {lost!r}", stacklevel=3)
    return ids[:max_tokens]


def _no_rows(encoder: PreTrainedModel) -> Float[Tensor, "0 dim"]:
    return torch.zeros(0, encoder.config.hidden_size, device=encoder.device, dtype=encoder.dtype)


def _unused(name: str) -> bool:
    return name.startswith(_UNUSED) or name.endswith(_UNUSED)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({_line(error)}); get a whole copy") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected an object")
    return content


def _token(value: object) -> str | None:
    """A special token as tokenizer_config.json writes it: its text, or an object with it."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
