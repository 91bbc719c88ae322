"""What faster settings cost: speed against quality of the small model's clips, over a grid of options.

    python benchmarks/presets.py [--clips 96] [--rounds 3] [--output benchmarks/results/presets/curve]

Quality is `nova.evaluation.digits` on clips of one digit with fixed captions (the test world's) and seeds, the
same for every setting; beside them stand what the autoencoder alone would score on the true clips, and what clips of
other captions score. Speed is that of the latents, one clip at a time, all settings in turns there and back, as a ratio
to the published defaults with its spread; the autoencoder's time, the same for all, is told apart. The line to beat is
fewer autoregressive steps and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nova import NovaPipeline
from nova.autoencoders.adapter import Autoencoder
from nova.bench.turns import Spread, ratio, take_turns
from nova.data.moving_digits import World
from nova.evaluation.digits import Figures, score_clip
from nova.masking import set_sizes
from nova.media import write_image
from nova.media.chart import Curve, line_chart
from nova.pipeline.inputs import fit
from nova.pipeline.outputs import to_uint8
from nova.presets import PRESETS

TIMED = 3
"""Clips that a timed turn makes."""
DEFAULTS = {"num_inference_steps": 64, "num_diffusion_steps": 25}

Options = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A point of the grid: the curve that it is on, and what it asks of the pipeline beside the defaults."""

    curve: str
    options: Options

    @property
    def name(self) -> str:
        """Its options in short, such as `4 steps, 5 x 2`."""
        given = {**DEFAULTS, **self.options}
        order = " of order 2" if given.get("diffusion_order") == 2 else ""
        rest = [f"{name} {value:g}" for name, value in given.items() if name not in (*DEFAULTS, "diffusion_order")]
        return ", ".join(
            [f"{given['num_inference_steps']} steps", f"{given['num_diffusion_steps']} diffusion steps{order}", *rest]
        )


@dataclasses.dataclass(frozen=True)
class Point:
    """What a setting costs and gives."""

    curve: str
    name: str
    options: Options
    sets: int
    """Sets of tokens a frame: steps that would make no token are left out."""
    quality: Figures
    speed: Spread
    """Times as fast as the published defaults, without the autoencoder."""
    seconds: Spread
    """Of one clip's latents."""


def grid() -> list[Setting]:
    """The settings to try, in curves named for what there is less of: the defaults first, the presets last."""

    def curve(name: str, *options: Options) -> list[Setting]:
        return [Setting(name, one) for one in options]

    steps, diffusion, order, end = "num_inference_steps", "num_diffusion_steps", "diffusion_order", "guidance_end"
    return [
        *curve("sets", *({steps: count} for count in (64, 8, 6, 4, 2))),
        *curve("diffusion steps", *({diffusion: count} for count in (10, 8, 5))),
        *curve("order 2", *({diffusion: count, order: 2} for count in (8, 5))),
        *curve("both", *({steps: k, diffusion: 8} for k in (8, 6, 4, 2))),
        *curve("both, half guided", *({steps: k, diffusion: 7, end: 0.5} for k in (8, 4, 2))),
        *curve("both, order 2", *({steps: k, diffusion: 8, order: 2} for k in (6, 2))),
        *(Setting("presets", dict(preset.options)) for preset in PRESETS.values()),
    ]


