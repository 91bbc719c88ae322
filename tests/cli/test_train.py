"""`nova train` takes fields in every spelling, and says in one line what is wrong with one."""

import json

import pytest

from nova.cli import main
from nova.cli.train import as_settings
from nova.errors import UsageError


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


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
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
