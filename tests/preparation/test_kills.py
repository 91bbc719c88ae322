"""A preparation that is killed at any moment goes on, and what it publishes is what one without kills publishes.

Kills follow the work's progress, not the clock: it says a word at every item, and before every file that is renamed,
replaced or deleted. At the n-th word it waits: for the signal, or to be let go on for a few random milliseconds more.
"""

import itertools
import multiprocessing
import random
import shutil
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from nova.data.latents import LatentDataset
from nova.preparation import making
from nova.preparation.items import Reason, Refusal
from nova.preparation.progress import Bar
from tests.preparation.made import prepared, published
from tests.preparation.workers import item

CONTEXT = multiprocessing.get_context("fork")
NAMES = [
    *(f"clip-{n}" for n in range(20)),
    "refused-1",
    "many-7",
    "late-1",
    "late-2",
    *(f"clip-{n}" for n in range(30, 40)),
]
ITEMS = [*map(item, NAMES), Refusal("gone", "gone.png", Reason.MISSING, "no such file")]
CHANGED = [*map(item, NAMES[:3]), item("clip-3", stamp="2"), *map(item, NAMES[5:])]
SECONDS = 300


class Words(Bar):
    """A bar that says a word at every step."""

    def __init__(self, say):
        super().__init__(quiet=True)
        self._say = say

    def at(self, done, counts=""):
        super().at(done, counts)
        self._say(b"item")


def live(folder, items, pipe, halt_at):
    """Prepare, and say so step by step; wait for an answer at the `halt_at`-th word."""
    places = itertools.count(1)

    def say(word):
        pipe.send_bytes(word)
        if next(places) == halt_at:
            pipe.recv_bytes()

    making.PART_BYTES = 100  # a part every few items
    for name in ("replace", "rename", "unlink"):
        setattr(Path, name, _told(getattr(Path, name), say))
    prepared(items, folder, shard_bytes=48, bar=Words(say))
    say(b"done")


def _told(act, say):
    def telling(self, *arguments, **others):
        say(b"file")
        return act(self, *arguments, **others)

    return telling


def attempt(folder, items, kill_at=None, delay=0.0, worker=False):
    """Let a process live, and kill it or one of its workers at a word, or some seconds after it went on from there.

    How many words it said, and whether it came to its end.
    """
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=live, args=(folder, items, theirs, kill_at))
    process.start()
    theirs.close()
    words = []
    workers = []
    try:
        while True:
            assert ours.poll(SECONDS), f"silent after {len(words)} words"
            words.append(ours.recv_bytes())
            if len(words) == kill_at:
                if delay or worker:
                    ours.send_bytes(b"go on")
                time.sleep(delay)
                workers = psutil.Process(process.pid).children()
                if worker and workers:
                    with suppress(psutil.NoSuchProcess):  # it has just ended
                        workers[0].kill()
                else:
                    process.kill()
    except (EOFError, ConnectionResetError):  # reset: it died before it could go on
        process.join()
    _, alive = psutil.wait_procs(workers, timeout=SECONDS)
    assert not alive, "workers outlive their parent"
    return len(words), words[-1:] == [b"done"]


def chain(folder, rng, kills, words):
    """Kill so many times, then let it be done; whether every kill came before the end."""
    struck = 0
    while struck < kills:
        worker = rng.random() < 0.2
        _, done = attempt(folder, ITEMS, rng.randrange(1, words), rng.random() * 0.02, worker)
        struck += 1
        if done and not worker:
            return struck
    assert attempt(folder, ITEMS)[1]
    return struck


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """What is published when nothing happens, of the items and of the changed ones, and how many words that takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    words, done = attempt(folder, ITEMS)
    assert done
    before = published(folder)
    other = tmp_path_factory.mktemp("changed")
    assert attempt(other, CHANGED)[1]
    return before, published(other), words


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_random_the_same_is_published(kills, undisturbed, tmp_path):
    expected, _, words = undisturbed
    rng = random.Random(kills)
    struck, round_ = 0, 0
    while struck < kills:
        folder = tmp_path / str(round_)
        folder.mkdir()
        struck += chain(folder, rng, min(3, kills - struck), words)
        assert published(folder) == expected
        assert not (folder / ".work").exists()
        round_ += 1


@pytest.mark.parametrize("stride", [29, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_while_an_older_publication_is_replaced_either_is_whole(stride, undisturbed, tmp_path):
    """At every file that is renamed, replaced or deleted, in the long form."""
    before, after, _ = undisturbed
    older = tmp_path / "older"
    prepared(ITEMS, older, shard_bytes=48)
    assert published(older) == before
    fingerprints = set()
    kill_at, done = 1, False
    while not done:
        folder = shutil.copytree(older, tmp_path / str(kill_at))
        _, done = attempt(folder, CHANGED, kill_at)
        data = LatentDataset(folder)
        data.verify()
        fingerprints.add(data.fingerprint)
        assert attempt(folder, CHANGED)[1]
        assert published(folder) == after
        kill_at += stride
    assert len(fingerprints) == 2