class Bench:
    """The model, the clips of one digit that it is asked for, and the truth about them."""

    def __init__(self, model: str, clips: int) -> None:
        self.pipe: Any = NovaPipeline.from_pretrained(model)
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.pack()  # as nova generate does
        # In bfloat16, which matrix units make five times as fast; the ceiling is measured with it too.
        self.autoencoder = Autoencoder(copy.deepcopy(self.pipe.vae).to(torch.bfloat16))
        world = World(split="test")
        samples = (world.sample(index) for index in itertools.count())
        self.clips = list(itertools.islice((one for one in samples if len(one.digits) == 1), clips))

    def caption(self, index: int) -> str:
        """Every other one is a short one, which leaves out size, place and speed."""
        return self.clips[index].short if index % 2 else self.clips[index].long

    def quality(self, options: Options) -> Figures:
        """Of all clips under these options, those of equal motion made together."""
        motions = np.round([clip.motion for clip in self.clips], 3)
        made: dict[int, np.ndarray] = {}
        for motion in np.unique(motions):
            alike = np.flatnonzero(motions == motion).tolist()
            asked = {"motion_score": float(motion), **DEFAULTS, **options}
            latents = self.pipe(
                [self.caption(index) for index in alike],
                **asked,
                generator=torch.Generator().manual_seed(alike[0]),
                output_type="latent",
            ).frames
            made |= dict(zip(alike, self.decoded(latents), strict=True))
        return self.scored([made[index] for index in range(len(self.clips))])

    def ceiling(self) -> Figures:
        """Of the true clips, encoded and decoded."""
        shape = self.clips[0].frames.shape[1:3]
        with torch.no_grad():
            latents = [self.autoencoder.latents(self.autoencoder.encode(fit(c.frames, *shape))) for c in self.clips]
        return self.scored(self.decoded(torch.cat(latents)))

    def chance(self) -> Figures:
        """Of true clips under each other's captions."""
        return self.scored([clip.frames for clip in (*self.clips[1:], self.clips[0])])

    def decoded(self, latents: torch.Tensor) -> Sequence[np.ndarray]:
        """Frames (f h w 3) uint8 of latents (b c t h w)."""
        with torch.no_grad():
            return to_uint8(torch.cat([self.autoencoder.decode(one) for one in latents.split(8)]))

    def scored(self, made: Sequence[np.ndarray]) -> Figures:
        """Of one clip for each that was asked for."""
        pairs = zip(made, self.clips, strict=True)
        return Figures.of(score_clip(frames, [one.digits[0].attributes])[0] for frames, one in pairs)

    def seconds(self, options: Options) -> float:
        """Of one clip's latents, made alone; over a few clips."""
        start = time.perf_counter()
        for index in range(TIMED):
            self.pipe(self.caption(index), **{**DEFAULTS, **options}, generator=[index], output_type="latent")
        return (time.perf_counter() - start) / TIMED

    def sets(self, options: Options) -> int:
        """Sets of tokens in a frame."""
        rows, columns = self.pipe.transformer.shape.grid
        return len(set_sizes(rows * columns, {**DEFAULTS, **options}["num_inference_steps"]))


def measure(bench: Bench, settings: Sequence[Setting], rounds: int) -> list[Point]:
    """Quality of each setting, then all of them in turns; the first is what the others are held against."""
    quality: dict[str, Figures] = {}
    for setting in settings:
        if setting.name in quality:
            continue
        quality[setting.name] = bench.quality(setting.options)
        print(f"{setting.name:<50} {quality[setting.name]}", flush=True)
    sides = {one.name: lambda options=one.options: bench.seconds(options) for one in settings}
    turns = take_turns(sides, rounds)
    exact = turns[settings[0].name]
    return [
        Point(
            curve=one.curve,
            name=one.name,
            options=one.options,
            sets=bench.sets(one.options),
            quality=quality[one.name],
            speed=ratio(exact, turns[one.name]),
            seconds=turns[one.name].seconds,
        )
        for one in settings
    ]


def chart(points: Sequence[Point], ceiling: Figures) -> np.ndarray:
    """Score over speed: a line for each curve, and the autoencoder's ceiling."""
    colours = [
        (200, 60, 50),
        (120, 120, 120),
        (60, 150, 80),
        (50, 90, 200),
        (220, 150, 40),
        (90, 190, 200),
        (150, 80, 180),
    ]
    names = list(dict.fromkeys(point.curve for point in points))
    curves = []
    for name, colour in zip(names, itertools.cycle(colours), strict=False):
        own = sorted((point.speed.median, point.quality.score) for point in points if point.curve == name)
        curves.append(Curve(name, [x for x, _ in own], [y for _, y in own], colour))
    last = max(point.speed.median for point in points)
    curves.append(Curve("autoencoder", [0, last], [ceiling.score] * 2, (0, 0, 0), 1.0))
    return line_chart("Score over times the speed", curves, 1200, 600)


def main() -> None:
    """Measure, print a line a setting, and write JSON and chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits")
    parser.add_argument("--clips", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/presets/curve"))
    arguments = parser.parse_args()
    bench = Bench(arguments.model, arguments.clips)
    ceiling, chance = bench.ceiling(), bench.chance()
    print(f"autoencoder alone {ceiling.score:.3f}, other captions {chance.score:.3f}", flush=True)
    points = measure(bench, grid(), arguments.rounds)
    for point in sorted(points, key=lambda point: point.speed.median):
        print(f"{point.name:<50} {point.speed} x, score {point.quality.score:.3f} ± {point.quality.error:.3f}")
    result = {
        "model": arguments.model,
        "clips": arguments.clips,
        "device": "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "autoencoder_alone": dataclasses.asdict(ceiling),
        "other_captions": dataclasses.asdict(chance),
        "points": [dataclasses.asdict(point) for point in points],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    write_image(arguments.output.with_suffix(".png"), chart(points, ceiling))


if __name__ == "__main__":
    main()
