"""The whole of a preparation, from items to published shards.

The items are listed; workers inspect every one that is not known yet; clips are judged, encoded and kept in parts; and
when all is there, shards, manifest and report are put together and take the place of what was published before. What
is published is a function of the items and the settings: not of the number of workers, nor of how often the work was
interrupted.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from nova.data.manifest import MANIFEST, read_manifest
from nova.errors import DataError, ResourceError
from nova.files import json_bytes, reason
from nova.lock import run_lock
from nova.preparation.assemble import assemble, final_fates, finish
from nova.preparation.deciding import Inspect, Shop, decide, remake
from nova.preparation.encode import Encoder
from nova.preparation.estimate import SAMPLE, Estimate, estimate
from nova.preparation.fates import REPORT, SUMMARY, Fate, to_line
from nova.preparation.inspect import inspect
from nova.preparation.items import Item, Refusal
from nova.preparation.listing import Listed, write_listing
from nova.preparation.making import Maker
from nova.preparation.page import PAGE, write_page
from nova.preparation.parts import Store
from nova.preparation.pool import Limits, Work, pooled
from nova.preparation.progress import Bar
from nova.preparation.report import Summary, read_report, summarize
from nova.preparation.rules import Rules

WORK = ".work"
"""Folder inside the output for what is not finished."""
SETTINGS = "prepare.json"
_LISTING, _DECIDED, _PARTS = "items.jsonl", "decided.jsonl", "parts"
_EARLY = 1000
"""A limit on failures counts from so many items on, and at the end."""
_NAMED = 10
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_SURE = 0.8
"""An estimate may be off by a fifth."""


@dataclass(frozen=True)
class Options:
    """How the work is done; only `shard_bytes`, the size of shards, changes what is published.

    max_bad: the largest share of failed items and clips, 0 to 1, with which anything is published.
    """

    limits: Limits = field(default_factory=Limits)
    shard_bytes: int = 256 << 20
    max_bad: float = 1.0


def prepare(
    items: Iterable[Item | Refusal],
    output: Path,
    rules: Rules,
    encoder: Encoder,
    options: Options | None = None,
    settings: Mapping[str, Any] | None = None,
    bar: Bar | None = None,
    work: Work | None = None,
    elsewhere: Inspect | None = None,
) -> Summary:
    """Prepare `items` in the folder `output`, or go on with it.

    `settings` says where the items came from and is kept beside the shards. `work` takes the place of `inspect`,
    `elsewhere` that of workers on this machine.

    Raises:
        DataError: no clip is left, or more failed than `max_bad` allows; names the first of them.
        ResourceError: another process prepares there, or the disk is full; the same call then goes on.
    """
    options = options or Options()
    with _room(output), run_lock(output), bar or Bar(quiet=True) as shown:
        folder = output / WORK
        folder.mkdir(exist_ok=True)
        finish(folder, output)
        store = Store(folder / _PARTS, output, encoder.header)
        here = partial(pooled, work=work or partial(inspect, rules=rules), limits=options.limits)
        inspected = here if elsewhere is None else elsewhere
        shop = Shop(folder / _LISTING, store, Maker(encoder, store), encoder, rules, inspected)
        total, new = _listed(items, shop, shown)
        if new > 4 * SAMPLE:
            shown.phase("measuring", None)
            _check_space(estimate(shop, new, output), output, shown)
        _decided(shop, folder / _DECIDED, total, options.max_bad, shown)
        if not _is_published(folder / _DECIDED, store, encoder, output):
            _publish(shop, folder, output, options.shard_bytes, settings or {}, shown)
        shutil.rmtree(folder)
        summary = summarize(read_report(output))
    if not summary.ok:
        raise DataError(f"{output / REPORT}: none of {summary.total} items can be trained on ({_reasons(summary)})")
    return summary


def plan(
    items: Iterable[Item | Refusal], scratch: Path, output: Path, rules: Rules, encoder: Encoder, limits: Limits
) -> Estimate:
    """What it would take to prepare `items` in an empty `output`; a few of them are made, in the folder `scratch`."""
    store = Store(scratch / _PARTS, scratch, encoder.header)
    inspected = partial(pooled, work=partial(inspect, rules=rules), limits=limits)
    shop = Shop(scratch / _LISTING, store, Maker(encoder, store), encoder, rules, inspected)
    _, new = _listed(items, shop, Bar(quiet=True))
    near = next(path for path in (output, *output.absolute().parents) if path.exists())
    return estimate(shop, new, near)


def _listed(items: Iterable[Item | Refusal], shop: Shop, bar: Bar) -> tuple[int, int]:
    """Write the listing; how many items there are, and how many of these are not known."""
    bar.phase("listing", None)
    total = new = 0
    for listed in write_listing(shop.listing, items, shop.encoder.header):
        total += 1
        new += isinstance(listed, Listed) and listed.key not in shop.store
        bar.at(total)
    return total, new


def _check_space(found: Estimate, output: Path, bar: Bar) -> None:
    said = f"{output}: about {found.bytes / 1e9:.3g} GB will be needed, and {found.free / 1e9:.3g} GB are free"
    if found.free < _SURE * found.bytes:
        raise ResourceError(f"{said}; make room or choose another disk, and the same command goes on")
    if found.free < found.bytes:
        bar.say(f"{said}; if they do not suffice, what is done is kept")


def _decided(shop: Shop, path: Path, total: int, max_bad: float, bar: Bar) -> None:
    """Write the verdicts on all items to `path`, and see to it that all clips that are ok are in the store."""
    bar.phase("preparing", total)
    summary, lost = Summary(), set[str]()
    first: list[Fate] = []
    with path.open("wb") as file:
        for number, fates in enumerate(decide(shop, lost), 1):
            for fate in fates:
                file.write(to_line(replace(fate, shard=None, row=None)))
                summary.add(fate)
                if fate.status == "failed" and len(first) < _NAMED:
                    first.append(fate)
            bar.at(number, f"{summary.ok} ok, {summary.skipped} skipped, {summary.failed} failed")
            if number >= _EARLY:
                _check_failures(summary, first, max_bad)
    _check_failures(summary, first, max_bad)
    if lost:
        bar.phase("making again", len(lost))
        for number, _ in enumerate(remake(shop, lost), 1):
            bar.at(number)


def _check_failures(summary: Summary, first: list[Fate], max_bad: float) -> None:
    if summary.failed > max_bad * summary.total:
        named = "; ".join(f"{fate.id}: {fate.reason} ({fate.detail})" for fate in first)
        raise DataError(
            f"{summary.failed} of {summary.total} failed, more than --max-bad {100 * max_bad:g}%; repair or remove "
            f"them, or allow more, and the same command goes on. The first: {named}"
        )


def _is_published(decided: Path, store: Store, encoder: Encoder, output: Path) -> bool:
    """Whether what is published is what was decided, to the last byte, and made as it would be now."""
    if store.has_parts or not all((output / name).exists() for name in (MANIFEST, REPORT, SUMMARY, PAGE)):
        return False
    digest = hashlib.sha256()
    for fate in final_fates(decided, store):
        digest.update(to_line(fate))
    with (output / REPORT).open("rb") as file:
        same = hashlib.file_digest(file, "sha256").digest() == digest.digest()
    return same and read_manifest(output).header == encoder.header


def _publish(shop: Shop, folder: Path, output: Path, shard_bytes: int, settings: Mapping[str, Any], bar: Bar) -> None:
    def describe(ready: Path) -> None:
        summary = summarize(read_report(ready))
        with (ready / REPORT).open("rb") as file:
            seal = hashlib.file_digest(file, "sha256").hexdigest()
        (ready / SUMMARY).write_bytes(json_bytes({**summary.as_json(), "report_sha256": seal}))
        (ready / SETTINGS).write_bytes(json_bytes(settings))
        write_page(ready, summary, shop)

    bar.phase("writing shards", None)
    assemble(folder / _DECIDED, shop.store, shop.encoder.header, shard_bytes, folder, describe, bar.at)
    finish(folder, output)


def _reasons(summary: Summary) -> str:
    return ", ".join(f"{count} {code}" for code, count in summary.reasons.most_common()) or "the source is empty"


@contextmanager
def _room(output: Path) -> Iterator[None]:
    """Say what to do where the disk is full, whatever was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ResourceError(
            f"{output}: {reason(error)}; make room, and the same command goes on where it stopped"
        ) from error
