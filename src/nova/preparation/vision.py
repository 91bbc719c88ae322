"""OpenCV, or the line that says how to install it."""

from __future__ import annotations

from nova.errors import UsageError

try:
    import cv2
except ImportError as missing:
    raise UsageError("preparing data needs OpenCV; install it with: pip install 'nova-video[data]'") from missing

__all__ = ["cv2"]
