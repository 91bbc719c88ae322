"""A run of `nova generate` with a pipeline that draws its pictures: files, names, records, refusals, repetition."""

import dataclasses
import hashlib
import inspect
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from nova.cli import sheet
from nova.cli.request import Settings
from nova.media import read_image, read_video, write_image
from nova.pipeline.request import Request


def test_a_video_its_record_and_its_path(generate):
    assert generate("a red 3", "--output", "x.mp4", "--seed", 7) == (0, "x.mp4\n", "")
    assert len(read_video("x.mp4").frames) == 9
    record = json.loads(Path("x.json").read_text())
    assert record["sample"] == {"seed": 7, "prompt": "a red 3", "negative_prompt": None, "class_label": None}
    assert record["options"]["num_frames"] == 9
    assert (record["options"]["height"], record["options"]["width"]) == (64, 96)
    assert record["output"]["sha256"] == hashlib.sha256(Path("x.mp4").read_bytes()).hexdigest()
    assert set(record["model"]["files"]) == {"model_index.json", "transformer/config.json", "vae/config.json"}
    assert record["environment"]["torch"].startswith(torch.__version__.split("+")[0])
    assert sorted(os.listdir()) == ["x.json", "x.mp4"]


@pytest.mark.parametrize(("name", "flags"), [("x.png", ()), ("outputs/a-0.png", ("--frames", 1))])
def test_an_image(generate, pipe, name, flags):
    output = ("--output", name) if not flags else ()
    assert generate("a", *flags, *output)[:2] == (0, f"{name}\n")
    assert read_image(name).shape == (64, 96, 3)
    assert pipe.calls[0]["num_frames"] == 1


def test_many_outputs_and_a_sheet(generate):
    code, printed, _ = generate("a red 3", "Two digits!", "--count", 2, "--seed", 5, "--sheet", "sheet.png")
    names = ["a-red-3-5", "a-red-3-6", "two-digits-7", "two-digits-8"]
    assert code == 0
    assert printed.splitlines() == [*(f"outputs/{name}.mp4" for name in names), "sheet.png"]
    assert sorted(os.listdir("outputs")) == sorted(f"{name}.{kind}" for name in names for kind in ("json", "mp4"))
    assert read_image("sheet.png").shape[1] > 8 * 96


def test_each_file_of_a_run_is_the_file_made_alone(generate):
    generate("a", "b", "--output", "together")
    generate("b", "--seed", 1, "--output", "alone.mp4")
    assert Path("together/b-1.mp4").read_bytes() == Path("alone.mp4").read_bytes()


def test_every_option_reaches_the_pipeline(generate, pipe):
    flags = {
        "num_frames": ("--frames", 5),
        "num_inference_steps": ("--steps", 3),
        "num_diffusion_steps": ("--diffusion-steps", 4),
        "guidance_scale": ("--guidance", 2.5),
        "min_guidance_scale": ("--min-guidance", 1.5),
        "guidance_trunc": ("--guidance-trunc", 200.0),
        "guidance_renorm": ("--guidance-renorm", 0.5),
        "image_guidance_scale": ("--image-guidance", 1.25),
        "guidance_start": ("--guidance-start", 0.25),
        "guidance_end": ("--guidance-end", 0.75),
        "motion_score": ("--motion", 3.0),
        "fps": ("--fps", 8.0),
        "flow_shift": ("--flow-shift", 2.0),
        "window_frames": ("--window", 9),
    }
    words = [word for flag in flags.values() for word in flag] + ["--negative-prompt", "blur"]
    assert generate("a", "--size", "32x64", *words, "--output", "x.mp4")[0] == 0
    (call,) = pipe.calls
    assert {name: call[name] for name in flags} == {name: value for name, (_, value) in flags.items()}
    assert (call["height"], call["width"]) == (32, 64)
    assert (call["prompt"], call["negative_prompt"]) == (["a"], ["blur"])
    assert float(read_video("x.mp4").fps) == 8


def test_defaults_and_names_are_those_of_the_pipeline():
    parameters = inspect.signature(Request).parameters
    for name, value in dataclasses.asdict(Settings()).items():
        assert parameters[name].default == value, name


