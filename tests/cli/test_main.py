"""The rule of the command line: one line on stderr, the right exit code, nothing heavy before it is needed."""

import errno
import json
import os
import subprocess
import sys

import pytest

from nova import cli
from nova.errors import CheckpointError, DataError, ResourceError, UsageError

PROGRAM = [sys.executable, "-c", "import sys; from nova.cli import main; sys.exit(main())"]


def failing(error):
    def command(**_):
        raise error

    return command


@pytest.fixture
def raises(monkeypatch):
    """Makes the command line raise an error wherever a command would run."""

    def arrange(error):
        monkeypatch.setattr(cli, "app", lambda *_, **__: (_ for _ in ()).throw(error))

    return arrange


def test_help_imports_nothing_heavy():
    code = (
        "import sys, json; from nova.cli import main; status = main(['--help']);"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'av', 'pydantic', 'sklearn'};"
        "print(json.dumps([status, sorted(heavy & sys.modules.keys())]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr) == [0, []]
    assert all(command in done.stdout for command in ("generate", "train", "info", "convert"))


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "nova 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "a", "--stepz", "3"], "--steps"),
        (["generte"], "generate"),
        (["generate", "a", "--steps", "many"], "--steps"),
        (["generate", "a", "--dtype", "float8"], "float16"),
        (["info", "--jsn"], "--json"),
        (["convert", "x"], "DESTINATION"),
    ],
)
def test_wrong_usage_is_one_line_that_helps(capsys, arguments, said):
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("nova: error: ")
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("field: 3 is odd; use 4"), 2),
        (DataError("x.mp4: no video"), 3),
        (CheckpointError("x: missing"), 4),
        (ResourceError("no disk"), 5),
        (MemoryError(), 5),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 5),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "x.mp4"), 5),
        (RuntimeError("a\nb"), 1),
    ],
)
def test_every_error_is_one_line_with_its_code(capsys, raises, error, code):
    raises(error)
    assert cli.main(["generate", "a"]) == code
    stderr = capsys.readouterr().err
    assert stderr.startswith("nova: error: ")
    assert stderr.count("\n") == 1


def test_debug_shows_the_traceback(capsys, raises):
    raises(DataError("x: broken"))
    assert cli.main(["generate", "a", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_prompt_after_two_hyphens_is_no_flag(monkeypatch):
    seen = []
    monkeypatch.setattr(cli, "app", lambda words, **_: seen.append(words))
    assert cli.main(["--debug", "generate", "--", "--debug"]) == 0
    assert seen == [["generate", "--", "--debug"]]


def test_interrupt_has_its_code_and_no_traceback(capsys, raises):
    raises(KeyboardInterrupt())
    assert cli.main(["generate", "a"]) == 130
    assert capsys.readouterr().err == "nova: interrupted\n"


def test_a_closed_pipe_is_quiet():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*PROGRAM, "--help"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_output_is_an_error_line():
    with open("/dev/full", "w") as full:
        done = subprocess.run([*PROGRAM, "--version"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("nova: error: ")
    assert done.stderr.count("\n") == 1


def test_libraries_neither_call_home_nor_run_code_of_model_folders(monkeypatch):
    for name in cli.QUIET_SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["--version"]) == 0
    assert {os.environ[name] for name in cli.QUIET_SETTINGS} == {"1"}
