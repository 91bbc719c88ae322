"""Prompt features: the published values, independent of the batch; loading is strict and names what it finds."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2Model, PhiConfig, PhiModel, PreTrainedTokenizerFast

from nova.errors import CheckpointError, UsageError
from nova.text import encode_text, load_text_encoder, load_tokenizer
from nova.training.tokenizer import build_tokenizer

PROMPTS = ["a red 3 moves right", "", "up", "a red 3 moves right and a blue 5 moves up", "down"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(["a", "and", "blue", "red", "moves", "right", "up", "3", "5"])


@pytest.fixture(scope="module")
def encoder(tokenizer) -> PhiModel:
    torch.manual_seed(0)
    config = PhiConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
    )
    return PhiModel(config).eval()


@pytest.fixture
def folder(tmp_path, encoder) -> Path:
    """A text encoder in the published layout: names under `model.`, an unused head."""
    weights = {f"model.{name}": weight.clone() for name, weight in encoder.state_dict().items()}
    save_file(
        weights | {"lm_head.weight": torch.zeros(3), "lm_head.bias": torch.zeros(3)}, tmp_path / "model.safetensors"
    )
    settings = json.loads(encoder.config.to_json_string()) | {"architectures": ["PhiEncoderModel"], "model_type": "phi"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return tmp_path


def test_features_are_the_published_ones(record):
    kept = load_file(record / "text_encode.safetensors")
    encoder = load_text_encoder(record / "text_encoder")
    with torch.no_grad():
        found = encoder(input_ids=kept["input_ids"]).last_hidden_state
    assert (found - kept["last_hidden_state"]).abs().max() < 1e-4
    tokenizer = load_tokenizer(record / "tokenizer")
    prompt = tokenizer.decode(kept["input_ids"][0])
    if tokenizer(prompt)["input_ids"] == kept["input_ids"][0].tolist():
        (rows,) = encode_text(tokenizer, encoder, [prompt], 256)
        assert (rows - kept["last_hidden_state"][0]).abs().max() < 1e-4


def test_rows_are_as_many_as_tokens_and_none_for_an_empty_prompt(tokenizer, encoder):
    rows = encode_text(tokenizer, encoder, PROMPTS, 16)
    assert [tuple(row.shape) for row in rows] == [(5, 32), (0, 32), (1, 32), (11, 32), (5, 32)]
    assert encode_text(tokenizer, encoder, [], 16) == []


def test_rows_depend_on_their_prompt_alone(tokenizer, encoder):
    together = encode_text(tokenizer, encoder, PROMPTS, 16)
    for prompt, rows in zip(PROMPTS, together, strict=True):
        (alone,) = encode_text(tokenizer, encoder, [prompt], 16)
        assert torch.equal(alone, rows)
    for rows, batched in zip(together, encode_text(tokenizer, encoder, PROMPTS, 16, batch_size=4), strict=True):
        torch.testing.assert_close(rows, batched)


def test_no_gradient_is_kept_but_training_may_use_the_rows(tokenizer, encoder):
    (rows,) = encode_text(tokenizer, encoder, ["up"], 16)
    assert not rows.requires_grad
    weight = torch.ones(32, 1, requires_grad=True)
    (rows @ weight).sum().backward()
    assert torch.equal(weight.grad, rows.T)


def test_what_does_not_fit_is_quoted(tokenizer, encoder):
    with pytest.warns(UserWarning, match="left out: .*blue 5 moves up"):
        (rows,) = encode_text(tokenizer, encoder, [PROMPTS[3]], 7)
    (whole,) = encode_text(tokenizer, encoder, [PROMPTS[3]], 11)
    assert len(rows) == 7
    torch.testing.assert_close(rows, whole[:7])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_text(tokenizer, encoder, [PROMPTS[3]], 11)


@pytest.mark.parametrize("prompt", ["\ud800", 3, None])
def test_a_prompt_must_be_text(tokenizer, encoder, prompt):
    with pytest.raises(UsageError, match="prompt"):
        encode_text(tokenizer, encoder, [prompt], 16)
    with pytest.raises(UsageError, match="max_tokens"):
        encode_text(tokenizer, encoder, ["up"], 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_published_folder_loads_in_any_type(folder, encoder, dtype):
    loaded = load_text_encoder(folder, dtype)
    assert not loaded.training
    for name, weight in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.to(dtype))
    assert {weight.dtype for weight in loaded.parameters()} == {dtype}


def test_half_weights_and_shards_load(folder, encoder, tokenizer):
    weights = {name: weight.half() for name, weight in load_file(folder / "model.safetensors").items()}
    names = sorted(weights)
    shards = {"model-1.safetensors": names[:5], "model-2.safetensors": names[5:]}
    for file, own in shards.items():
        save_file({name: weights[name] for name in own}, folder / file)
    where = {name: file for file, own in shards.items() for name in own}
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (rows,) = encode_text(tokenizer, load_text_encoder(folder), ["a red 3"], 16)
    (expected,) = encode_text(tokenizer, encoder, ["a red 3"], 16)
    torch.testing.assert_close(rows, expected, atol=1e-2, rtol=1e-2)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2.safetensors: missing"):
        load_text_encoder(folder)


def test_what_is_saved_loads_again(tmp_path, encoder, tokenizer):
    encoder.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    again = encode_text(load_tokenizer(tmp_path / "tokenizer"), load_text_encoder(tmp_path / "encoder"), PROMPTS, 16)
    for rows, expected in zip(again, encode_text(tokenizer, encoder, PROMPTS, 16), strict=True):
        assert torch.equal(rows, expected)


def test_another_text_model_serves_too(tmp_path, tokenizer):
    torch.manual_seed(0)
    other = GPT2Model(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2)).eval()
    other.save_pretrained(tmp_path)
    (rows,) = encode_text(tokenizer, load_text_encoder(tmp_path), ["a red 3"], 16)
    assert torch.equal(rows, encode_text(tokenizer, other, ["a red 3"], 16)[0])


def _drop(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.final_layernorm.bias")
    weights["model.extra"] = torch.zeros(1)
    save_file(weights, folder / "model.safetensors")


def _reshape(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.final_layernorm.bias"] = torch.zeros(3)
    save_file(weights, folder / "model.safetensors")


def _truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _pickle(folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder / "pytorch_model.bin")


def _configure(text: str):
    return lambda folder: (folder / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, r"1 missing \(first: final_layernorm.bias\), 1 unexpected \(first: extra\)"),
        (_reshape, r"final_layernorm.bias has shape \(3,\), the config says \(32,\)"),
        (_truncate, r"model.safetensors: damaged or truncated"),
        (_pickle, r"pytorch_model.bin: a pickle"),
        (_configure("{"), r"config.json: cannot be read"),
        (_configure("[]"), r"config.json: holds a list"),
        (_configure('{"model_type": "nonsense"}'), r"model type 'nonsense'"),
        (lambda folder: (folder / "config.json").unlink(), r"config.json: is missing"),
    ],
)
def test_a_wrong_folder_is_refused(folder, damage, message):
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as refusal:
        load_text_encoder(folder)
    assert "\n" not in str(refusal.value)


def test_a_wrong_tokenizer_folder_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer.json: is missing"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"}')
    with pytest.raises(CheckpointError, match="is not a tokenizer"):
        load_tokenizer(tmp_path)


def test_a_folder_cannot_name_files_outside_or_run_its_code(folder):
    whole = folder / "model.safetensors"
    whole.rename(folder.parent / whole.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match="not a safetensors file beside it"):
        load_text_encoder(folder)
    (folder / "model.safetensors.index.json").unlink()
    (folder.parent / whole.name).rename(whole)
    settings = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "evil.py").write_text("raise SystemExit('ran the code of the folder')")
    assert type(load_text_encoder(folder)) is PhiModel
