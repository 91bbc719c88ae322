"""The command `nova`: one file a command, and the rule by which errors become one line and an exit code.

Nothing heavy is imported here: `nova --help` must answer at once.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from nova import __version__
from nova.cli.bench import bench
from nova.cli.convert import convert
from nova.cli.curves import curves
from nova.cli.generate import generate
from nova.cli.info import info
from nova.cli.prepare import prepare
from nova.cli.train import train
from nova.errors import NovaError, ResourceError

INTERRUPTED = 130
QUIET_SETTINGS = {  # no telemetry, no code from model folders; read by the libraries when they are imported
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
}

HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="nova",
    help="Autoregressive image and video generation without vector quantisation.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings=HELP,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nova {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every command; `main` takes `--debug` wherever it stands."""


app.command()(generate)
app.command(context_settings={**HELP, "ignore_unknown_options": True})(train)  # a recipe's fields are options too
app.command(context_settings={**HELP, "ignore_unknown_options": True})(prepare)  # and a preparation's rules
app.command()(curves)
app.command()(info)
app.command()(bench)
app.command()(convert)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or print one line to stderr and return the error's exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options_end = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:options_end]
    arguments = [word for i, word in enumerate(arguments) if word != "--debug" or i >= options_end]
    for name, value in QUIET_SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        code = app(arguments, prog_name="nova", standalone_mode=False)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        code, line = _explain(error)
        print(f"nova: error: {line}", file=sys.stderr)
    if code == INTERRUPTED:
        print("nova: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _explain(error: Exception) -> tuple[int, str]:
    """Exit code and line for an error."""
    if isinstance(error, typer.TyperException):
        return error.exit_code, _one_line(error.format_message())
    if isinstance(error, NovaError):
        return error.exit_code, _one_line(str(error))
    if isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error):
        return ResourceError.exit_code, (
            "out of memory: use a smaller --size or fewer --frames, --dtype bfloat16, or --offload"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return ResourceError.exit_code, _one_line(f"{error.filename or 'output'}: {error.strerror}")
    line = _one_line(f"internal error: {type(error).__name__}: {error}")
    return NovaError.exit_code, f"{line}; --debug shows where"


def _one_line(message: str) -> str:
    return " ".join(message.split())
