"""`nova train` takes fields in every spelling, and says in one line what is wrong with one."""

import json
import re

import pytest

from nova.cli import main
from nova.cli.planned import _duration, _si
from nova.cli.train import as_settings
from nova.errors import UsageError
from nova.recipes.catalogue import RECIPES


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (["steps=2", "batch_size=3"], ["steps=2", "batch_size=3"]),
        (["--steps", "2", "--batch-size=3"], ["steps=2", "batch_size=3"]),
        (["--initial.steps", "-2", "a=--b"], ["initial.steps=-2", "a=--b"]),
        ([], []),
    ],
)
def test_fields_in_every_spelling(words, settings):
    assert as_settings(words) == settings


def test_an_option_without_a_value_is_refused():
    with pytest.raises(UsageError, match="--steps has no value"):
        as_settings(["--steps"])


def test_the_same_command_goes_on_and_a_longer_one_goes_further(tmp_path, capsys):
    command = ["train", "digits-text-encoder", "--output", str(tmp_path), "batch_size=2", "log_every=1", "-q"]
    small = ["model.width=16", "model.layers=1", "model.heads=2", "optimizer.schedule=constant"]
    for steps in (2, 2, 4):
        assert main([*command, *small, "--steps", str(steps)]) == 0
        assert capsys.readouterr().out.strip() == str(tmp_path / "model")
        lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(1, steps + 1))


def test_recipes_are_listed_a_line_each(capsys):
    assert main(["train", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(RECIPES)
    assert all(line.endswith(".") for line in lines)


def test_a_dry_run_tells_all_parts_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["train", "digits-tiny", "--dry-run", "--processes", "2", "lora.rank=2", "autoencoder.batch_size=2"]) == 0
    )
    told = capsys.readouterr().out
    parts = re.findall(r"^\S.*$", told, re.M)
    assert parts == [f"digits-tiny{part}" for part in (" autoencoder", " text_encoder", " initial", "")]
    assert {"run", "parameters", "memory", "compute", "time", "data"} <= set(re.findall(r"^  (\w+)", told, re.M))
    assert "on 2 processes" in told
    assert "latents 4x2x4x4: 8 samples" in told
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_names_all_problems_and_ends_as_the_first_would(tmp_path, capsys):
    missing = [f"data.folder={tmp_path / 'no'}", "initial=runs/none", "autoencoder=null", "text_encoder=null"]
    small = ["model.width=32", "model.heads=2", "batch_size=2", "micro_batch=2"]
    assert main(["train", "t2i-256-0.3b", "--dry-run", *missing, *small]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["nova", "error"]] * 2
    assert "manifest.json: missing" in lines[0]
    assert "runs/none is not here" in lines[1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 "), (999, "999 "), (1000, "1 k"), (2.584e9, "2.58 G"), (999_600, "1 M")],
)
def test_numbers_have_three_digits_and_a_prefix(value, text):
    assert _si(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0123, "12.3 ms"), (1.5, "1.5 seconds"), (300, "5 minutes"), (2.6e8, "3,010 days")]
)
def test_times_have_the_unit_that_fits(seconds, text):
    assert _duration(seconds) == text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "no recipe; give a name of nova train --list"),
        (["digits-vidoe"], 2, "did you mean 'digits-video'"),
        (["digits", "stepps=3"], 2, "unknown field 'stepps' of TransformerRun; did you mean 'steps'"),
        (["digits", "--steps", "0"], 2, "steps: found 0"),
        (["digits", "--steps"], 2, "--steps has no value"),
        (["digits-video", "autoencoder=nowhere"], 2, "autoencoder: nowhere"),
    ],
)
def test_one_line_says_what_is_wrong(tmp_path, capsys, words, code, message):
    assert main(["train", *words, "--output", str(tmp_path / "run")]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_run_needs_a_folder(capsys):
    assert main(["train", "digits-tiny"]) == 2
    assert "--output is missing" in capsys.readouterr().err
