"""One run of `nova generate`, from a checked request to files.

    plan the files, read the given image or clip         (outputs.py, task.py; nothing is loaded yet)
    see which outputs are there, refuse others' files     (resume.py)
    for each batch of the missing ones                    (batches.py)
        make it, here or on a cluster                     (make.py, executors.py, cluster.py)
        for each output: write the JSON, then the media file beside it

Every sample has a generator of its own, so a file does not depend on the others of its run.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nova.cli.batches import batches
from nova.cli.make import Item, Made
from nova.cli.outputs import (
    Target,
    check_folders,
    check_free,
    check_writable,
    choose_suffix,
    named_suffix,
    plan_targets,
    sidecar_of,
)
from nova.cli.progress import JobProgress
from nova.cli.ranks import Share
from nova.cli.request import Sample, Settings
from nova.cli.resume import Found, Wanted, look
from nova.cli.sheet import check_sheet, write_sheet
from nova.cli.task import Task, check_same, filled_in, find_sources, read_given
from nova.errors import UsageError
from nova.files import remove_all_drafts, written_whole

if TYPE_CHECKING:
    from nova.cli.executors import Executor
    from nova.cli.make import Load
    from nova.cli.sidecar import Sidecar


@dataclasses.dataclass(frozen=True)
class Job:
    """What to make, with what, and where to."""

    samples: list[Sample]
    settings: Settings
    model: str
    lora: Path | None = None
    image: Path | None = None
    video: Path | None = None
    output: Path | None = None
    sheet: Path | None = None
    overwrite: bool = False
    batch: int | None = None
    executor: str = "local"
    workers: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    offload: bool = False
    compiled: bool = False
    quiet: bool = False
    recorded: tuple[Path, Sidecar] | None = None
    """The sidecar that this run repeats."""


@dataclasses.dataclass(frozen=True)
class Report:
    """What was made, and how long it took."""

    outputs: list[str]
    sidecars: list[str]
    sheet: str | None
    found: int
    """Outputs that an earlier run of the same job had made."""
    identical: bool | None
    """Whether a repeated file equals the recorded one bit for bit; None where nothing is repeated."""
    how: str | None
    """Device, precision and path that outputs were made on; None where all were there."""
    frames: int
    """Made by this run."""
    load_seconds: float
    generate_seconds: float
    write_seconds: float
    total_seconds: float
    seconds_per_frame: float
    """Of generation, over all frames made by this run."""


def run(job: Job, load: Load | None = None) -> Report:
    """Make all files of `job`. `load` makes a pipeline of a model folder, an environment and whether to offload."""
    started = time.perf_counter()
    share = Share.of()
    targets, folder, task = _plan(job, share)
    mine = share.numbers(len(targets))
    items = {number: Item(number, job.samples[number], targets[number].media.name) for number in mine}
    executor = _executor(job, task, folder, share, load)
    found = _found(job, targets, mine, Wanted(task.settings, task.sources, executor.dtype))
    _say(found, len(mine), job)
    todo = []
    if len(found.verified) < len(mine):
        executor.start()
        known = max((one.environment.batch for one in found.verified.values()), default=0)
        size = job.batch or known or (executor.batch(items[mine[0]]) if len(mine) > 1 else 1)
        todo = batches(mine, size, found.verified, executor.whole)
    loaded = time.perf_counter()

    generating = writing = 0.0
    made: dict[int, Sidecar] = {}
    missing = sum(len(batch.missing) for batch in todo)
    with JobProgress(missing, task.sets, job.quiet or not share.speaks) as progress:
        for one in executor.make(todo, items, progress.moved):
            clock = time.perf_counter()
            _publish(targets[one.number], one)
            made[one.number] = one.sidecar
            generating += one.generate_seconds
            writing += one.encode_seconds + time.perf_counter() - clock
            progress.made()
    mine_targets = [targets[number] for number in mine]
    if job.sheet is not None:
        write_sheet(job.sheet, job.samples, [target.media for target in mine_targets], job.overwrite)
    frames = sum(sidecar.output.frames for sidecar in made.values())
    return Report(
        outputs=[str(target.media) for target in mine_targets],
        sidecars=[str(target.sidecar) for target in mine_targets],
        sheet=None if job.sheet is None else str(job.sheet),
        found=len(found.verified),
        identical=None if job.recorded is None else made[0].output.sha256 == job.recorded[1].output.sha256,
        how=_how(next(iter(made.values())), job.offload) if made else None,
        frames=frames,
        load_seconds=loaded - started,
        generate_seconds=generating,
        write_seconds=writing,
        total_seconds=time.perf_counter() - started,
        seconds_per_frame=generating / max(frames, 1),
    )


def _how(made: Sidecar, offload: bool) -> str:
    where = made.environment
    if not where.device.startswith("cuda"):
        graphs = "without CUDA graphs, which need a GPU of NVIDIA"
    else:
        graphs = "without CUDA graphs, which --offload rules out" if offload else "with CUDA graphs"
    compiled = "compiled, " if where.compiled else ""
    return f"{where.device_name} ({where.device}), {where.dtype}, {where.threads} threads; {compiled}{graphs}"


def _plan(job: Job, share: Share) -> tuple[list[Target], Path, Task]:
    """Targets, model folder and what all samples share; refuses what the model cannot make."""
    if job.sheet is not None:
        check_sheet(job.sheet, job.output, share)
    if job.overwrite or job.recorded is not None:  # here already, since the imports below take seconds
        named = [job.output, sidecar_of(job.output)] if job.output is not None and named_suffix(job.output) else []
        check_writable(named, job.overwrite)

    from nova.checkpoints.folder import read_transformer_config
    from nova.checkpoints.locate import locate

    folder = locate(job.model)
    makes_videos = read_transformer_config(folder / "transformer").is_video
    suffix = choose_suffix(job.output, job.settings.num_frames, makes_videos)
    targets = plan_targets(job.output, job.samples, suffix)
    given = read_given(job.image, job.video)
    settings = dataclasses.replace(job.settings, num_frames=1) if suffix == ".png" else job.settings
    settings, sets = filled_in(settings, folder, given)
    sources = find_sources(job.model, folder, job.lora, job.image, job.video)
    if job.recorded is not None:
        check_same(sources, job.recorded[1], job.recorded[0])
    task = Task(
        settings=settings,
        sets=sets,
        suffix=suffix,
        sources=sources,
        given=given,
        lora=job.lora,
        device=job.device,
        dtype=job.dtype,
        threads=job.threads,
        offload=job.offload,
        compiled=job.compiled,
    )
    return targets, folder, task


def _executor(job: Job, task: Task, folder: Path, share: Share, load: Load | None) -> Executor:
    """What makes the outputs: this process, or workers of a cluster."""
    if job.executor == "ray":
        from nova.cli.cluster import Cluster

        if share.size > 1:
            raise UsageError("--executor: ray spreads the outputs by itself; start one process, without torchrun")
        return Cluster(task, job.model, job.workers)
    from nova.cli.executors import Here

    return Here(task, folder, share, load)


def _found(job: Job, targets: Sequence[Target], mine: Sequence[int], wanted: Wanted) -> Found:
    """What is there of this process's outputs; refuses files of others, and folders that cannot be written."""
    files = [path for number in mine for path in (targets[number].media, targets[number].sidecar)]
    if job.overwrite or job.recorded is not None:
        check_free(files, job.overwrite)
        found = Found({}, [])
    else:
        found = look(mine, targets, job.samples, wanted)
    if job.sheet is not None and len(found.verified) < len(mine):
        check_free([job.sheet], job.overwrite)
    check_folders([*files, *([] if job.sheet is None else [job.sheet])])
    remove_all_drafts(files)
    return found


def _say(found: Found, wanted: int, job: Job) -> None:
    """Tell how many outputs an earlier run left, if any."""
    if job.quiet or not (found.verified or found.damaged):
        return
    damaged = f", {len(found.damaged)} are not whole" if found.damaged else ""
    rest = wanted - len(found.verified)
    more = f"making the other {rest}" if rest else "nothing to do"
    print(f"nova: {len(found.verified)} of {wanted} outputs are here already{damaged}; {more}", file=sys.stderr)


def _publish(target: Target, made: Made) -> None:
    """Put an output in its place: first the sidecar, so that the media file is never there without it."""
    from nova.cli.sidecar import write_sidecar

    write_sidecar(target.sidecar, made.sidecar)
    with written_whole(target.media) as draft:
        draft.write_bytes(made.data)
