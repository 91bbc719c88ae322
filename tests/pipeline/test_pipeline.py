import inspect
import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch

from nova import NovaPipeline
from nova.checkpoints.lora import save_lora
from nova.errors import ResourceError, UsageError
from nova.training.lora import LoraSettings, add_lora
from tests import tiny

FAST = {"num_inference_steps": 2, "num_diffusion_steps": 2, "guidance_scale": 3.0}
PROMPTS = ["a red kite", "the calm sea", "3 moves right"]


@pytest.fixture(scope="module")
def pipe() -> NovaPipeline:
    return tiny.pipeline()


def latents(pipe: NovaPipeline, prompt: object = "a red kite", **arguments: object) -> torch.Tensor:
    return pipe(prompt, **(FAST | {"generator": 0, "output_type": "latent"} | arguments)).frames


def test_output_types_hold_the_same_video(pipe: NovaPipeline) -> None:
    made = {kind: pipe(PROMPTS[:2], generator=0, output_type=kind, **FAST).frames for kind in ("pil", "np", "pt")}
    assert made["np"].shape == (2, 9, 32, 32, 3)
    assert made["np"].dtype == np.uint8
    assert made["pt"].shape == (2, 9, 3, 32, 32)
    assert np.array_equal(np.asarray(made["pil"][1][8]), made["np"][1, 8])
    assert np.array_equal((made["pt"] * 255).round().byte().permute(0, 1, 3, 4, 2).numpy(), made["np"])
    assert latents(pipe, PROMPTS[:2]).shape == (2, 4, 3, 4, 4)
    assert isinstance(pipe("a", generator=0, return_dict=False, output_type="np", **FAST), tuple)


def test_a_sample_with_its_own_generator_is_bit_identical_in_any_batch(pipe: NovaPipeline) -> None:
    together = pipe(PROMPTS, generator=[5, 6, 7], output_type="pt", **FAST).frames
    swapped = pipe(PROMPTS[::-1], generator=[7, 6, 5], output_type="pt", **FAST).frames
    for index, (prompt, seed) in enumerate(zip(PROMPTS, (5, 6, 7), strict=True)):
        alone = pipe(prompt, generator=[torch.Generator().manual_seed(seed)], output_type="pt", **FAST).frames
        assert torch.equal(together[index], alone[0])
        assert torch.equal(swapped[2 - index], alone[0])


def test_a_seed_counts_up_over_outputs(pipe: NovaPipeline) -> None:
    counted = latents(pipe, "a red kite", generator=4, num_videos_per_prompt=2)
    assert torch.equal(counted, latents(pipe, "a red kite", generator=[4, 5], num_videos_per_prompt=2))
    assert not torch.equal(counted[0], counted[1])


def test_one_generator_draws_for_the_batch(pipe: NovaPipeline) -> None:
    shared = latents(pipe, PROMPTS[:2], generator=torch.Generator().manual_seed(0))
    again = latents(pipe, PROMPTS[:2], generator=torch.Generator().manual_seed(0))
    assert torch.equal(shared, again)
    assert not torch.equal(shared, latents(pipe, PROMPTS[:2], generator=0))


def test_prompts_negative_prompts_motion_and_rate_matter(pipe: NovaPipeline) -> None:
    base = latents(pipe)
    for change in (
        {"prompt": "the calm sea"},
        {"negative_prompt": "calm sea"},
        {"motion_score": 1.0},
        {"fps": 30.0},
        {"guidance_scale": 5.0},
        {"min_guidance_scale": 1.0},
        {"guidance_trunc": 600.0},
        {"guidance_renorm": 0.5},
        {"image_guidance_scale": 1.5},
        {"guidance_start": 0.5},
        {"guidance_end": 0.5},
        {"flow_shift": 3.0},
        {"generator": 1},
    ):
        assert not torch.equal(base, latents(pipe, **({"prompt": "a red kite"} | change))), change
    assert torch.equal(base, latents(pipe, negative_prompt=""))


