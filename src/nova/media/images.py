"""Image files <-> uint8 RGB arrays (H W 3), upright, on white, never clipped."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageCms, ImageOps, UnidentifiedImageError

from nova.errors import NovaError, UsageError
from nova.files import written_whole
from nova.media.faults import Fault, MediaError
from nova.media.files import EMPTY, HEIC, contents, kind, opened

Colour = tuple[int, int, int]

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
"""What is read, by content. EPS, PDF, PSD and the like are left out: they run programs or hide sizes."""

MAX_PIXELS = 64_000_000

_ORIENTATION = ExifTags.Base.Orientation

_WRITTEN: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}


@dataclass(frozen=True, eq=False)
class Picture:
    """pixels: (H W 3) uint8 sRGB.  notes: what was done to it, in a fixed order.  several: more follow in the file."""

    pixels: UInt8[np.ndarray, "H W 3"]
    notes: tuple[str, ...] = ()
    several: bool = False


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The image in a file as (H W 3) uint8 sRGB; of several pictures in one file, the first.

    EXIF orientation is followed, transparency laid on white, an embedded colour profile converted, 16 bits scaled
    to 8. Raises DataError for a file that is no image of FORMATS, is truncated or damaged, has more than
    `max_pixels` (checked before decoding), or has values without a known range (floating point, 32 bits).
    """
    with opened(path) as file:
        return decode_image(file, path, max_pixels).pixels


def decode_image(
    file: BinaryIO, path: str | Path, max_pixels: int = MAX_PIXELS, background: Colour = (255, 255, 255)
) -> Picture:
    """`read_image` of an open file, called `path` in messages; tells what it did. Raises MediaError."""
    with image_file(file, path, max_pixels) as image:
        several = getattr(image, "is_animated", False)
        image.seek(0)
        image.load()
        return replace(upright_picture(image, path, background), several=several)


@contextmanager
def image_file(file: BinaryIO, path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An open file as a Pillow image, its header and checksums looked at, its pixels not yet decoded.

    Whatever goes wrong in the block that uses it becomes a MediaError of one line, by boundary, not by type:
    decoders raise OSError, SyntaxError, ValueError, RuntimeError, struct.error and others.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cap on pixels is ours, and damage either stops a decoder or costs nothing
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    message = f"{path}: has {image.width}x{image.height} pixels, more than {max_pixels}; scale it down"
                    raise MediaError(message, Fault.TOO_MANY_PIXELS)
                image.verify()  # checksums, where the format has them
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                yield image
        except NovaError:
            raise
        except UnidentifiedImageError as error:
            found = contents(file)
            message = f"{path}: is not an image but {found}; give one of {', '.join(FORMATS)}"
            raise MediaError(message, Fault.EMPTY_FILE if found == EMPTY else _unidentified(file)) from error
        except Image.DecompressionBombError as error:
            message = f"{path}: has more than {max_pixels} pixels; scale it down"
            raise MediaError(message, Fault.TOO_MANY_PIXELS) from error
        except Exception as error:
            reason = " ".join(str(error).split())
            raise MediaError(f"{path}: is a truncated or damaged image ({reason}); get a whole copy") from error


def write_image(path: str | Path, image: np.ndarray) -> None:
    """Write (H W 3) uint8 to a .png, .jpg or .webp file, whole or not at all.

    Raises UsageError for another suffix or array, or a path that cannot be a file; ResourceError where the
    system refuses.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITTEN:
        raise UsageError(f"{path}: images cannot be written as {suffix!r}; use one of {', '.join(_WRITTEN)}")
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UsageError(f"image: found {image.dtype} {image.shape}, expected uint8 (height, width, 3)")
    name, options = _WRITTEN[suffix]
    with written_whole(path) as draft:
        Image.fromarray(image).save(draft, format=name, **options)


def _unidentified(file: BinaryIO) -> Fault:
    """A file that begins as an image and cannot be told for one is cut short or damaged, or HEIC."""
    if contents(file) == HEIC:
        return Fault.CODEC
    return Fault.DAMAGED if kind(file) == "image" else Fault.NOT_MEDIA


def upright_picture(image: Image.Image, path: str | Path, background: Colour) -> Picture:
    """A loaded Pillow image upright, on `background`, in 8-bit sRGB. Raises MediaError for values of unknown range."""
    profile = image.info.get("icc_profile")
    turned = image.getexif().get(_ORIENTATION, 1) in range(2, 9)
    notes = ("turned",) if turned else ()
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or (upright.mode == "I" and image.format != "PPM"):
        message = f"{path}: holds {upright.mode}-mode values without a known range; save it with 8 or 16 bits"
        raise MediaError(message, Fault.VALUE_RANGE)
    if upright.mode.startswith("I"):
        grey = np.rint(np.asarray(upright) * (255 / 65535)).astype(np.uint8)
        return Picture(np.repeat(grey[..., None], 3, axis=2), (*notes, "scaled_from_16_bits"))
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        alpha = coloured.getchannel("A")
        ground = Image.new("RGB", coloured.size, background)
        composed = Image.composite(_srgb(coloured.convert("RGB"), profile), ground, alpha)
        return Picture(np.array(composed), (*notes, "alpha_on_background"))
    return Picture(np.array(_srgb(upright, profile)), notes)


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Converted by the embedded profile where there is one that fits, by Pillow's plain rules otherwise."""
    plain = image.convert("RGB") if image.mode in ("1", "P", "LA", "PA", "RGBX") else image
    if profile is not None:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                converted = ImageCms.profileToProfile(plain, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
                return converted if converted is not None else plain.convert("RGB")
        except (ImageCms.PyCMSError, OSError):
            pass  # a damaged profile, or one of another colour space than the image: as if there were none
    if plain.mode == "LAB":
        converted = ImageCms.profileToProfile(
            plain, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        return converted if converted is not None else plain.convert("RGB")
    return plain.convert("RGB")
