"""Windows are decoded as soon as they are there, on a lane that keeps order with the main one, to the same pixels."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from nova.autoencoders.adapter import Autoencoder
from nova.errors import ResourceError
from nova.pipeline import NovaPipeline
from nova.pipeline.decoding import CudaLane, Decoding, InLine
from tests import tiny

FAST = {"num_inference_steps": 2, "num_diffusion_steps": 2, "guidance_scale": 3.0, "generator": 0}
LONG = {**FAST, "num_frames": 37}  # 10 latent frames: windows that end with the 5th, the 9th and the 10th
PROMPTS = ["a red kite", "the calm sea"]
NETWORKS = {
    "video": lambda: tiny.pipeline().vae,
    "image": lambda: tiny.pipeline("image", latent_frames=1).vae,
    "cogvideox": lambda: AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 8), layers_per_block=1, norm_num_groups=2, latent_channels=4
    ).eval(),
}


class Lanes:
    """A lane that writes down what it is told: which frames go in, what is done in it, and what comes out."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.inside = False
        self.given: list[Tensor] = []
        self.made: list[Tensor] = []

    @contextlib.contextmanager
    def beside(self, given: Sequence[Tensor]) -> Iterator[None]:
        self.events.append(("beside", len(given)))
        self.given += given
        self.inside = True
        yield
        self.inside = False

    def join(self, made: Tensor) -> None:
        self.events.append("join")
        self.made.append(made)

    def later(self, value: Tensor) -> Callable[[], bool]:
        self.events.append("later")

        def wait() -> bool:
            self.events.append("wait")
            return bool(value)

        return wait


@pytest.fixture
def pipe() -> NovaPipeline:
    return tiny.pipeline()


