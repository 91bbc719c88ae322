"""Image files <-> uint8 RGB arrays (H W 3), upright, on white, never clipped."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from nova.errors import DataError, UsageError
from nova.files import written_whole
from nova.media.files import contents, opened

FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
"""What is read, by content. EPS, PDF, PSD and the like are left out: they run programs or hide sizes."""

MAX_PIXELS = 64_000_000

_WRITTEN: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True}),
}


def read_image(path: str | Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The image in a file as (H W 3) uint8 sRGB; of several pictures in one file, the first.

    EXIF orientation is followed, transparency laid on white, an embedded colour profile converted, 16 bits scaled
    to 8. Raises DataError for a file that is no image of FORMATS, is truncated or damaged, has more than
    `max_pixels` (checked before decoding), or has values without a known range (floating point, 32 bits).
    """
    with opened(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the cap below is ours
        try:
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise DataError(
                        f"{path}: has {image.width}x{image.height} pixels, more than {max_pixels}; scale it down"
                    )
                image.verify()  # checksums, where the format has them
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                image.load()
                return _upright_rgb(image, path)
        except DataError:
            raise
        except UnidentifiedImageError as error:
            raise DataError(
                f"{path}: is not an image but {contents(file)}; give one of {', '.join(FORMATS)}"
            ) from error
        except Image.DecompressionBombError as error:
            raise DataError(f"{path}: has more than {max_pixels} pixels; scale it down") from error
        except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, RuntimeError, struct.error, ...
            reason = " ".join(str(error).split())
            raise DataError(f"{path}: is a truncated or damaged image ({reason}); get a whole copy") from error


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


def _upright_rgb(image: Image.Image, path: str | Path) -> np.ndarray:
    profile = image.info.get("icc_profile")
    upright = ImageOps.exif_transpose(image)
    if upright.mode == "F" or (upright.mode == "I" and image.format != "PPM"):
        raise DataError(f"{path}: holds {upright.mode}-mode values without a known range; save it with 8 or 16 bits")
    if upright.mode.startswith("I"):
        return np.repeat(np.rint(np.asarray(upright) * (255 / 65535)).astype(np.uint8)[..., None], 3, axis=2)
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        alpha = coloured.getchannel("A")
        white = Image.new("RGB", coloured.size, "white")
        return np.array(Image.composite(_srgb(coloured.convert("RGB"), profile), white, alpha))
    return np.array(_srgb(upright, profile))


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
