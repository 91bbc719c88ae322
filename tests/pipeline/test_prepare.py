from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from nova.pipeline import NovaPipeline
from nova.pipeline.prepare import Job, prepare
from nova.pipeline.request import Request
from tests import tiny

CPU = torch.device("cpu")
PROMPTS = ["a red kite", "the calm sea", "3 moves right"]


@pytest.fixture(scope="module")
def pipe() -> NovaPipeline:
    return tiny.pipeline("image", latent_frames=1)


@pytest.fixture(scope="module")
def films() -> NovaPipeline:
    return tiny.pipeline()


@pytest.fixture(scope="module")
def classes() -> NovaPipeline:
    return tiny.pipeline("image", latent_frames=1, text_dim=None, classes=10)


def job(pipe: NovaPipeline, **asked: Any) -> Job:
    return prepare(pipe.parts, Request(**asked), CPU)


def shown(job: Job) -> torch.Tensor:
    """What every branch and output is given."""
    return job.condition.rows[torch.tensor(job.condition.index)]


@contextmanager
def rows_of(*parts: nn.Module) -> Iterator[list[int]]:
    """How many rows pass, for each call of one of `parts`."""
    counts: list[int] = []
    spies = [part.register_forward_hook(lambda _, inputs, __: counts.append(len(inputs[0]))) for part in parts]
    try:
        yield counts
    finally:
        for spy in spies:
            spy.remove()


FAST = {"num_inference_steps": 1, "num_diffusion_steps": 1, "output_type": "latent"}
FEATURES = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ({"prompt": PROMPTS}, 3 + 1),
        ({"prompt": PROMPTS[0], "num_videos_per_prompt": 4}, 1 + 1),
        ({"prompt": PROMPTS[:1] * 4}, 1 + 1),
        ({"prompt": PROMPTS[:2], "num_videos_per_prompt": 2, "negative_prompt": ""}, 2 + 1),
        ({"prompt": PROMPTS, "negative_prompt": ["a", "the sea", "a"]}, 3 + 2),
        ({"prompt": PROMPTS[:2] * 2, "guidance_scale": 1.0}, 2),
        ({"prompt_embeds": FEATURES}, 3 + 1),
        ({"prompt_embeds": [FEATURES[0]] * 2, "negative_prompt_embeds": FEATURES[:1]}, 1 + 1),
    ],
)
def test_every_different_prompt_passes_the_temporal_layers_of_an_image_once(
    pipe: NovaPipeline, asked: dict[str, Any], rows: int
) -> None:
    parts = [pipe.transformer.text.proj, *pipe.transformer.temporal.blocks]
    with rows_of(*parts) as counts:
        pipe(**asked, **FAST)
    assert counts == [rows] * len(parts)


def test_with_image_guidance_a_blind_null_branch_is_one_more_row(films: NovaPipeline) -> None:
    with rows_of(films.transformer.temporal.blocks[0]) as counts:
        films(PROMPTS, image_guidance_scale=2.0, **FAST)
    assert counts == [3 + 2, 9, 9]  # later frames are each sample's own


def test_every_branch_and_output_is_given_its_prompt(pipe: NovaPipeline) -> None:
    alone = {text: shown(job(pipe, prompt=text, guidance_scale=1.0))[0, 0] for text in [*PROMPTS, "", "the sea"]}
    made = shown(job(pipe, prompt=PROMPTS, negative_prompt=["the sea", "", "the sea"], num_videos_per_prompt=2))
    wanted = [["the sea", "", "the sea"] if branch else PROMPTS for branch in range(2)]
    expected = [torch.stack([alone[text] for text in texts for _ in range(2)]) for texts in wanted]
    assert torch.equal(made, torch.stack(expected))


def test_labels_are_given_with_the_null_class(classes: NovaPipeline) -> None:
    made = job(classes, class_labels=[3, 7, 3], num_videos_per_prompt=2).condition
    assert len(made.rows) == 3
    assert shown(job(classes, class_labels=[3, 7, 3])).tolist() == [[3, 7, 3], [10, 10, 10]]


def test_an_output_alone_has_the_rows_that_it_has_in_a_batch(pipe: NovaPipeline) -> None:
    """So that on a CPU, where the number of rows can change last bits, the batch does not matter."""
    prompts, negative = ["a", "a", "the sea", ""], ["the sea", "a", "a", ""]
    batch = job(pipe, prompt=prompts, negative_prompt=negative).condition
    for number, (text, other) in enumerate(zip(prompts, negative, strict=True)):
        alone = job(pipe, prompt=text, negative_prompt=other).condition
        one = batch[number : number + 1]
        assert one.index == alone.index == ((0,), (1,))
        assert torch.equal(one.rows, alone.rows)


def test_texts_are_encoded_once_and_only_where_they_are_used(pipe: NovaPipeline) -> None:
    with rows_of(pipe.text_encoder.layers[0]) as calls:
        job(pipe, prompt=PROMPTS[:1] * 3, negative_prompt="the sea", num_videos_per_prompt=2)
        assert len(calls) == 2
        job(pipe, prompt=PROMPTS[:1], negative_prompt="the sea", guidance_scale=1.0)
        assert len(calls) == 3
