"""Presets are ordinary options, which those given by name win over, in the pipeline and on the command line."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from nova.cli.request import Settings
from nova.errors import UsageError
from nova.pipeline.request import Request, from_arguments
from nova.presets import PRESETS, preset_options
from tests import tiny
from tests.cli.conftest import generate, model, pipe  # noqa: F401


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_its_options(name):
    options = PRESETS[name].options
    assert options.keys() <= {field.name for field in dataclasses.fields(Settings)}
    assert from_arguments("a", preset=name) == Request("a", preset=name, **options)


def test_exact_is_the_published_default():
    assert preset_options("exact") == {}
    assert from_arguments("a") == Request("a") == from_arguments("a", preset="exact")


def test_options_by_name_win_also_where_they_are_the_defaults():
    request = from_arguments("a", preset="draft", num_inference_steps=64)
    assert request.num_inference_steps == 64
    assert request.num_diffusion_steps == PRESETS["draft"].options["num_diffusion_steps"] != 25


def test_unknown_presets_are_named():
    for ask in (lambda: from_arguments("a", preset="fats"), lambda: tiny.pipeline()("a", preset="fats")):
        with pytest.raises(UsageError, match="did you mean 'fast'"):
            ask()


def test_the_pipeline_makes_the_same_of_a_preset_and_of_its_options():
    pipeline = tiny.pipeline()
    asked = {"generator": 0, "output_type": "latent", "num_frames": 5}
    made = pipeline("a red kite", preset="draft", **asked).frames
    assert torch.equal(made, pipeline("a red kite", **PRESETS["draft"].options, **asked).frames)
    assert not torch.equal(made, pipeline("a red kite", preset="fast", **asked).frames)


def test_the_command_line_records_what_a_preset_means(generate, pipe):  # noqa: F811
    assert generate("a", "--preset", "draft", "--diffusion-steps", 25, "--output", "x.mp4")[0] == 0
    (call,) = pipe.calls
    recorded = json.loads(Path("x.json").read_text())["options"]
    for found in (call, recorded):
        assert found["num_inference_steps"] == PRESETS["draft"].options["num_inference_steps"]
        assert found["num_diffusion_steps"] == 25
    assert "preset" not in recorded


def test_a_preset_that_is_none_is_wrong_usage(generate):  # noqa: F811
    code, _, error = generate("a", "--preset", "fats")
    assert code == 2
    assert "did you mean 'fast'" in error
