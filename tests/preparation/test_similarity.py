"""CLIP scores: what the model says of a few frames, judged against transformers' own way through the same model."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPConfig, CLIPModel

from nova.checkpoints.locate import shipped_folder
from nova.errors import CheckpointError
from nova.preparation.similarity import load_head, load_scorer, places

SIDE, DIM = 16, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP model of a few thousand random weights, with the tokenizer of the model that is shipped."""
    torch.manual_seed(0)
    part = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**part, "vocab_size": 4096, "max_position_embeddings": 12, "eos_token_id": 1}
    config = CLIPConfig(
        text_config=text, vision_config={**part, "image_size": SIDE, "patch_size": 8}, projection_dim=DIM
    )
    path = tmp_path_factory.mktemp("clip")
    CLIPModel(config).save_pretrained(path)
    for file in (shipped_folder() / "tokenizer").iterdir():
        shutil.copy(file, path)
    return path


def head_file(path: Path, widths: tuple[int, ...], seed: int = 0) -> Path:
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        tensors[f"layers.{2 * number}.weight"] = torch.randn(narrow, wide, generator=generator)
        tensors[f"layers.{2 * number}.bias"] = torch.randn(narrow, generator=generator)
    save_file(tensors, path)
    return path


def clip_of(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, SIDE, SIDE, 3), np.uint8)


def test_scores_are_those_of_the_model(folder, tmp_path):
    scorer = load_scorer(folder, head_file(tmp_path / "h.safetensors", (DIM, 1)))
    model = CLIPModel.from_pretrained(folder).eval()
    clip = clip_of(1)
    pixels = (clip.astype(np.float32) / 255 - scorer.mean) / np.array(scorer.std)
    with torch.inference_mode():
        ids = torch.tensor([scorer.tokenizer("a red one")["input_ids"]])
        out = model(input_ids=ids, pixel_values=torch.from_numpy(pixels.transpose(0, 3, 1, 2)).float())
        expected = float(out.image_embeds[0] @ out.text_embeds[0])
        weights = load_file(tmp_path / "h.safetensors")
        beauty = float(out.image_embeds[0] @ weights["layers.0.weight"][0] + weights["layers.0.bias"][0])
    score = scorer.scores([clip], [["a red one"]])[0]
    assert score["similarity"] == pytest.approx(expected, abs=1e-5)
    assert score["aesthetic"] == pytest.approx(beauty, abs=1e-4)


def test_a_batch_scores_each_clip_as_if_alone(folder, tmp_path):
    scorer = load_scorer(folder, head_file(tmp_path / "h.safetensors", (DIM, 4, 1)))
    clips = [clip_of(1, 1), clip_of(9, 2), clip_of(3, 3)]
    captions = [["one"], [], ["three", "another"]]
    together = scorer.scores(clips, captions)
    for clip, texts, score in zip(clips, captions, together, strict=True):
        alone = scorer.scores([clip], [texts])[0]
        assert score.keys() == alone.keys()
        assert score == pytest.approx(alone, abs=1e-5)
    assert "similarity" not in together[1]


def test_the_caption_that_fits_worst_counts(folder):
    scorer, clip = load_scorer(folder), clip_of(5)
    single = [scorer.scores([clip], [[text]])[0]["similarity"] for text in ("one", "two three")]
    assert scorer.scores([clip], [["one", "two three"]])[0]["similarity"] == pytest.approx(min(single), abs=1e-5)


def test_long_captions_are_cut_and_do_not_crash(folder):
    scorer = load_scorer(folder)
    assert np.isfinite(scorer.scores([clip_of(1)], [["word " * 400]])[0]["similarity"])


@pytest.mark.parametrize(("count", "expected"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (4, [0, 1, 2, 3])])
def test_each_frame_is_looked_at_once(count, expected):
    assert places(count) == expected


def test_frames_looked_at_spread_over_the_clip():
    assert places(33) == [4, 12, 20, 28]


def test_layers_are_a_chain_in_the_order_of_their_numbers(tmp_path):
    widths = (DIM, 6, 5, 4, 3, 2, 2, 1)  # more than ten in the names: text order is another
    head = load_head(head_file(tmp_path / "h.safetensors", widths), DIM)
    assert [layer.in_features for layer in head] == list(widths[:-1])


def test_what_is_no_head_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="another CLIP"):
        load_head(head_file(tmp_path / "a.safetensors", (DIM + 1, 1)), DIM)
    with pytest.raises(CheckpointError, match="end in one"):
        load_head(head_file(tmp_path / "b.safetensors", (DIM, 3)), DIM)
    (tmp_path / "c.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_head(tmp_path / "c.safetensors", DIM)
    (tmp_path / "d.pth").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match="pickle"):
        load_head(tmp_path / "d.pth", DIM)


def test_what_is_no_clip_model_is_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_scorer("./nowhere")
    other = shutil.copytree(folder, tmp_path / "other")
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(settings | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="'bert'"):
        load_scorer(other)


def test_positions_in_older_files_are_passed_over(folder, tmp_path):
    older = shutil.copytree(folder, tmp_path / "older")
    weights = load_file(older / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    save_file(weights, older / "model.safetensors")
    clip = clip_of(2)
    assert load_scorer(older).scores([clip], [["x"]]) == load_scorer(folder).scores([clip], [["x"]])
