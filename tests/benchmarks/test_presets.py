"""The benchmark of presets: its grid, its names, and its chart."""

import dataclasses
import sys

import numpy as np

from nova.bench.turns import Spread
from nova.evaluation.digits import DigitScore, Figures
from nova.pipeline.request import Request
from nova.presets import PRESETS
from tests.benchmarks.here import SCRIPTS

sys.path.insert(0, str(SCRIPTS))

import presets


def test_the_grid_starts_with_the_defaults_and_holds_every_preset():
    first, *rest = presets.grid()
    assert Request("a", **first.options) == Request("a")
    assert [one.options for one in rest if one.curve == "presets"] == [dict(one.options) for one in PRESETS.values()]
    assert {one.curve for one in rest} > {"presets", "sets"}


def test_a_name_tells_settings_apart():
    grid = presets.grid()
    fields = {field.name for field in dataclasses.fields(Request)}
    assert all(one.options.keys() <= fields for one in grid)
    by_name = {one.name: {**presets.DEFAULTS, **one.options} for one in grid}
    assert all(by_name[one.name] == {**presets.DEFAULTS, **one.options} for one in grid)
    assert presets.Setting("", {"diffusion_order": 2}).name == "64 steps, 25 diffusion steps of order 2"


def test_quality_of_the_truth_and_a_chart_of_it():
    bench = presets.Bench("digits", 6)
    truth = bench.scored([clip.frames for clip in bench.clips])
    assert truth.score > 0.9 > 0.5 > bench.chance().score
    spread = Spread(2.0, 1.5, 2.5)
    points = [presets.Point("fast", "one", {}, 16, truth, spread, spread)]
    picture = presets.chart(points, Figures.of([DigitScore(1, 1, 1, 1, 1)]))
    assert picture.dtype == np.uint8
    assert picture.shape == (600, 1200, 3)
    assert bench.sets({"num_inference_steps": 2}) == 2