def test_embeddings_stand_for_prompts_also_without_guidance(pipe: NovaPipeline) -> None:
    from nova.text import encode_text

    rows = encode_text(pipe.tokenizer, pipe.text_encoder, ["a red kite", "calm sea"], 6)
    for scale in (1.0, 3.0):
        arguments = {"prompt": None, "prompt_embeds": rows[:1], "guidance_scale": scale}
        assert torch.equal(latents(pipe, **arguments), latents(pipe, guidance_scale=scale))
    negative = latents(pipe, prompt=None, prompt_embeds=rows[0], negative_prompt_embeds=rows[1][None])
    assert torch.equal(negative, latents(pipe, negative_prompt="calm sea"))


def test_an_image_becomes_the_first_frame_whatever_its_size(pipe: NovaPipeline) -> None:
    image = PIL.Image.effect_mandelbrot((90, 50), (-2, -1, 1, 1), 20).convert("RGB")
    made = latents(pipe, PROMPTS[:2], image=image)
    single = latents(pipe, PROMPTS[0], image=[image])
    assert torch.equal(made[:1], single)
    other = latents(pipe, PROMPTS[0], image=PIL.ImageOps.invert(image))
    assert not torch.allclose(single[:, :, 0], other[:, :, 0])
    assert not torch.allclose(single[:, :, 1:], other[:, :, 1:])


def test_a_clip_is_continued_from_its_end(pipe: NovaPipeline) -> None:
    clip = np.random.default_rng(0).integers(0, 255, (7, 32, 32, 3), dtype=np.uint8)
    made = latents(pipe, video=clip)  # the last five frames are kept: two latent frames, then the trained third
    assert made.shape[2] == 3
    assert torch.equal(made, latents(pipe, video=[PIL.Image.fromarray(frame) for frame in clip[2:]]))
    longer = latents(pipe, video=clip, num_frames=17)
    assert longer.shape[2] == 5
    given = latents(pipe, latents=made[:, :, :2])
    assert torch.equal(given[:, :, :2], made[:, :, :2])


def test_longer_than_trained_with_and_without_a_window(pipe: NovaPipeline) -> None:
    for arguments in ({}, {"window_frames": 9}, {"window_frames": 5}):
        video = pipe("a", num_frames=29, generator=0, output_type="np", **FAST, **arguments).frames
        assert video.shape[1] == 29


def test_stream_gives_every_frame_once_and_the_first_before_the_rest(pipe: NovaPipeline) -> None:
    made: list[int] = []
    spy = pipe.transformer.spatial.register_forward_hook(lambda *_: made.append(1))
    try:
        stream = pipe.stream("a red kite", generator=0, output_type="np", num_frames=25, **FAST)
        first = next(stream)
        before = len(made)
        rest = list(stream)
    finally:
        spy.remove()
    assert before * 7 == len(made)
    assert first.shape[1] == 1
    assert [chunk.shape[1] for chunk in rest] == [4] * 6
    whole = pipe("a red kite", generator=0, output_type="np", num_frames=25, **FAST).frames
    assert np.array_equal(rest[3][0], whole[0, 13:17])  # the frame that completes an autoencoder window is exact


def test_streamed_latents_are_those_of_the_call(pipe: NovaPipeline) -> None:
    streamed = torch.cat(list(pipe.stream("a red kite", generator=0, output_type="latent", **FAST)), dim=2)
    assert torch.equal(streamed, latents(pipe))


