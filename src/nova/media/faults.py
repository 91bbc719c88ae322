"""What can be wrong with a media file: the kind of fault beside the line that tells it."""

from __future__ import annotations

import enum

from nova.errors import DataError


class Fault(enum.Enum):
    """Why media cannot be used. What is not told apart further is `DAMAGED`."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    EMPTY_FILE = "empty_file"
    NOT_MEDIA = "not_media"
    DAMAGED = "damaged"
    NO_VIDEO = "no_video"
    CODEC = "codec"
    TOO_MANY_PIXELS = "too_many_pixels"
    VALUE_RANGE = "value_range"
    COLOUR = "colour"
    HDR = "hdr"
    TIMESTAMPS = "timestamps"


class MediaError(DataError):
    """Media that cannot be used, and what kind of `fault` it has."""

    def __init__(self, message: str, fault: Fault = Fault.DAMAGED) -> None:
        super().__init__(message)
        self.fault = fault