def test_existing_files_are_refused_before_anything_runs(generate, pipe):
    Path("x.json").write_text("mine")
    code, _, error = generate("a", "--output", "x.mp4")
    assert (code, pipe.calls) == (2, [])
    assert "x.json exists" in error
    assert Path("x.json").read_text() == "mine"
    assert os.listdir() == ["x.json"]
    assert generate("a", "--output", "x.mp4", "--overwrite")[0] == 0


def test_a_run_that_is_interrupted_leaves_whole_files_only(generate, pipe):
    pipe.fails_after = 1
    assert generate("a", "b", "c", "--output", "clips")[0] == 130
    assert sorted(os.listdir("clips")) == ["a-0.json", "a-0.mp4"]


def test_a_failing_writer_leaves_nothing(generate, monkeypatch):
    def broken(*_: object) -> None:
        raise OSError(28, "No space left on device", "x.mp4")

    monkeypatch.setattr("nova.media.write_video", broken)
    code, _, error = generate("a", "--output", "x.mp4")
    assert (code, os.listdir()) == (5, [])
    assert error == "nova: error: x.mp4: No space left on device\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["a", "--frames", "6"], 2, "--frames: 6 is not 4k + 1"),
        (["a", "--size", "big"], 2, "--size"),
        (["a", "--steps", "0"], 2, "--steps"),
        (["a", "--guidance", "nan"], 2, "--guidance"),
        (["a", "--output", "x.avi"], 2, ".avi"),
        (["a", "--sheet", "x.jpg"], 2, "--sheet"),
        (["a", "--output", "x.png", "--sheet", "x.png"], 2, "--sheet"),
        (["a", "--device", "gpu"], 2, "--device"),
        (["a", "--offload", "--device", "cpu"], 2, "--offload"),
        (["a", "--device", "cuda:77"], 5, "--device"),
        (["a", "--image", "missing.png"], 3, "missing.png"),
        (["a", "--image", "x.png", "--video", "x.mp4"], 2, "--image and --video"),
        (["a", "--model", "nowhere"], 4, "nowhere"),
        (["a", "--lora", "nowhere"], 4, "--lora: nowhere"),
        ([], 2, "nothing to generate"),
        (["a", "--from", "missing.json"], 2, "leave one of the two out"),
        (["--from", "missing.json"], 3, "missing.json"),
    ],
)
def test_bad_input_is_one_line_and_no_file(generate, words, code, said):
    found, printed, error = generate(*words)
    assert (found, printed) == (code, "")
    assert error.startswith("nova: error: ")
    assert error.count("\n") == 1
    assert said in error
    assert not [path for path in Path().rglob("*") if path.is_file()]


def test_an_image_that_is_not_one(generate, pipe):
    Path("x.png").write_text("not a picture")
    code, _, error = generate("a", "--image", "x.png", "--output", "y.mp4")
    assert (code, pipe.calls, os.listdir()) == (3, [], ["x.png"])
    assert "x.png" in error


def test_json_is_one_object_with_outputs_and_timings(generate):
    code, printed, _ = generate("a", "b", "--json")
    report = json.loads(printed)
    assert code == 0
    assert report["outputs"] == ["outputs/a-0.mp4", "outputs/b-1.mp4"]
    assert report["frames"] == 18
    assert 0 < report["generate_seconds"] <= report["total_seconds"]


def test_quiet_and_verbose(generate):
    assert generate("a", "-q") == (0, "", "")
    code, _, told = generate("b", "-v")
    assert code == 0
    assert "9 frames" in told
    assert "(cpu), float32, " in told
    assert "without CUDA graphs" in told
    code, _, again = generate("b", "-v")  # the file is there: nothing was made, and nowhere
    assert code == 0
    assert "0 frames" in again
    assert "(cpu)" not in again


