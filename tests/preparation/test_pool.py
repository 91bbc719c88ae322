"""Workers that die, hang, raise or swell cost their item, and nothing else."""

import os
import signal

import cv2
import numpy as np
import psutil
import pytest

from nova.preparation.items import Clip, Reason
from nova.preparation.pool import Limits, pooled
from tests.preparation.workers import item, work


def made(names, **limits):
    """Pieces by item, in the order in which items ended."""
    ended, open_ = {}, []
    for piece in pooled(enumerate(map(item, names)), work, Limits(**{"workers": 2, "seconds": 20, **limits})):
        assert piece.item.id == names[piece.ticket]
        if not piece.final:
            open_.append(piece.made)
        else:
            ended[piece.item.id] = [piece.made] if piece.made else open_
            open_ = []
    return ended


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers):
    names = ["late-0", "clip-1", "many-2", "refused-3", *(f"clip-{n}" for n in range(4, 40))]
    found = made(names, workers=workers)
    assert list(found) == names
    assert [one.id for one in found["many-2"]] == ["many-2", "many-2#t=1,2", "many-2#t=2,3"]
    assert found["refused-3"][0].reason is Reason.DAMAGED
    assert all(isinstance(found[name][0], Clip) for name in names if name.startswith("clip"))


@pytest.mark.parametrize(
    ("name", "reason", "detail"),
    [
        ("segfault-1", Reason.WORKER_DIED, "its worker was killed by SIGSEGV, 3 times"),
        ("hang-1", Reason.TIMEOUT, "nothing came of it for 1.5 s, 3 times"),
        ("raise-1", Reason.WORKER_DIED, "raised ValueError: a bug, 3 times"),
        ("swell-1", Reason.WORKER_DIED, "MemoryError"),
    ],
)
def test_a_poison_item_is_refused_and_the_others_are_not(name, reason, detail):
    names = ["clip-0", name, *(f"clip-{n}" for n in range(2, 12))]
    found = made(names, seconds=1.5 if name.startswith("hang") else 20, memory=1 << 30)
    assert list(found) == names
    assert found[name][0].reason is reason
    assert detail in found[name][0].detail
    assert all(isinstance(found[other][0], Clip) for other in names if other != name)


def test_workers_live_where_this_process_has_used_threads_of_opencv():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.GaussianBlur(np.zeros((2048, 2048, 3), np.uint8), (31, 31), 0)
        assert isinstance(made(["clip-0"])["clip-0"][0], Clip)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_frames_arrive_as_they_were_also_where_few_may_wait():
    names = [f"big-{n}" for n in range(8)]
    frames = 16 * 256 * 256 * 3
    found = made(names, ahead=2 * frames)
    for name in names:
        for number, one in enumerate(found[name]):
            assert one.frames.shape == (16, 256, 256, 3)
            assert np.unique(one.frames).tolist() == [number]


def children():
    """Processes of this one; other tests may have left some that serve them."""
    return set(psutil.Process().children())


def test_a_worker_killed_from_outside_costs_nothing():
    names = [f"late-{n}" for n in range(30)]
    killed, found, before = 0, [], children()
    for piece in pooled(enumerate(map(item, names)), work, Limits(workers=2)):
        if piece.final:
            found.append((piece.item.id, piece.made))
            if len(found) % 10 == 5:
                os.kill((children() - before).pop().pid, signal.SIGKILL)
                killed += 1
    assert killed == 3
    assert found == [(name, None) for name in names]


def test_workers_are_gone_when_nobody_listens_any_more():
    before = children()
    running = pooled(enumerate(map(item, ["clip-0", "hang-1"])), work, Limits(workers=2))
    next(running)
    workers = children() - before
    assert workers
    running.close()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