def test_two_requests_at_the_same_time_do_not_disturb_each_other(pipe: NovaPipeline) -> None:
    def started(seed: int, frames: int) -> object:
        return pipe.stream("a red kite", generator=seed, num_frames=frames, output_type="latent", **FAST)

    alone = [list(started(1, 9)), list(started(2, 5))]
    mixed: list[list[torch.Tensor]] = [[], []]
    for pair in itertools.zip_longest(started(1, 9), started(2, 5)):
        for kept, chunk in zip(mixed, pair, strict=True):
            kept += [chunk] if chunk is not None else []
    for one, other in zip(alone, mixed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_callback_sees_every_set_and_can_cancel(pipe: NovaPipeline) -> None:
    seen: list[tuple[int, int]] = []

    def watch(_: object, done: int, frame: int, state: dict[str, torch.Tensor]) -> bool:
        assert state["latents"].shape == (1, 4, 4, 4)
        seen.append((done, frame))
        return done < 3

    assert latents(pipe, callback_on_step_end=watch).shape[2] == 1
    assert seen == [(1, 0), (2, 0), (3, 1)]
    seen.clear()
    whole = latents(pipe, callback_on_step_end=lambda *arguments: seen.append(arguments[1:3]))
    assert torch.equal(whole, latents(pipe))
    assert len(seen) == 6


@pytest.mark.parametrize("layout", ["nova", "published"])
def test_saving_and_loading_gives_the_same_pipeline(tmp_path: Path, layout: str) -> None:
    changes = {"width": 64, "heads": 1, "spatial_encoder_layers": 2, "scale_shift": True, "scale_shift_rank": 4}
    pipe = tiny.pipeline(**changes)
    pipe.save_pretrained(tmp_path / "model", layout=layout)
    again = NovaPipeline.from_pretrained(tmp_path / "model")
    again.set_progress_bar_config(disable=True)
    assert torch.equal(latents(again), latents(pipe))
    pipe.save_pretrained(tmp_path / "model", layout=layout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_classes_to_images(tmp_path: Path) -> None:
    pipe = tiny.pipeline("image", text_dim=None, classes=10, latent_frames=1)
    made = pipe(class_labels=[3, 7], generator=0, output_type="np", **FAST).frames
    assert made.shape == (2, 1, 32, 32, 3)
    assert not np.array_equal(made[0], made[1])
    pipe.save_pretrained(tmp_path)
    again = NovaPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(again(class_labels=[3, 7], generator=0, output_type="np", **FAST).frames, made)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path: Path, pipe: NovaPipeline, dtype: torch.dtype) -> None:
    pipe.save_pretrained(tmp_path)
    half = NovaPipeline.from_pretrained(tmp_path, torch_dtype=dtype)
    half.set_progress_bar_config(disable=True)
    assert half.dtype == dtype
    video = half("a red kite", generator=0, output_type="pt", **FAST).frames
    assert video.dtype == torch.float32
    assert torch.isfinite(video).all()


def test_help_shows_the_arguments(pipe: NovaPipeline) -> None:
    for method in (pipe.__call__, pipe.stream):
        names = list(inspect.signature(method).parameters)
        assert names[:2] == ["prompt", "negative_prompt"]
        assert {"num_frames", "guidance_scale", "generator", "output_type"} <= set(names)


def test_moving_and_casting_the_pipeline() -> None:
    pipe = tiny.pipeline().to("cpu", torch.float64)
    assert pipe.transformer.dtype == torch.float64
    assert latents(pipe).dtype == torch.float32


def test_parts_are_brought_to_their_device_before_use() -> None:
    pipe = tiny.pipeline()
    calls: list[str] = []
    pipe.transformer._hf_hook = SimpleNamespace(pre_forward=lambda module: calls.append(type(module).__name__))
    latents(pipe)
    assert calls == ["NovaTransformer"]


def test_numbers_that_are_not_numbers_are_refused() -> None:
    pipe = tiny.pipeline()
    with torch.no_grad():
        pipe.transformer.denoiser.head.bias.fill_(float("nan"))
    with pytest.raises(ResourceError, match="frame 0"):
        latents(pipe)


BAD = [
    ({"promt": "x"}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [3]}, "prompt"),
    ({"prompt": None}, "prompt"),
    ({"class_labels": 3}, "class_labels"),
    ({"negative_prompt": ["a", "b"]}, "negative_prompt"),
    ({"height": 40}, "height: 40 .* 32 and 64"),
    ({"width": 0}, "width"),
    ({"num_frames": 12}, "9 and 13"),
    ({"num_frames": 0}, "num_frames"),
    ({"num_frames": 2.5}, "num_frames"),
    ({"num_inference_steps": 0}, "num_inference_steps"),
    ({"num_diffusion_steps": -1}, "num_diffusion_steps"),
    ({"num_diffusion_steps": 10**9}, "num_diffusion_steps"),
    ({"guidance_scale": float("nan")}, "scale"),
    ({"motion_score": float("inf")}, "motion_score"),
    ({"fps": 0}, "fps"),
    ({"flow_shift": -1.0}, "flow_shift"),
    ({"num_videos_per_prompt": 0}, "num_videos_per_prompt"),
    ({"generator": [1, 2, 3]}, "generator"),
    ({"generator": "seed"}, "generator"),
    ({"output_type": "gif"}, "output_type"),
    ({"image": "picture.png"}, "image"),
    ({"image": np.zeros((32, 32))}, "image"),
    ({"image": []}, "image"),
    ({"video": []}, "video"),
    ({"video": np.zeros((5, 32, 32, 3), np.uint8), "num_frames": 5}, "num_frames"),
    ({"image": np.zeros((32, 32, 3), np.uint8), "latents": torch.zeros(1, 4, 1, 4, 4)}, "give one"),
    ({"latents": torch.zeros(1, 4, 1, 8, 4)}, "latents"),
    ({"prompt": None, "prompt_embeds": torch.zeros(1, 2, 5)}, "prompt_embeds"),
    ({"prompt": None, "prompt_embeds": torch.zeros(1, 9, 16)}, "prompt_embeds"),
    ({"window_frames": 4}, "num_frames|window"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_arguments_are_named_before_anything_runs(
    pipe: NovaPipeline, arguments: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the model ran")

    monkeypatch.setattr(pipe.transformer.temporal, "start", never)
    with pytest.raises(UsageError, match=message) as caught:
        pipe(**({"prompt": "a"} | FAST | arguments))
    assert "\n" not in str(caught.value)


def test_an_image_model_takes_one_frame() -> None:
    pipe = tiny.pipeline("image", latent_frames=1)
    with pytest.raises(UsageError, match="image model"):
        latents(pipe, num_frames=5)
    with pytest.raises(UsageError, match="image model"):
        latents(pipe, image=np.zeros((32, 32, 3), np.uint8))
    assert latents(pipe).shape == (1, 4, 1, 4, 4)


def test_an_adapter_changes_the_model_and_leaves_it_a_plain_one(tmp_path: Path) -> None:
    trained = add_lora(tiny.pipeline().transformer, LoraSettings(rank=2), seed=0)
    for name, parameter in trained.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_lora(trained, tmp_path)

    adapted, folded = tiny.pipeline(), tiny.pipeline()
    adapted.transformer = trained
    folded.load_lora(tmp_path)
    torch.testing.assert_close(latents(folded), latents(adapted), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(latents(folded), latents(tiny.pipeline()), atol=1e-2)
    assert folded.transformer.state_dict().keys() == tiny.pipeline().transformer.state_dict().keys()


def test_a_packed_pipeline_generates_the_same_and_nothing_else(tmp_path):
    plain, packed = tiny.pipeline(), tiny.pipeline()
    packed.pack()
    packed.pack()
    wanted = {"num_inference_steps": 2, "num_diffusion_steps": 2, "output_type": "latent"}
    made = [pipe("a red kite", **wanted, generator=torch.Generator().manual_seed(0)).frames for pipe in (plain, packed)]
    torch.testing.assert_close(*made, rtol=1e-3, atol=1e-3)
    assert not made[1].is_inference()
    for method, given in (("save_pretrained", [tmp_path / "x"]), ("compile", []), ("load_lora", [tmp_path])):
        with pytest.raises(UsageError, match=f"{method}: .* before pack"):
            getattr(packed, method)(*given)
    assert not (tmp_path / "x").exists()
    shared = type(packed)(**packed.components)  # a pipeline of the same parts knows it too
    shared.pack()
    with pytest.raises(UsageError, match="save_pretrained: .* before pack"):
        shared.save_pretrained(tmp_path / "x")
