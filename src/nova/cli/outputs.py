"""Where outputs go: names, and every refusal that can be made before anything is computed.

A prompt never becomes part of a path; it gives only a slug of lower-case ASCII letters, digits and hyphens.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from nova.cli.request import Sample
from nova.errors import ResourceError, UsageError

VIDEO_SUFFIXES = (".mp4", ".gif")
IMAGE_SUFFIXES = (".png",)
OTHER_MEDIA = (".avi", ".mkv", ".mov", ".webm", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
DEFAULT_FOLDER = Path("outputs")
FREE_BYTES = 64 << 20
SLUG_CHARACTERS = 60


@dataclasses.dataclass(frozen=True)
class Target:
    """The files of one sample: the media file and, beside it, the JSON from which it can be made again."""

    media: Path
    sidecar: Path


def named_suffix(output: Path | None) -> str | None:
    """The media suffix if `output` names a file, None if it names a folder (or nothing)."""
    if output is None or os.path.isdir(output):
        return None
    suffix = output.suffix.lower()
    if suffix in OTHER_MEDIA:
        raise UsageError(f"--output: {suffix} files are not written; name a .mp4, .gif or .png file, or a folder")
    return suffix if suffix in VIDEO_SUFFIXES + IMAGE_SUFFIXES else None


def choose_suffix(output: Path | None, num_frames: int | None, makes_videos: bool) -> str:
    """The kind of file to write: as `--output` names it, else by the frames asked for and what the model makes.

    `makes_videos`: whether the model can make more than one frame.
    """
    suffix = named_suffix(output)
    if suffix in IMAGE_SUFFIXES and num_frames not in (None, 1):
        raise UsageError(f"--output: {output} is one image, but --frames asks for {num_frames}; name a .mp4 file")
    if suffix in VIDEO_SUFFIXES and num_frames == 1:
        raise UsageError(f"--output: {output} is a video, but --frames 1 is an image; name a .png file")
    if suffix in VIDEO_SUFFIXES and not makes_videos:
        raise UsageError(f"--output: {output} is a video, but the model makes images; name a .png file")
    if suffix is not None:
        return suffix
    return ".mp4" if makes_videos and num_frames != 1 else ".png"


def slug(text: str) -> str:
    """At most 60 lower-case ASCII letters, digits and single hyphens from `text`; "sample" if none remain."""
    ascii_text = unicodedata.normalize("NFKD", text[:1000]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:SLUG_CHARACTERS].strip("-") or "sample"


def plan_targets(output: Path | None, samples: Sequence[Sample], suffix: str) -> list[Target]:
    """One target a sample: the file that `output` names, or `<slug>-<seed>` files in the folder that it names."""
    if output is not None and named_suffix(output) is not None:
        if len(samples) > 1:
            raise UsageError(f"--output: {output} is one file, but {len(samples)} will be made; name a folder")
        media = [output]
    else:
        folder = DEFAULT_FOLDER if output is None else output
        media = [folder / f"{_stem(sample)}{suffix}" for sample in samples]
    (most_common, times) = Counter(media).most_common(1)[0]
    if times > 1:
        raise UsageError(f"--prompts: {times} samples would be {most_common.name}; give them different seeds")
    return [Target(path, sidecar_of(path)) for path in media]


def sidecar_of(media: Path) -> Path:
    """The JSON beside a media file."""
    return media.with_suffix(".json")


def _stem(sample: Sample) -> str:
    name = slug(sample.prompt) if sample.prompt is not None else f"class-{sample.class_label}"
    return f"{name}-{sample.seed}"


def check_writable(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuse existing files (unless `overwrite`), and folders that cannot be made or written or are full.

    Makes the folders, since only that shows that they can be made.
    """
    check_free(paths, overwrite)
    check_folders(paths)


def check_free(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuse paths that are folders or, unless `overwrite`, files."""
    for path in paths:
        if os.path.isdir(path):
            raise UsageError(f"{path} is a folder; name a file that can be written")
        if os.path.lexists(path) and not overwrite:
            raise UsageError(f"{path} exists; choose another --output, or give --overwrite to replace it")


def check_folders(paths: Sequence[Path]) -> None:
    """Make the folders of `paths`; refuse those that cannot be made or written or are full, and names too long."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        by_folder[path.parent].append(path)
    for folder, named in by_folder.items():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                free = shutil.disk_usage(folder).free
            longest = os.pathconf(folder, "PC_NAME_MAX")
        except OSError as error:
            raise ResourceError(
                f"--output: cannot write into {folder} ({error.strerror}); choose another folder"
            ) from error
        if free < FREE_BYTES:
            raise ResourceError(
                f"--output: {free >> 20} MiB free in {folder}, {FREE_BYTES >> 20} MiB needed; choose another folder"
            )
        for path in named:
            if len(os.fsencode(path.name)) > longest:
                raise UsageError(f"--output: the name {path.name[:40]}… is too long; use at most {longest} bytes")
