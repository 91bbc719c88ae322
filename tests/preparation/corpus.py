"""A folder of media with planted faults, and the truth about it: id and reason of all that must not be trained on.

Everything follows from a seed. Pictures that are good are patches of colour that no other picture looks like.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
from PIL import Image

from nova.preparation.rules import Bucket, Rules, ScoreRange
from tests.preparation.films import film

SIDE = 64
RULES = Rules(
    buckets=(Bucket(frames=1, height=SIDE, width=SIDE), Bucket(frames=5, height=SIDE, width=SIDE)),
    animations="refuse",
    min_side=48,
    max_aspect=3.0,
    max_pixels=1_000_000,
    letterbox="refuse",
    static=2.0,
    black=0.5,
    scores=(ScoreRange(name="aesthetic", least=5.0, required=False),),
    duplicates=4,
)
Fault = Callable[[Path, str, np.random.Generator], dict[str, str]]


def corpus(folder: Path, items: int, faults: int, seed: int = 0) -> dict[str, str]:
    """Write so many items, `faults` of which are bad, each kind as often as the others; reasons by id, of the bad."""
    rng = np.random.default_rng(seed)
    truth: dict[str, str] = {}
    kinds = list(FAULTS.items())
    bad = set(np.linspace(0, items - 1, faults).astype(int))
    planted = 0
    for number in range(items):
        place = folder / f"{number // 100:02d}"
        place.mkdir(parents=True, exist_ok=True)
        if number in bad:
            name, plant = kinds[planted % len(kinds)]
            planted += 1
            found = plant(place, f"{number:04d}-{name}", rng)
            truth |= {f"{place.name}/{id}": reason for id, reason in found.items()}
        elif number % 10 == 5:
            _save(place, f"{number:04d}.mp4", _film(_moving(rng)))
        else:
            suffix = ("png", "jpg", "webp")[number % 3]
            _save(place, f"{number:04d}.{suffix}", _encoded(_picture(rng), suffix))
    return truth


def _picture(rng: np.random.Generator, height: int = 80, width: int = 100) -> np.ndarray:
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def _moving(rng: np.random.Generator, frames: int = 9) -> list[np.ndarray]:
    wide = _picture(rng, 64, 160)
    return [wide[:, 8 * frame : 8 * frame + 80] for frame in range(frames)]


def _film(frames: list[np.ndarray], **options: object) -> bytes:
    return film(frames, rate=12, **options)


def _encoded(pixels: np.ndarray, suffix: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **options)
    return file.getvalue()


def _save(folder: Path, name: str, data: bytes, caption: str | bytes | None = "a patch of colours") -> None:
    (folder / name).write_bytes(data)
    if caption is not None:
        text = caption if isinstance(caption, bytes) else caption.encode()
        (folder / name).with_suffix(".txt").write_bytes(text)


def _file(
    suffix: str, reason: str, make: Callable[[np.random.Generator], bytes], caption: str | bytes | None = "x y"
) -> Fault:
    """A fault that is one file, with a caption."""

    def plant(folder: Path, name: str, rng: np.random.Generator) -> dict[str, str]:
        _save(folder, f"{name}.{suffix}", make(rng), caption)
        return {f"{name}.{suffix}": reason}

    return plant


def _cut(suffix: str) -> Callable[[np.random.Generator], bytes]:
    def make(rng: np.random.Generator) -> bytes:
        data = _encoded(_picture(rng), suffix)
        return data[: int(len(data) * rng.uniform(0.3, 0.9))]

    return make


def _flipped_png(rng: np.random.Generator) -> bytes:
    data = bytearray(_encoded(_picture(rng), "png"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


def _bomb(rng: np.random.Generator) -> bytes:
    """A PNG of a few bytes whose header promises 169 million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 13000, 13000, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def _without_pictures(rng: np.random.Generator) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        sound.rate = 8000
        container.mux([*stream.encode(sound), *stream.encode(None)])
    return file.getvalue()


def _cut_film(rng: np.random.Generator) -> bytes:
    data = _film(_moving(rng, 10))  # the index is at the end
    return data[: int(len(data) * 0.7)]


def _emptied_film(rng: np.random.Generator) -> bytes:
    data = bytearray(film(_moving(rng, 10), "matroska", rate=12))
    data[600:-600] = bytes(len(data) - 1200)
    return bytes(data)


