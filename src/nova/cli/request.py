"""What `nova generate` is asked for, checked before anything heavy is imported: settings and samples.

Every sample has its own seed and is made by a pipeline call of its own, so each file can be made again alone.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nova.errors import DataError, UsageError, nearest

MAX_SEED = 2**63 - 1
MAX_PROMPTS_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Settings:
    """The options of a pipeline call that all samples share, by their names in `NovaPipeline.__call__`."""

    num_frames: int | None = None
    height: int | None = None
    width: int | None = None
    num_inference_steps: int = 64
    num_diffusion_steps: int = 25
    diffusion_order: int = 1
    guidance_scale: float = 5.0
    min_guidance_scale: float | None = None
    guidance_trunc: float = 0.0
    guidance_renorm: float = 1.0
    image_guidance_scale: float = 0.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    motion_score: float = 5.0
    fps: float = 12.0
    flow_shift: float | None = None
    window_frames: int | None = None

    def __post_init__(self) -> None:
        for name, (option, low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise UsageError(f"{option}: {value} is not a number; give {low:g} to {high:g}")
            if not low <= value <= high:
                raise UsageError(f"{option}: {value} is out of range; give {low:g} to {high:g}")


_RANGES = {  # field: flag, least, most
    "num_frames": ("--frames", 1, 100_000),
    "height": ("--size", 8, 16_384),
    "width": ("--size", 8, 16_384),
    "num_inference_steps": ("--steps", 1, 1000),
    "num_diffusion_steps": ("--diffusion-steps", 1, 1000),
    "diffusion_order": ("--diffusion-order", 1, 2),
    "guidance_scale": ("--guidance", 0, 1000),
    "min_guidance_scale": ("--min-guidance", 0, 1000),
    "guidance_trunc": ("--guidance-trunc", 0, 1000),
    "guidance_renorm": ("--guidance-renorm", 0, 1),
    "image_guidance_scale": ("--image-guidance", 0, 1000),
    "guidance_start": ("--guidance-start", 0, 1),
    "guidance_end": ("--guidance-end", 0, 1),
    "motion_score": ("--motion", 0, 1000),
    "fps": ("--fps", 0.1, 1000),
    "flow_shift": ("--flow-shift", 0.001, 1000),
    "window_frames": ("--window", 1, 100_000),
}


def flag_of(option: str) -> str:
    """The flag that sets an option of the pipeline."""
    return _RANGES[option][0]


def in_flags(message: str) -> str:
    """A message of the pipeline with its argument's name replaced by the flag that sets it."""
    name, colon, rest = message.partition(":")
    flags = {field: flag for field, (flag, _, _) in _RANGES.items()} | {"class_labels": "--class-label"}
    return f"{flags.get(name, name)}{colon}{rest}"


@dataclasses.dataclass(frozen=True)
class Sample:
    """One output: what it shows and the seed of its random numbers. Either `prompt` or `class_label` is set."""

    seed: int
    prompt: str | None = None
    negative_prompt: str | None = None
    class_label: int | None = None


def parse_size(text: str) -> tuple[int, int]:
    """Height and width in pixels from `HxW`."""
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text.strip())
    if match is None:
        raise UsageError(f"--size: {text!r} is not HEIGHTxWIDTH; write for example --size 480x768")
    return int(match[1]), int(match[2])


def plan_samples(
    prompts: Sequence[str],
    prompts_file: Path | None,
    class_labels: Sequence[int],
    negative_prompt: str | None,
    seed: int,
    count: int,
) -> list[Sample]:
    """All samples in order: `count` of each prompt or label; sample i of all has seed `seed` + i.

    A line of a .jsonl file may name its own `negative_prompt` and `seed`; its copies then have `seed`, `seed` + 1, ….
    """
    if not 1 <= count <= 1_000_000:
        raise UsageError(f"--count: {count} is out of range; give 1 to 1000000")
    wanted: list[dict[str, Any]] = [{"prompt": prompt} for prompt in prompts]
    if prompts_file is not None:
        wanted += read_prompts(prompts_file)
    if wanted and class_labels:
        raise UsageError("--class-label: given together with prompts; a model takes one or the other")
    wanted += [{"class_label": label} for label in class_labels]
    if not wanted:
        raise UsageError("nothing to generate; give a PROMPT, --prompts FILE, --class-label N or --from SIDECAR.json")
    samples: list[Sample] = []
    for fields in wanted:
        first = fields.get("seed", seed + len(samples))
        shared = {"negative_prompt": negative_prompt, **fields}
        samples += [Sample(**{**shared, "seed": first + copy}) for copy in range(count)]
    for sample in samples:
        check_sample(sample)
    return samples


def check_sample(sample: Sample) -> None:
    """Refuse seeds and labels that no generator or model can take."""
    if not 0 <= sample.seed <= MAX_SEED:
        raise UsageError(f"--seed: {sample.seed} is out of range; give 0 to {MAX_SEED}")
    if sample.class_label is not None and sample.class_label < 0:
        raise UsageError(f"--class-label: {sample.class_label} is negative; labels count from 0")


def read_prompts(path: Path) -> list[dict[str, Any]]:
    """The fields of every prompt in a .txt file (one a line) or a .jsonl file (one JSON object a line)."""
    if path.suffix.lower() not in (".txt", ".jsonl"):
        raise UsageError(f"--prompts: {path} is neither .txt nor .jsonl; write one prompt a line in a .txt file")
    try:
        if path.stat().st_size > MAX_PROMPTS_BYTES:
            raise DataError(f"{path}: over {MAX_PROMPTS_BYTES >> 20} MiB of prompts; split the file")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a UTF-8 text file") from error
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(f"{path}: no prompts in it; write one a line")
    if path.suffix.lower() == ".txt":
        return [{"prompt": line} for _, line in lines]
    return list(_read_objects(path, lines))


_LINE_FIELDS = {"prompt": str, "negative_prompt": str, "seed": int, "class_label": int}


def _read_objects(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[dict[str, Any]]:
    for number, line in lines:
        where = f"{path}: line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}); write one object a line") from error
        if not isinstance(fields, dict):
            raise DataError(f'{where}: {line[:40]} is not an object; write {{"prompt": "…"}}')
        for name, value in fields.items():
            if name not in _LINE_FIELDS:
                raise DataError(f"{where}: unknown field {name!r}{nearest(name, _LINE_FIELDS)}")
            if type(value) is not _LINE_FIELDS[name]:
                raise DataError(f"{where}: {name} is {value!r}; give a value of type {_LINE_FIELDS[name].__name__}")
        if ("prompt" in fields) == ("class_label" in fields):
            raise DataError(f"{where}: give either prompt or class_label, found {sorted(fields)}")
        yield fields
