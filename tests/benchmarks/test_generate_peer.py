"""The comparison of generation: it refuses times of unlike functions, and measures everything in one go on a GPU."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from nova import machine
from tests.benchmarks.here import SCRIPTS, Here

sys.path.insert(0, str(SCRIPTS))

import generate_peer
import gpu
from generate_result import Agreement, Result, distance
from generate_sides import Ours, Setting

TINY = Setting("tiny-image", "cpu", "float32", 1)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_peer, "Worker", Here)
    monkeypatch.setitem(machine._MATRIX, "cpu", 128)
    monkeypatch.setitem(machine._COPIED, "cpu", 1 << 20)


@pytest.fixture
def published() -> Path:
    """The folder of the published code."""
    folder = os.environ.get("NOVA_PEER")
    if folder is None:
        pytest.skip("NOVA_PEER does not name a folder of the published code")
    return Path(folder)


def test_without_a_folder_ours_is_measured_alone(capsys: pytest.CaptureFixture[str]) -> None:
    generate_peer.main(["tiny-image", "--rounds", "1", "--threads", "1", "--json"])
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert "no --peer folder given" in printed.err
    assert found["published"] is None
    assert found["agreement"] is None
    assert len(found["ours"]["rounds"]) == 1
    assert found["ours_pixels"] is None  # an absolute figure
    assert found["table"]["seconds"]["ours"]["median"] > 0


@pytest.mark.parametrize(("name", "dtype"), [("tiny", "float32"), ("tiny-image", "bfloat16")])
def test_both_sides_agree_and_take_turns(name: str, dtype: str, published: Path) -> None:
    setting = dataclasses.replace(TINY, name=name, dtype=dtype)
    *_, result = generate_peer.compare(setting, published, rounds=1, absolute=True)
    assert result.agreement is not None
    assert result.agreement.free < 1e-5
    assert result.agreement.forced < 1e-5
    assert result.agreement.half is None if dtype == "float32" else max(result.agreement.half) < 2e-2
    assert result.speed is not None
    assert result.published_decoding is not None
    assert "published" in str(result)


def test_a_folder_without_the_published_code_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="has no package 'diffnext'; name the folder of the published code"):
        generate_peer.main(["tiny-image", "--peer", str(tmp_path)])


def test_times_of_different_functions_are_refused() -> None:
    Agreement(1e-6, 1e-6, (2e-2, 2e-2)).check()
    for unlike in (
        Agreement(2e-3, 1e-6),
        Agreement(1e-6, 2e-3),
        Agreement(float("nan"), 1e-6),
        Agreement(1e-6, 1e-6, (4e-2, 2e-2)),
        Agreement(1e-6, 1e-6, (float("nan"), 2e-2)),
    ):
        with pytest.raises(ValueError, match="compute different things"):
            unlike.check()


def test_a_distance_is_relative_to_the_other() -> None:
    one = np.array([3.0, 4.0])
    assert distance(one, one) == 0
    assert distance(2 * one, one) == pytest.approx(1)
    assert distance(one, 2 * one) == pytest.approx(0.5)


def test_a_side_gives_the_same_latents_every_time() -> None:
    side = Ours(TINY)
    first = side.check()
    assert np.array_equal(first, side.check())
    assert first.shape == (1, 4, 1, 8, 8)
    side.start()
    assert side.whole() > 0
    assert np.array_equal(side.made(), first)  # this case takes as many steps as its check


def test_the_gpu_script_measures_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peer = os.environ.get("NOVA_PEER")
    assert gpu.main([str(tmp_path), "--tiny", "--seconds", "3000", *([] if peer is None else ["--peer", peer])]) == 0
    for name in gpu.TINY:
        found = json.loads((tmp_path / f"generate-{name}.json").read_text())
        assert found["case"] == name
        for row in ("seconds", "seconds with autoencoder", "seconds to the first frame", "share of the matrix product"):
            assert found["table"][row]["ours"] is not None
        assert (found["published"] is None) == (peer is None)
    assert "times the limit" in (tmp_path / "generate-gpu.md").read_text()
    assert "tiny-image" in capsys.readouterr().out


def test_what_was_measured_stays_when_a_later_part_fails_or_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Ours.whole

    def hang(side: Ours) -> float:
        signal.setitimer(signal.ITIMER_REAL, 0.1)  # the limit is reached here, however long the parts before took
        while True:
            whole(side)

    monkeypatch.setattr(Ours, "whole", hang)
    found = gpu.measure(tmp_path, TINY, None, 1, limit=600)
    assert isinstance(found, Result)
    assert found.ours is None
    assert found.ours_first_frame is not None
    assert json.loads((tmp_path / "generate-tiny-image.json").read_text())["ours_first_frame"] is not None
    assert "TimeoutError: more than 600 s" in capsys.readouterr().err
