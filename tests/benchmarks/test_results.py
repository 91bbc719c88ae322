"""Pages of results: seconds of a GPU only, ratios of all, whether goals were reached, and a picture of the ratios."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nova.bench.limit import Work
from nova.bench.turns import Spread, Turns
from tests.benchmarks.here import SCRIPTS

sys.path.insert(0, str(SCRIPTS))

import results
from bars import Bar, bar_chart
from generate_result import Result
from generate_sides import Setting
from workers import Memory

ON_CPU = Result(
    setting=Setting("small", "cpu", "float32", 2),
    device="x86_64",
    parameters=16_000_000,
    frames=17,
    work=Work(1e12, 1e9),
    matrix_product=1e11,
    bandwidth=1e10,
    ours=Turns(12.0, ((20.0, 21.0),)),
    published=Turns(9.0, ((80.0, 84.0),)),
    memory=(Memory(0, 10_000_000), Memory(0, 30_000_000)),
)
ON_GPU = dataclasses.replace(
    ON_CPU,
    setting=Setting("0.6B-t2v-480", "cuda", "bfloat16", 16),
    device="NVIDIA H200",
    ours_first_frame=Turns(9.0, ((0.9, 0.9),)),
)


def page(folder: Path, *found: Result) -> str:
    for result in found:
        (folder / f"{result.setting.name}.json").write_text(json.dumps(result.to_dict()))
    results.main([str(folder)])
    return (folder / "README.md").read_text()


def test_of_a_cpu_only_ratios_are_shown(tmp_path: Path) -> None:
    text = page(tmp_path, ON_CPU)
    assert "| seconds | 4 (4 to 4) |" in text
    assert "| peak memory, MB | 3 |" in text
    assert "20.5" not in text
    assert "Goal: 3 times the published code's speed: reached." in text
    assert "Goal: peak memory no higher: reached." in text


def test_of_a_gpu_everything_is_shown(tmp_path: Path) -> None:
    text = page(tmp_path, ON_CPU, ON_GPU)
    assert "bfloat16 on NVIDIA H200" in text
    assert "| seconds | 20.5 (20 to 21) | 82 (80 to 84) | 4 (4 to 4) |" in text
    for goal in ("8 times the published code's speed", "first frame within 0.7 s"):
        assert f"Goal: {goal}: missed." in text
    assert "Goal: 45% of the limit's speed: reached." in text


def test_a_ratio_within_what_a_side_differs_by_from_itself_means_nothing(tmp_path: Path) -> None:
    assert "means nothing" not in page(tmp_path, ON_CPU)
    unsteady = dataclasses.replace(ON_CPU, published=Turns(9.0, ((140.0, 24.0),)))
    assert unsteady.speed == ON_CPU.speed
    assert "this ratio means nothing" in page(tmp_path, unsteady)


def test_a_goal_that_was_not_measured_is_neither_reached_nor_missed() -> None:
    alone = dataclasses.replace(ON_GPU, published=None, memory=None, ours_first_frame=None)
    assert dict(alone.goals()) == {"45% of the limit's speed": True}


def test_the_picture_has_a_bar_as_long_as_its_figure(tmp_path: Path) -> None:
    page(tmp_path, ON_CPU, ON_GPU)
    assert Image.open(tmp_path / "ratios.png").mode == "RGB"
    pixels = bar_chart("ratios", [Bar("one", Spread(2.0, 2.0, 2.0)), Bar("other", Spread(4.0, 3.0, 5.0), goal=3.0)])
    blue = (np.abs(pixels.astype(int) - (70, 130, 180)).sum(axis=2) < 40).sum(axis=1)
    lengths = blue[blue > 0]
    assert lengths.max() / np.median(lengths[: len(lengths) // 2]) == pytest.approx(2.0, rel=0.05)


def test_other_files_are_errors(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no .json"):
        results.main([str(tmp_path)])
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(SystemExit, match=r"other.json: .*give the JSON of a comparison"):
        results.main([str(tmp_path)])
