"""A measurement of generation: its figures fit each other, and cover each kind of model and size."""

from __future__ import annotations

import json

import pytest
import torch

from nova import machine
from nova.bench.generation import Setting, measure
from tests import tiny


@pytest.fixture(autouse=True)
def _small_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(machine._MATRIX, "cpu", 128)
    monkeypatch.setitem(machine._COPIED, "cpu", 1 << 20)


def test_figures_fit_each_other() -> None:
    pipe = tiny.pipeline()
    result = measure(pipe, Setting(steps=3, diffusion_steps=2, batch=2, rounds=2))
    assert (result.frames, result.height, result.width) == (9, 32, 32)
    assert result.made == 18
    assert all(len(turns.rounds) == 2 for turns in (result.latents, result.pixels, result.first_frame))
    assert result.first_frame.seconds.least < result.pixels.seconds.most
    assert result.utilisation == pytest.approx(
        result.work.flops / result.latents.seconds.median / result.matrix_product
    )
    assert result.times_the_limit * result.limit == pytest.approx(result.latents.seconds.median)
    written = json.loads(json.dumps(result.to_dict()))
    assert written["table"]["frames a second"] == pytest.approx(18 / result.pixels.seconds.median)
    assert all(name in str(result) for name, _ in result.rows())


def test_size_and_length_are_those_asked_for() -> None:
    pipe = tiny.pipeline()
    result = measure(pipe, Setting(frames=5, height=32, width=64, steps=1, diffusion_steps=1, rounds=1))
    assert (result.frames, result.height, result.width) == (5, 32, 64)
    trained = measure(pipe, Setting(steps=1, diffusion_steps=1, rounds=1))
    assert result.work.flops > trained.work.flops  # two frames of twice the width, and attention is more than linear


def test_every_kind_of_condition_is_found() -> None:
    setting = Setting(steps=1, diffusion_steps=1, rounds=1)
    assert measure(tiny.pipeline(text_dim=None, classes=10, latent_frames=1), setting).frames == 1
    without_text_encoder = tiny.pipeline("image", latent_frames=1)
    without_text_encoder.text_encoder = without_text_encoder.tokenizer = None
    assert measure(without_text_encoder.to(torch.float32), setting).frames == 1


def test_a_preset_says_how_many_steps_unless_the_setting_does() -> None:
    pipe = tiny.pipeline(latent_frames=1)
    draft = measure(pipe, Setting(preset="draft", rounds=1))
    assert draft.steps < 16
    assert draft.diffusion_steps < 16
    mixed = measure(pipe, Setting(preset="draft", diffusion_steps=1, rounds=1))
    assert (mixed.steps, mixed.diffusion_steps) == (draft.steps, 1)
    assert mixed.work.flops < draft.work.flops