def _flash(rng: np.random.Generator) -> bytes:
    pictures = [Image.fromarray(_picture(rng)) for _ in range(3)]
    file = io.BytesIO()
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=80)
    return file.getvalue()


def _boxed(rng: np.random.Generator) -> bytes:
    picture = _picture(rng, 120, 120) // 2 + 100
    picture[:24] = picture[-24:] = 0
    return _encoded(picture, "png")


def _scored(folder: Path, name: str, rng: np.random.Generator) -> dict[str, str]:
    _save(folder, f"{name}.png", _encoded(_picture(rng), "png"), None)
    (folder / f"{name}.json").write_text(json.dumps({"caption": "x y", "aesthetic": 3.0}))
    return {f"{name}.png": "low_score"}


def _numbered(folder: Path, name: str, rng: np.random.Generator) -> dict[str, str]:
    _save(folder, f"{name}.png", _encoded(_picture(rng), "png"), None)
    (folder / f"{name}.json").write_text('{"caption": 7}')
    return {f"{name}.png": "caption_not_text"}


def _malformed(folder: Path, name: str, rng: np.random.Generator) -> dict[str, str]:
    _save(folder, f"{name}.png", _encoded(_picture(rng), "png"), None)
    (folder / f"{name}.json").write_text('{"caption": "x y"')
    return {f"{name}.png": "bad_value"}


def _outside(folder: Path, name: str, rng: np.random.Generator) -> dict[str, str]:
    away = folder.parent.with_name(f"{folder.parent.name}-elsewhere")
    away.mkdir(exist_ok=True)
    (away / f"{name}.png").write_bytes(_encoded(_picture(rng), "png"))
    (folder / f"{name}.png").symlink_to(away / f"{name}.png")
    (folder / f"{name}.txt").write_text("x y")
    return {f"{name}.png": "outside_root"}


def _twin(folder: Path, name: str, rng: np.random.Generator) -> dict[str, str]:
    """A picture, which is good, and the same once more as a JPEG: of that only the second is bad."""
    picture = _picture(rng)
    _save(folder, f"{name}-a.png", _encoded(picture, "png"))
    _save(folder, f"{name}-b.jpg", _encoded(picture, "jpg", quality=90))
    return {f"{name}-b.jpg": "near_duplicate"}


FAULTS: dict[str, Fault] = {
    "empty": _file("png", "empty_file", lambda rng: b""),
    "page": _file("jpg", "not_media", lambda rng: b"<!DOCTYPE html><html><body>404</body></html>"),
    "pointer": _file("webp", "not_media", lambda rng: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "script": _file("mp4", "not_media", lambda rng: b"ffconcat version 1.0\nfile /etc/passwd\n"),
    "cut-jpeg": _file("jpg", "damaged", _cut("jpg")),
    "cut-png": _file("png", "damaged", _cut("png")),
    "cut-webp": _file("webp", "damaged", _cut("webp")),
    "flipped": _file("png", "damaged", _flipped_png),
    "bomb": _file("png", "too_many_pixels", _bomb),
    "floats": _file("tif", "value_range", lambda rng: _encoded(_picture(rng)[..., 0].astype(np.float32), "tif")),
    "tiny": _file("png", "low_resolution", lambda rng: _encoded(_picture(rng, 20, 24), "png")),
    "wide": _file("png", "aspect", lambda rng: _encoded(_picture(rng, 64, 400), "png")),
    "boxed": _file("png", "letterbox", _boxed),
    "animated": _file("gif", "animated", _flash),
    "sound": _file("mkv", "no_video", _without_pictures),
    "cut-film": _file("mp4", "damaged", _cut_film),
    "short-film": _file("mp4", "too_short", lambda rng: _film(_moving(rng, 3))),
    "still-film": _file("mp4", "static", lambda rng: _film([_picture(rng, 64, 80)] * 9)),
    "black-film": _file("mp4", "black", lambda rng: _film([np.zeros((64, 80, 3), np.uint8)] * 9)),
    "no-caption": _file("png", "no_caption", lambda rng: _encoded(_picture(rng), "png"), None),
    "blank": _file("png", "no_caption", lambda rng: _encoded(_picture(rng), "png"), " \n\t"),
    "cp1252": _file("png", "caption_encoding", lambda rng: _encoded(_picture(rng), "png"), b"it\x92s a patch"),
    "number": _numbered,
    "malformed": _malformed,
    "score": _scored,
    "outside": _outside,
    "twin": _twin,
}
"""What is planted, by name."""
