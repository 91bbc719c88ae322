"""`nova prepare`: media and captions to latent shards; what that would take; whether it went well."""

from __future__ import annotations

import os
import tempfile
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nova.errors import UsageError

if TYPE_CHECKING:
    from nova.preparation.estimate import Estimate

_what = partial(typer.Option, rich_help_panel="What is made")
_how = partial(typer.Option, rich_help_panel="How the work is done")
_else = partial(typer.Option, rich_help_panel="Instead of preparing")
_GPU_BATCH = 8


class Executor(StrEnum):
    """Where items are inspected and clips encoded."""

    local = "local"
    ray = "ray"


class Dtype(StrEnum):
    """Precisions of the frozen models."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


def prepare(
    source: Annotated[
        str | None, typer.Argument(help="A folder, table (.csv, .jsonl, .parquet), tar, or hf:NAME of a data set.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FIELD=VALUE]...", help="Changed rules, such as scenes=27 or source.split=test; --FIELD VALUE too."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the shards. What was stopped there goes on.")] = None,
    model: Annotated[
        str, _what(metavar="MODEL", help="Whose autoencoder, text encoder, size and length are taken.")
    ] = "digits",
    autoencoder: Annotated[str | None, _what(metavar="MODEL", help="Of another model or a finished run.")] = None,
    text_encoder: Annotated[str | None, _what(metavar="MODEL", help="Of another model or a finished run.")] = None,
    text_features: Annotated[
        bool, _what("--text-features", help="Store features of captions too; else training works them out.")
    ] = False,
    size: Annotated[list[str] | None, _what(metavar="HxW", help="Pixels; may be repeated.")] = None,
    frames: Annotated[list[int] | None, _what(help="Of a clip, 1 for images; may be repeated.")] = None,
    paper: Annotated[
        bool, _what("--paper", help="The paper's recipe: aesthetic 5 or more, 33 frames at stride 2, 480x768.")
    ] = False,
    clip: Annotated[str | None, _what(metavar="FOLDER|HUB_ID", help="A CLIP model, for `similarity`.")] = None,
    aesthetic_head: Annotated[
        Path | None, _what(metavar="FILE", help="LAION's predictor on that model, for `aesthetic`.")
    ] = None,
    caption_encoding: Annotated[str | None, _what(metavar="NAME", help="Of captions that are not UTF-8.")] = None,
    max_bad: Annotated[
        str, _what(metavar="SHARE", help="Publish nothing where more failed than this, such as 1%.")
    ] = "100%",
    shard_size: Annotated[int, _what(min=1, metavar="MIB", help="About the size of a shard.")] = 256,
    workers: Annotated[int | None, _how(min=1, help="Processes that decode. (default: one a core)")] = None,
    time_limit: Annotated[float, _how(min=0.1, metavar="SECONDS", help="A worker may be silent for so long.")] = 30.0,
    memory: Annotated[float, _how(min=0.25, metavar="GIB", help="A worker may take so much.")] = 2.0,
    device: Annotated[str, _how(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[Dtype, _how(help="Of the frozen models.")] = Dtype.float32,
    batch_size: Annotated[
        int | None, _how(min=1, help="Clips encoded together. (default: 1 on a CPU, 8 on a GPU)")
    ] = None,
    executor: Annotated[
        Executor, _how(help="This machine, or the Ray cluster that RAY_ADDRESS names.")
    ] = Executor.local,
    quiet: Annotated[bool, _how("--quiet", "-q", help="No progress bar and no table.")] = False,
    plan: Annotated[
        bool, _else("--plan", help="Say how many clips, how much disk, how long; publish nothing.")
    ] = False,
    verify: Annotated[
        Path | None, _else(metavar="DIR", help="Read every byte of a prepared folder and decode some clips back.")
    ] = None,
) -> None:
    """Prepare images, videos and captions as training reads them; the same command goes on where it was stopped.

    DIR/report.jsonl has the fate of every item, report.html shows it, summary.json counts. `nova train` takes DIR as
    data.folder. What has not changed since is not made again.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from nova.cli.train import as_settings

    words = tuple(as_settings(settings or []))
    if verify is not None:
        _verify(verify, device)
        return
    if source is None or output is None:
        raise UsageError("give SOURCE and --output DIR, or --verify DIR")
    if Path(source).is_dir() and output.resolve().is_relative_to(Path(source).resolve()):
        raise UsageError(f"--output: {output} lies in the source; choose a folder outside of {source}")
    from rich.console import Console

    from nova.cli.devices import choose_environment
    from nova.cli.preparing import Asked, folders_for, rules_for, share, source_for
    from nova.preparation.encode import Encoder, load_models
    from nova.preparation.pool import Limits
    from nova.preparation.prepare import Options
    from nova.preparation.prepare import plan as planned
    from nova.preparation.prepare import prepare as run
    from nova.preparation.progress import Bar
    from nova.preparation.report import print_summary
    from nova.preparation.sources import list_items

    asked = Asked(
        model,
        autoencoder,
        text_encoder,
        text_features,
        tuple(size or ()),
        tuple(frames or ()),
        paper,
        clip,
        aesthetic_head,
        caption_encoding,
        words,
    )
    limits = Limits(workers or os.cpu_count() or 1, time_limit, int(memory * (1 << 30)))
    options = Options(limits, shard_size << 20, share(max_bad))
    import torch

    place = torch.device(choose_environment(device, dtype.value, None, offload=False).device)
    folders, precision = folders_for(asked), getattr(torch, dtype.value)
    models = load_models(folders, place, precision)
    rules = rules_for(asked, models)
    reading = source_for(asked)
    batch = batch_size or (1 if place.type == "cpu" else _GPU_BATCH)
    encoder, elsewhere = Encoder(models, models.header(rules), batch), None
    if executor is Executor.ray:
        from nova.preparation.ray import Cluster, FarEncoder

        encoder = FarEncoder(models, encoder.header, batch)
        elsewhere = Cluster(folders, rules, precision, limits, device != "cpu", batch).inspect
    items = list_items(source, reading)
    if plan:
        with tempfile.TemporaryDirectory() as scratch:
            here = Encoder(models, encoder.header, batch)
            _tell(planned(items, Path(scratch), output, rules, here, limits), output)
        return
    made_with = {"source": source, "reading": reading.model_dump(mode="json"), "asked": asked.as_json()}
    summary = run(items, output, rules, encoder, options, made_with, Bar(quiet), elsewhere=elsewhere)
    if not quiet:
        print_summary(summary, output, Console())


