"""Image and video files <-> uint8 arrays, through Pillow and PyAV; height, width and RGB are the last axes."""

from nova.media.images import read_image, write_image
from nova.media.sheet import contact_sheet
from nova.media.video import Clip, read_video, write_gif, write_video

__all__ = ["Clip", "contact_sheet", "read_image", "read_video", "write_gif", "write_image", "write_video"]