def test_again_from_the_record(generate):
    write_image("first.png", np.full((64, 96, 3), 90, np.uint8))
    generate("a red 3", "--steps", 5, "--image", "first.png", "--output", "x.mp4", "--seed", 3)
    assert generate("--from", "x.json", "--output", "y.mp4")[0] == 0
    assert Path("x.mp4").read_bytes() == Path("y.mp4").read_bytes()
    first, second = (json.loads(Path(name).read_text()) for name in ("x.json", "y.json"))
    assert first.pop("output")["sha256"] == second.pop("output")["sha256"]
    assert first == second


def test_an_adapter_is_loaded_recorded_and_loaded_again(generate, pipe):
    Path("adapter").mkdir()
    Path("adapter/adapter_config.json").write_text("{}")
    assert generate("a", "--lora", "adapter", "--output", "x.mp4")[0] == 0
    record = json.loads(Path("x.json").read_text())
    assert record["lora"]["name"] == "adapter"
    assert set(record["lora"]["files"]) == {"adapter_config.json"}
    assert generate("--from", "x.json", "--output", "y.mp4")[0] == 0
    assert pipe.adapters == [Path("adapter")] * 2

    Path("adapter/adapter_config.json").write_text("{ }")
    code, _, error = generate("--from", "x.json", "--output", "z.mp4")
    assert code == 4
    assert "adapter_config.json has changed" in error
    assert "--lora" in error
    generate("a", "--output", "plain.mp4")
    code, _, error = generate("--from", "plain.json", "--lora", "adapter", "--output", "z.mp4")
    assert code == 2
    assert "made without one" in error


def test_again_says_when_the_result_differs(generate):
    generate("a", "--output", "x.mp4")
    record = json.loads(Path("x.json").read_text())
    record["output"]["sha256"] = "0" * 64
    Path("x.json").write_text(json.dumps(record))
    code, printed, told = generate("--from", "x.json", "--output", "y.mp4", "--json")
    assert code == 0
    assert json.loads(printed)["identical"] is False
    assert "not bit for bit" in told


def test_again_refuses_another_model_and_another_image(generate, model):
    write_image("first.png", np.full((64, 96, 3), 90, np.uint8))
    generate("a", "--image", "first.png", "--output", "x.mp4")
    write_image("first.png", np.full((64, 96, 3), 91, np.uint8))
    assert generate("--from", "x.json", "--output", "y.mp4")[0] == 3
    write_image("first.png", np.full((64, 96, 3), 90, np.uint8))
    (model / "model_index.json").write_text((model / "model_index.json").read_text() + " ")
    code, _, error = generate("--from", "x.json", "--output", "y.mp4")
    assert code == 4
    assert "model_index.json has changed" in error
    assert not Path("y.mp4").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: record | {"format": 2}, "format"),
        (lambda record: record | {"extra": 1}, "extra"),
        (lambda record: record | {"options": {"guidance_scale": "high"}}, "options.guidance_scale"),
        (lambda record: record | {"options": {"stepz": 1}}, "options.stepz"),
        (lambda record: record | {"options": {"num_inference_steps": 0}}, "--steps: 0"),
        (lambda record: record | {"sample": {"seed": -1}}, "--seed"),
        (lambda record: [record], "content"),
    ],
)
def test_a_wrong_record_names_its_field(generate, change, said):
    generate("a", "--output", "x.mp4")
    Path("x.json").write_text(json.dumps(change(json.loads(Path("x.json").read_text()))))
    code, _, error = generate("--from", "x.json", "--output", "y.mp4")
    assert code in (2, 3)
    assert said in error
    assert not Path("y.mp4").exists()


def test_threads_of_the_record_are_used(generate, monkeypatch):
    generate("a", "--output", "x.mp4")
    record = json.loads(Path("x.json").read_text())
    record["environment"]["threads"] = 3
    Path("x.json").write_text(json.dumps(record))
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    generate("--from", "x.json", "--output", "y.mp4")
    assert asked == [3]


def test_the_sheet_keeps_no_more_frames_than_it_shows():
    frames = np.arange(100, dtype=np.uint8)[:, None, None, None]
    assert sheet._evenly(frames).ravel().tolist() == [0, 14, 28, 42, 57, 71, 85, 99]
    assert len(sheet._evenly(frames[:3])) == 3