def _verify(folder: Path, device: str) -> None:
    """Check a prepared folder, and print what comes back of some clips."""
    import torch

    from nova.checkpoints.folder import read_json
    from nova.cli.devices import choose_environment
    from nova.cli.preparing import asked_before, folders_for
    from nova.data.manifest import read_manifest
    from nova.errors import NovaError
    from nova.preparation.encode import load_models
    from nova.preparation.prepare import SETTINGS
    from nova.preparation.rules import Rules
    from nova.preparation.sources import SourceOptions, list_items
    from nova.preparation.sources.names import printable
    from nova.preparation.verify import SHEET, verify, write_sheet

    header = read_manifest(folder).header
    made_with = read_json(folder / SETTINGS)
    place = torch.device(choose_environment(device, "float32", None, offload=False).device)
    models = load_models(folders_for(asked_before(made_with["asked"])), place, torch.float32)
    rules = Rules.model_validate(header.options["rules"])
    try:
        items = list_items(made_with["source"], SourceOptions.model_validate(made_with["reading"]))
    except NovaError as error:
        typer.echo(f"nova: {error}", err=True)
        items = iter(())
    with tempfile.TemporaryDirectory() as scratch:
        found = verify(folder, items, rules, models, Path(scratch))
    write_sheet(folder / SHEET, found.pairs)
    typer.echo(f"{found.samples:,} samples in {found.shards:,} shards: every byte is as it was written")
    for pair in found.pairs:
        typer.echo(f"{'no source' if pair.psnr is None else f'{pair.psnr:.1f} dB':<10} {printable(pair.id)}")
    typer.echo(str(folder / SHEET))


def _tell(found: Estimate, output: Path) -> None:
    """Print an estimate."""
    hours = found.seconds / 3600
    lines = [
        ("items", f"{found.items:,}, of which {found.measured} were made to measure"),
        ("clips", f"about {found.clips:,}"),
        ("disk", f"about {found.bytes / 1e9:.3g} GB at the end of the work, half of it afterwards"),
        ("free", f"{found.free / 1e9:.3g} GB at {output}"),
        ("time", f"about {hours:.2g} hours" if hours >= 1 else f"about {found.seconds / 60:.2g} minutes"),
    ]
    for name, text in lines:
        typer.echo(f"{name:<8} {text}")
