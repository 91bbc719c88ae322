"""`nova prepare` from the command line: what it makes, what it says, and how it refuses."""

import json

import numpy as np
import pytest

from nova.cli import main
from nova.cli.preparing import Asked, asked_before, rules_for, share, source_for
from nova.data.latents import LatentDataset
from nova.errors import UsageError
from nova.media import write_image, write_video
from tests.preparation.made import encoder


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    rng = np.random.default_rng(0)
    write_video(folder / "a.mp4", rng.integers(0, 256, (20, 64, 80, 3), np.uint8), 12)
    write_image(folder / "b.png", rng.integers(0, 256, (70, 80, 3), np.uint8))
    for name in ("a", "b", "lonely"):
        (folder / f"{name}.txt").write_text(f"a caption of {name}")
    return folder


def test_a_folder_becomes_shards_with_features_of_both_kinds(media, tmp_path, capsys):
    output = tmp_path / "out"
    command = ["prepare", str(media), "--output", str(output), "--workers", "1", "--text-features"]
    assert main([*command, "--frames", "17", "--frames", "1", "upscale=true"]) == 0
    told = capsys.readouterr().out
    assert "1 clips of 17 frames of 64x64" in told
    assert "1 images of 64x64" in told
    data = LatentDataset(output)
    assert data.buckets == ((16, 1, 8, 8), (16, 5, 8, 8))
    assert data.header.autoencoder.id == data.header.text_encoder.id == "digits"
    assert data.get(1, 0).text[0].shape[1] == 128
    assert data.get(1, 0).captions == ("a caption of a",)
    assert json.loads((output / "summary.json").read_text())["ok"] == 2


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        (["no/such", "--output", "out"], 3, "no/such: "),
        (["media"], 2, "give SOURCE and --output DIR"),
        (["media", "--output", "media/out"], 2, "lies in the source"),
        (["media", "--output", "out", "min_sde=3"], 2, "did you mean 'min_side'"),
        (["media", "--output", "out", "--max-bad", "lots"], 2, "--max-bad: 'lots' is no share"),
        (["media", "--output", "out", "--size", "60x64"], 2, "the autoencoder takes multiples of 8 pixels"),
        (["media", "--output", "out", "--frames", "16"], 2, "the autoencoder takes 4k + 1, like 17"),
        (["media", "--output", "out", "--aesthetic-head", "h.safetensors"], 2, "name it with --clip"),
        (["media", "--output", "out", "source.split=1", "source.spilt=2"], 2, "did you mean 'split'"),
        (["--verify", "media"], 3, "media/manifest.json: missing"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(words, code, line, media, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", *words]) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert line in told[-1]
    assert len([one for one in told if one.startswith("nova: error")]) == 1
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize(("text", "value"), [("1%", 0.01), ("0.05", 0.05), ("100%", 1), ("0", 0)])
def test_shares(text, value):
    assert share(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "-1%", "101%", "nan", "x%"])
def test_what_is_no_share(text):
    with pytest.raises(UsageError, match="is no share"):
        share(text)


def test_rules_follow_from_model_flags_and_settings():
    models = encoder().models
    rules = rules_for(Asked("digits", settings=("static=2", "source.split=dev")), models)
    assert [(one.frames, one.height, one.width) for one in rules.buckets] == [(17, 64, 64)]
    assert rules.static == 2
    paper = rules_for(Asked("digits", paper=True), models)
    assert (paper.stride, paper.fps, paper.scores[0].least) == (2, None, 5.0)
    assert {(one.frames, one.height, one.width) for one in paper.buckets} == {(33, 480, 768), (1, 480, 768)}
    assert source_for(Asked("digits", settings=("static=2", "source.split=dev"))).split == "dev"


def test_what_was_asked_is_read_as_it_was_written():
    asked = Asked("digits", sizes=("64x64",), frames=(1, 17), settings=("a=1",), caption_encoding="cp1252")
    assert asked_before(json.loads(json.dumps(asked.as_json()))) == asked
