"""Decoded video frames -> upright RGB pixels (H W 3), scaled and converted by libswscale.

Bicubic with filters as wide as the reduction, chroma interpolated: colours come out within 2 of 255, and what is
scaled down some 48 dB from what Pillow's Lanczos gives.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter
from jaxtyping import UInt8

from nova.media.faults import Fault, MediaError

Colour = tuple[int, int, int]
Size = tuple[int, int]
"""Height and width."""

_QUALITY = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
_UNSPECIFIED, _BT709, _BT601 = 2, 1, 5  # colour matrices by their numbers in ITU-T H.273
_MATRICES = {0, _BT709, 4, _BT601, 6, 7, 9}
_HDR = {16: "PQ", 18: "HLG"}  # transfer curves
_HD = (720, 1280)
_PLAIN = {"yuv420p", "yuv422p", "yuv444p"}


class Rasteriser:
    """Makes pixels of one video's frames; keeps libswscale's tables from frame to frame.

    aspect: width of a stored pixel over its height.  background: what transparent frames are laid on.  name: for
    messages. What libswscale refuses is a MediaError.
    """

    def __init__(
        self, aspect: Fraction | None = None, background: Colour = (255, 255, 255), name: str = "video"
    ) -> None:
        self._name = name
        self._aspect = aspect or Fraction(1)
        self._background = background
        self._scaler, self._converter, self._small = VideoReformatter(), VideoReformatter(), VideoReformatter()

    def size(self, frame: av.VideoFrame) -> Size:
        """Height and width of `frame` when it is upright and its pixels are square."""
        height, width = frame.height, max(1, round(frame.width * self._aspect))
        return (width, height) if _turn(frame)[0] else (height, width)

    def notes(self, frame: av.VideoFrame) -> tuple[str, ...]:
        """What has to be done to `frame`, in a fixed order."""
        found = {
            "turned": _turn(frame) != (False, 1, 1),
            "pixels_made_square": self._aspect != 1,
            "alpha_on_background": has_alpha(frame),
            "wide_gamut_as_is": frame.color_primaries in (9, 11, 12),
        }
        return tuple(name for name, true in found.items() if true)

    def rgb(self, frame: av.VideoFrame, size: Size | None = None) -> UInt8[np.ndarray, "H W 3"]:
        """`frame` in RGB, of its own size or of `size`. Raises MediaError for colours that are not known or HDR."""
        transposed, down, right = _turn(frame)
        height, width = self.size(frame) if size is None else size
        stored = (width, height) if transposed else (height, width)
        _settle_colour(frame)
        alpha = has_alpha(frame)
        if frame.format.name in _PLAIN and stored != (frame.height, frame.width):
            # Planes of 8 bits are scaled nearly twice as fast by themselves as on the way to RGB.
            frame = self._shaped(self._scaler, frame, stored, "yuv444p")
        shaped = self._shaped(self._converter, frame, stored, "rgba" if alpha else "rgb24")
        image = shaped.to_ndarray()
        if alpha:
            share = image[..., 3:].astype(np.float32) / 255
            ground = np.array(self._background, np.float32)
            image = np.rint(image[..., :3] * share + ground * (1 - share)).astype(np.uint8)
        if transposed:
            image = image.transpose(1, 0, 2)
        return image[::down, ::right]

    def thumbnail(self, frame: av.VideoFrame, longest: int = 160) -> UInt8[np.ndarray, "h w 3"]:
        """`frame` as it is stored, small and roughly scaled, blue first: for looking at changes, not for training."""
        scale = min(1.0, longest / max(frame.height, frame.width))
        size = max(2, round(frame.height * scale)), max(2, round(frame.width * scale))
        return self._shaped(self._small, frame, size, "bgr24", Interpolation.AREA).to_ndarray()

    def _shaped(
        self, by: VideoReformatter, frame: av.VideoFrame, size: Size, format: str, how: Interpolation = _QUALITY
    ) -> av.VideoFrame:
        height, width = size
        try:
            return by.reformat(frame, width=width, height=height, format=format, interpolation=how, threads=1)
        except av.error.FFmpegError as error:
            found = f"{frame.format.name} of {frame.width}x{frame.height}"
            raise MediaError(f"{self._name}: pixels in {found} cannot be converted ({error.strerror})") from error


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether `frame` is transparent in places, by its format."""
    return any(component.is_alpha for component in frame.format.components)


def refuse_hdr(transfer: int, name: str) -> None:
    """Raise MediaError where a transfer curve is one for high dynamic range, which has no single SDR look."""
    if transfer in _HDR:
        message = f"{name}: is in high dynamic range ({_HDR[transfer]}); convert it to BT.709 first"
        raise MediaError(message, Fault.HDR)


def refuse_unknown_matrix(matrix: int, name: str) -> None:
    """Raise MediaError where the colour matrix is one that is not converted."""
    if matrix not in _MATRICES | {_UNSPECIFIED, 3}:
        message = f"{name}: has colour matrix {matrix} of ITU-T H.273, which is not read; convert it to BT.709 first"
        raise MediaError(message, Fault.COLOUR)


def _settle_colour(frame: av.VideoFrame) -> None:
    """Give untagged frames the matrix that players give them: BT.709 from HD on, BT.601 below."""
    if frame.colorspace in (_UNSPECIFIED, 3) and not frame.format.is_rgb:
        large = frame.height >= _HD[0] or frame.width >= _HD[1]
        frame.colorspace = _BT709 if large else _BT601
    if frame.color_range == ColorRange.UNSPECIFIED and not frame.format.is_rgb:
        full = frame.format.name.startswith(("yuvj", "gray"))
        frame.color_range = ColorRange.JPEG if full else ColorRange.MPEG


def _turn(frame: av.VideoFrame) -> tuple[bool, int, int]:
    """How stored pixels become upright: whether rows and columns change places, then the steps down and right."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix, SideData):
        return False, 1, 1
    # Row-major 3x3 of 16.16 numbers: x' = a x + c y, y' = b x + d y, with a, b in the first row and c, d in the second.
    a, b, _, c, d = (round(value / 65536) for value in np.frombuffer(bytes(matrix), np.int32)[:5])
    if (abs(a), abs(b), abs(c), abs(d)) == (0, 1, 1, 0):
        return True, b, c
    return False, d or 1, a or 1
