"""A job goes on where it stopped: what is whole is kept, what is damaged is made again, what is not ours is refused."""

import json
import os
import shutil
from pathlib import Path

import pytest

from nova.errors import ResourceError

PROMPTS = ["a red 3", "two digits", "a kite", "the sea"]


def folder(path="out"):
    return {name: Path(path, name).read_bytes() for name in sorted(os.listdir(path))}


@pytest.fixture
def command():
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    return ("--prompts", "prompts.txt", "--output", "out")


@pytest.fixture
def whole(generate, command, pipe):
    """The files of a run that nothing disturbed."""
    assert generate(*command)[0] == 0
    pipe.calls.clear()
    return folder()


def shown(pipe):
    return [call["prompt"] for call in pipe.calls]


def test_the_same_command_again_does_nothing(generate, command, whole, pipe):
    code, printed, told = generate(*command)
    assert (code, printed.count("\n")) == (0, 4)
    assert told == "nova: 4 of 4 outputs are here already; nothing to do\n"
    assert pipe.calls == []
    assert folder() == whole


@pytest.mark.parametrize("kept", range(4))
def test_an_interrupted_job_goes_on_and_ends_the_same(generate, command, whole, pipe, kept):
    shutil.rmtree("out")
    pipe.fails_after = kept
    assert generate(*command)[0] == 130
    assert len(os.listdir("out") if kept else []) == 2 * kept
    pipe.fails_after = None
    pipe.calls.clear()
    assert generate(*command)[0] == 0
    assert shown(pipe) == [[prompt] for prompt in PROMPTS[kept:]]
    assert folder() == whole


@pytest.mark.parametrize("suffix", ["json", "mp4"])
@pytest.mark.parametrize("part", [0, 1, 100])
def test_what_was_cut_short_is_made_again(generate, command, whole, pipe, suffix, part):
    path = Path(f"out/a-kite-2.{suffix}")
    path.write_bytes(path.read_bytes()[:part])
    _, _, told = generate(*command)
    assert "3 of 4 outputs are here already, 1 are not whole" in told
    assert shown(pipe) == [["a kite"]]
    assert folder() == whole


def test_a_flipped_bit_a_missing_clip_and_drafts_of_a_killed_run(generate, command, whole, pipe):
    clip = Path("out/a-kite-2.mp4")
    clip.write_bytes(whole[clip.name][:-1] + bytes([whole[clip.name][-1] ^ 1]))
    Path("out/the-sea-3.mp4").unlink()
    Path("out/.the-sea-3.0123abcd.mp4").touch()
    Path("out/.the-sea-3.0123abcd.json").touch()
    generate(*command)
    assert shown(pipe) == [["a kite"], ["the sea"]]
    assert folder() == whole


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--steps", 3], "num_inference_steps 64, not 3"),
        (["--frames", 5], "num_frames 9, not 5"),
        (["--negative-prompt", "blur"], "another prompt"),
        (["--dtype", "bfloat16"], "dtype float32, not bfloat16"),
    ],
)
def test_outputs_of_another_job_are_neither_kept_nor_replaced(generate, command, whole, pipe, flags, said):
    code, _, error = generate(*command, *flags)
    assert (code, pipe.calls) == (2, [])
    assert "out/a-red-3-0.json exists, of an output with" in error
    assert said in error
    assert folder() == whole
    assert generate(*command, *flags, "--overwrite")[0] == 0
    assert len(pipe.calls) == 4


def test_what_is_asked_for_by_default_or_by_number_is_the_same(generate, command, whole, pipe):
    assert generate(*command, "--frames", 9, "--size", "64x96", "--batch", 3)[0] == 0
    assert pipe.calls == []


def test_another_model_is_another_job(generate, command, whole, pipe, model):
    (model / "model_index.json").write_text((model / "model_index.json").read_text() + " ")
    code, _, error = generate(*command)
    assert (code, pipe.calls) == (2, [])
    assert "another model" in error


@pytest.mark.parametrize("name", ["a-kite-2.mp4", "a-kite-2.json"])
def test_files_of_somebody_else_stay(generate, command, pipe, name):
    Path("out").mkdir()
    Path("out", name).write_text('{"mine": 1}')
    code, _, error = generate(*command)
    assert (code, pipe.calls, folder()) == (2, [], {name: b'{"mine": 1}'})
    assert f"out/{name} exists" in error


def test_overwrite_makes_everything_again(generate, command, whole, pipe):
    assert generate(*command, "--overwrite")[2] == ""
    assert len(pipe.calls) == 4
    assert folder() == whole


def test_the_sidecar_is_there_before_its_clip(generate, monkeypatch):
    def full(path, *_):
        raise ResourceError(f"{path}: disk full")

    monkeypatch.setattr("nova.cli.job.written_whole", full)
    assert generate("a", "--output", "x.mp4")[0] == 5
    assert os.listdir() == ["x.json"]
    monkeypatch.undo()


def test_a_sheet_is_the_same_after_an_interruption(generate, command, pipe):
    command = (*command, "--sheet", "sheet.png")
    pipe.fails_after = 2
    assert generate(*command)[0] == 130
    assert not Path("sheet.png").exists()
    pipe.fails_after = None
    assert generate(*command)[0] == 0
    sheet = Path("sheet.png").read_bytes()
    assert generate(*command)[0] == 0
    assert Path("sheet.png").read_bytes() == sheet
    Path("out/a-kite-2.mp4").unlink()
    assert generate(*command)[0] == 2
    shutil.rmtree("out")
    Path("sheet.png").unlink()
    assert generate(*command)[0] == 0
    assert Path("sheet.png").read_bytes() == sheet


def test_json_says_how_many_were_found(generate, command, whole):
    Path("out/a-kite-2.mp4").unlink()
    code, printed, _ = generate(*command, "--json", "-q")
    report = json.loads(printed)
    assert (code, report["found"], report["frames"], len(report["outputs"])) == (0, 3, 9, 4)
