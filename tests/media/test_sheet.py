"""A contact sheet shows each clip's first to last frame, unscaled or exactly enlarged, under its whole or cut label."""

import numpy as np
import pytest

from nova.errors import UsageError
from nova.media import contact_sheet


def shades(count: int, size: int = 16) -> np.ndarray:
    """Frames of one grey each, 10 apart."""
    return np.repeat(np.arange(count, dtype=np.uint8) * 10, size * size * 3).reshape(count, size, size, 3)


def squares(sheet: np.ndarray, side: int) -> list[int]:
    """The greys of the squares of `side` pixels along the sheet's last row of frames, from left to right."""
    line = sheet[-17, 16:, 0].astype(int)
    edges = np.flatnonzero(np.diff(line)) + 1
    runs = np.split(line, edges)
    return [int(run[0]) for run in runs if len(run) == side and run[0] < 255]


def test_frames_are_evenly_sampled_from_first_to_last():
    assert squares(contact_sheet([("", shades(17))], columns=5, enlarge=1), 16) == [0, 40, 80, 120, 160]
    assert squares(contact_sheet([("", shades(3))], columns=5, enlarge=1), 16) == [0, 10, 20]


def test_small_frames_are_doubled_pixel_by_pixel():
    frames = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), np.uint8)
    sheet = contact_sheet([("", frames)], columns=1)
    assert (sheet[-48:-16, 16:48] == frames[0].repeat(2, axis=0).repeat(2, axis=1)).all()
    large = np.zeros((1, 128, 128, 3), np.uint8)
    assert contact_sheet([("", large)], columns=1).shape[1] == 128 + 2 * 16


def test_the_paper_is_white_and_the_label_is_on_it():
    blank, labelled = (contact_sheet([(label, shades(4) + 100)], columns=4) for label in ("", "a red 3 moves right"))
    assert (blank[:16] == 255).all()
    assert (blank[:, :16] == 255).all()
    assert labelled.shape[0] > blank.shape[0]
    assert (labelled[: labelled.shape[0] - 48] < 100).any()


def test_a_long_label_is_cut_after_three_lines_and_stays_within_its_frames():
    heights = [contact_sheet([("word " * count, shades(4))], columns=4).shape[0] for count in (1, 4, 60, 600)]
    assert heights[0] < heights[1] < heights[2] == heights[3], "one line, two, three"
    sheet = contact_sheet([("x" * 500, shades(4))], columns=4)
    assert (sheet[:, -16:] == 255).all()


def test_every_clip_has_its_row_and_images_share_one():
    one = contact_sheet([("a", shades(4))], columns=4)
    two = contact_sheet([("a", shades(4)), ("b", shades(9))], columns=4)
    assert two.shape[0] > 1.5 * one.shape[0]
    images = contact_sheet([(str(index), shades(1)) for index in range(4)], columns=4)
    assert images.shape[0] == one.shape[0]
    assert (images == contact_sheet([(str(index), shades(1)) for index in range(4)], columns=4)).all()


@pytest.mark.parametrize(
    ("clips", "columns", "message"),
    [([], 4, "none"), ([("a", shades(2))], 0, "columns"), ([("a", shades(2)[0])], 4, "clip 'a'")],
)
def test_wrong_clips_are_refused(clips, columns, message):
    with pytest.raises(UsageError, match=message):
        contact_sheet(clips, columns=columns)
