"""`nova train`: a recipe, the user's own function or a saved config, run in a folder that it can go on in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nova.errors import UsageError

_SIGNALLED = 128
"""Exit codes of a run that a signal stopped: this plus its number, as shells have it. Its state is saved."""


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name, my_recipes.py:function, or the config.json of a run.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[FIELD=VALUE]...", help="Changed fields; --FIELD VALUE does too.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The run's folder. A run that was stopped there goes on.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would take and what would stop it; train nothing.")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="For --dry-run: on so many devices like this one.")] = 1,
    show_list: Annotated[bool, typer.Option("--list", help="Say which recipes there are.")] = False,
) -> int:
    """Train a model as a recipe says; the same command goes on where it was stopped.

    DIR/model is the finished model, DIR/metrics.jsonl what was measured, DIR/checkpoints the state to go on from.
    Ctrl-C or SIGTERM saves and stops, with exit code 130 or 143; a second one stops at once.
    """
    changes = as_settings(settings or [])
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # transformers shows one for every file it writes
    from nova.recipes.catalogue import find_recipe, summaries
    from nova.recipes.overrides import override

    if show_list:
        for name, summary in summaries().items():
            typer.echo(f"{name:<24}{summary}")
        return 0
    if recipe is None:
        raise UsageError("no recipe; give a name of nova train --list, my_recipes.py:function or a config.json")
    config = override(find_recipe(recipe), changes)
    from nova.training.cluster import cluster, default_device

    if dry_run:
        from nova.cli.planned import tell

        return tell(config, recipe, processes, default_device())
    if output is None:
        raise UsageError("--output is missing; name the run's folder")
    from nova.recipes.run import run

    with cluster(default_device()) as here:
        stopped = run(config, output, here, quiet)
    said = f"nova: {stopped.name}: saved; the same command goes on" if stopped is not None else str(output / "model")
    if here.main:
        typer.echo(said, err=stopped is not None)
    return 0 if stopped is None else _SIGNALLED + stopped


def as_settings(words: list[str]) -> list[str]:
    """`field=value` words as they are, `--field value` and `--field=value` turned into them."""
    settings: list[str] = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            settings.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        if not equals:
            found = next(rest, None)
            if found is None:
                raise UsageError(f"{word} has no value; write {name}=VALUE or --{name} VALUE")
            value = found
        settings.append(f"{name.replace('-', '_')}={value}")
    return settings
