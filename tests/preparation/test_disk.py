"""A disk that is full ends the work with a line that says so, and nothing that was made is lost. Row D9."""

import multiprocessing
import resource
import shutil
import signal

import pytest

from nova.errors import NovaError, ResourceError
from nova.preparation import estimate, making
from tests.preparation.made import RULES, Counting, prepared, published
from tests.preparation.workers import item, work

ITEMS = [item(f"wide-{n}") for n in range(30)]
ALL = RULES.model_copy(update={"duplicates": None})
CONTEXT = multiprocessing.get_context("fork")


def unlimited(of):
    """A worker's files are frames in memory, not on a disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return work(of)


def limited(folder, size, pipe):
    """Prepare where no file may grow beyond `size` bytes; say what came of it."""
    making.PART_BYTES = 100
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    try:
        prepared(ITEMS, folder, ALL, inspect=unlimited)
        pipe.send(None)
    except NovaError as error:
        pipe.send(error)


@pytest.mark.parametrize("size", [0, 150, 3000, 20_000])
def test_it_stops_with_a_line_and_goes_on_when_there_is_room(size, tmp_path):
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=limited, args=(tmp_path / "out", size, theirs))
    process.start()
    assert ours.poll(300)
    error = ours.recv()
    process.join()
    assert isinstance(error, ResourceError)
    assert "\n" not in str(error)
    log = Counting(tmp_path / "log")
    prepared(ITEMS, tmp_path / "out", ALL, inspect=log)
    if size == 20_000:  # all parts fit, but not the shard that they become
        assert log.seen() == []
    prepared(ITEMS, tmp_path / "fresh", ALL)
    assert published(tmp_path / "out") == published(tmp_path / "fresh")


def test_what_will_be_needed_is_known_before_the_work(tmp_path, monkeypatch):
    many = [item(f"wide-{n}") for n in range(200)]
    told = []
    found = estimate.estimate
    monkeypatch.setattr("nova.preparation.prepare.estimate", lambda *given: told.append(found(*given)) or told[-1])
    prepared(many, tmp_path / "out", ALL)
    (estimated,) = told
    published_bytes = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.parquet"))
    assert estimated.items == estimated.clips == 200
    assert 0.8 < estimated.bytes / (2 * published_bytes) < 1.2

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=estimated.bytes // 2))
    with pytest.raises(ResourceError, match=r"GB will be needed, and .* GB are free; make room"):
        prepared(many, tmp_path / "other", ALL)