@pytest.fixture
def events(pipe: NovaPipeline, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Decoded windows, as the number of their latent frames, and "set" for every set that is made."""
    seen: list[str] = []
    decode = pipe.vae.decode_window

    def decoded(latents: Tensor) -> Tensor:
        seen.append(f"decoded {latents.shape[2]}")
        return decode(latents)

    monkeypatch.setattr(pipe.vae, "decode_window", decoded)
    pipe.transformer.spatial.register_forward_hook(lambda *_: seen.append("set"))
    return seen


def frames(count: int, batch: int = 1) -> list[Tensor]:
    return list(torch.randn(count, batch, 4, 2, 2, generator=torch.Generator().manual_seed(0)))


def pixels(pipe: NovaPipeline, latents: Tensor) -> Tensor:
    """All of `latents` decoded at once, every output by itself, in the form of `pt`."""
    with torch.no_grad():
        decoded = torch.cat([pipe.autoencoder.decode(one) for one in latents.split(1)])
    return (decoded.clamp(-1, 1) / 2 + 0.5).transpose(1, 2)


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("count", [1, 4, 5, 8, 11])
@pytest.mark.parametrize("kind", NETWORKS)
def test_pushed_frames_give_the_pixels_of_all_latents(kind: str, count: int, early: bool) -> None:
    autoencoder = Autoencoder(NETWORKS[kind]())
    given = frames(count, batch=2)
    with torch.no_grad():
        decoding = Decoding(autoencoder, InLine(), early=early)
        for frame in given:
            decoding.push(frame)
        made = decoding.finish()
        whole = torch.cat([autoencoder.decode(one) for one in torch.stack(given, dim=2).split(1)])
    assert torch.equal(made, whole)


def test_each_output_is_decoded_by_itself(pipe: NovaPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    decode = pipe.vae.decode_window
    monkeypatch.setattr(pipe.vae, "decode_window", lambda x: [batches.append(len(x)), decode(x)][1])
    pipe(PROMPTS, **FAST)
    assert batches == [1, 1]


@pytest.mark.parametrize("prompts", [PROMPTS[:1], PROMPTS])
def test_a_call_gives_the_pixels_of_its_latents(pipe: NovaPipeline, prompts: list[str]) -> None:
    made = pipe(prompts, output_type="pt", **LONG).frames
    latents = pipe(prompts, output_type="latent", **LONG).frames
    assert latents.shape[2] == 10
    assert torch.equal(made, pixels(pipe, latents))


def test_a_window_is_decoded_before_the_frames_after_it_are_made(pipe: NovaPipeline, events: list[str]) -> None:
    pipe("a red kite", **LONG)
    windows = [index for index, event in enumerate(events) if event != "set"]
    assert [events[index] for index in windows] == ["decoded 5"] * 3
    sets = [events[:index].count("set") for index in windows]
    a_frame = events.count("set") // 10
    assert sets == [5 * a_frame, 9 * a_frame, 10 * a_frame]


def test_parts_that_take_turns_are_not_mixed(pipe: NovaPipeline, events: list[str]) -> None:
    plain = pipe("a red kite", output_type="pt", **LONG).frames
    events.clear()
    pipe.transformer._hf_hook = SimpleNamespace(pre_forward=lambda module: None)
    made = pipe("a red kite", output_type="pt", **LONG).frames
    assert events.index("decoded 5") == events.count("set")
    assert torch.equal(made, plain)


def test_latents_are_not_decoded(pipe: NovaPipeline, events: list[str]) -> None:
    pipe("a red kite", output_type="latent", **LONG)
    assert set(events) == {"set"}


@pytest.mark.parametrize("whole", [2, 5, 7])
def test_who_cancels_has_the_pixels_of_finished_frames(pipe: NovaPipeline, whole: int) -> None:
    def until(_: object, done: int, *__: object) -> bool:
        return done < 2 * whole + 1  # two sets a frame: in the middle of the next

    latents = pipe("a red kite", output_type="latent", **LONG).frames[:, :, :whole]
    made = pipe("a red kite", output_type="pt", callback_on_step_end=until, **LONG).frames
    assert torch.equal(made, pixels(pipe, latents))


def test_who_cancels_in_the_first_frame_has_nothing(pipe: NovaPipeline) -> None:
    for kind in ("pt", "latent"):
        assert pipe("a", output_type=kind, callback_on_step_end=lambda *_: False, **FAST).frames == []


@pytest.mark.parametrize("given", ["image", "video", "latents"])
def test_given_frames_are_decoded_too(pipe: NovaPipeline, given: str) -> None:
    numbers = np.random.default_rng(0)
    prefix = {
        "image": numbers.integers(0, 255, (32, 32, 3), dtype=np.uint8),
        "video": numbers.integers(0, 255, (21, 32, 32, 3), dtype=np.uint8),
        "latents": torch.stack(frames(6), dim=2).repeat(1, 1, 1, 2, 2),
    }
    asked = {**LONG, given: prefix[given]}
    latents = pipe(PROMPTS, output_type="latent", **asked).frames
    assert latents.shape[2] == 10
    assert torch.equal(pipe(PROMPTS, output_type="pt", **asked).frames, pixels(pipe, latents))


def test_all_work_of_decoding_is_done_in_its_lane(pipe: NovaPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, given = Lanes(), frames(6)
    decode = pipe.vae.decode_window
    monkeypatch.setattr(pipe.vae, "decode_window", lambda x: [lanes.events.append(lanes.inside), decode(x)][1])
    with torch.no_grad():
        decoding = Decoding(pipe.autoencoder, lanes, early=True)
        for frame in given:
            decoding.push(frame)
        assert lanes.events == [("beside", 5), True]
        made = decoding.finish()
    assert lanes.events == [("beside", 5), True, ("beside", 5), True, ("beside", 0), "join"]
    assert [id(frame) for frame in lanes.given] == [id(frame) for frame in (*given[:5], *given[1:])]
    assert lanes.made[0] is made  # so that the main lane may read it


def test_the_host_waits_for_a_frame_only_when_the_next_has_begun(
    pipe: NovaPipeline, events: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lanes = Lanes()
    lanes.events = events  # type: ignore[assignment]
    monkeypatch.setattr(pipe, "_decoding_lane", lambda _: lanes)
    pipe("a red kite", output_type="latent", **FAST)
    frame = ["set"] * (events.index("later"))
    first = len(frame) // 2  # two sets a frame
    assert events[: events.index("wait")] == [*frame, "later", *frame[:first]]
    assert events[-1] == "wait"  # the last frame, before the result


def test_a_frame_of_no_numbers_is_named_also_when_it_is_the_last(pipe: NovaPipeline) -> None:
    def spoil(pipe: NovaPipeline, done: int, *_: object) -> None:
        if done == 4:
            pipe.transformer.denoiser.head.bias.fill_(float("nan"))

    with pytest.raises(ResourceError, match="latent frame 2 "):
        pipe("a red kite", callback_on_step_end=spoil, **FAST)


def test_float16_that_overflows_is_settled_at_the_end(pipe: NovaPipeline) -> None:
    pipe.vae.half().post_quant_conv.weight.data.fill_(6e4)
    lanes, given, autoencoder = Lanes(), frames(6), pipe.autoencoder
    with torch.no_grad():
        decoding = Decoding(autoencoder, lanes, early=True)
        for frame in given:
            decoding.push(frame)
        assert torch.equal(decoding.finish(), autoencoder.decode(torch.stack(given, dim=2)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_stream_of_its_own_gives_the_same_pixels() -> None:
    pipe = tiny.pipeline().to("cuda")
    made = [pipe(PROMPTS, output_type="pt", **LONG).frames for _ in range(3)]  # plain, captured, replayed
    latents = pipe(PROMPTS, output_type="latent", **LONG).frames
    for one in made:
        torch.testing.assert_close(one, pixels(pipe, latents), atol=1e-4, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_host_waits_for_no_window(dtype: torch.dtype) -> None:
    autoencoder = Autoencoder(tiny.pipeline().vae.to("cuda", dtype))
    given = [frame.cuda() for frame in frames(9)]
    decoding = Decoding(autoencoder, CudaLane(given[0].device), early=True)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            for frame in given:
                decoding.push(frame)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert decoding.finish().isfinite().all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_lanes_wait_for_each_other() -> None:
    lane = CudaLane(torch.device("cuda", torch.cuda.current_device()))
    for number in range(20):
        given = torch.zeros(1 << 20, device="cuda")
        torch.cuda._sleep(10_000_000)
        given += number  # not before the sleep is over
        seen = lane.later((given == number).all())
        with lane.beside([given]):
            torch.cuda._sleep(10_000_000)
            made = given * 2 + 1
        del given
        torch.full((1 << 20,), -1.0, device="cuda")  # would take its place
        lane.join(made)
        assert torch.equal(made, torch.full_like(made, 2 * number + 1))
        assert seen()
