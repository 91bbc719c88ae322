"""Every way in which a sample can be unfit is named, by field; a fit one has no fault."""

from dataclasses import replace

import numpy as np
import pytest

from nova.data.samples import fault_of
from tests.data.made import sample


def filled(value, shape=(4, 1, 2, 2), dtype=np.float16):
    array = np.zeros(shape, dtype)
    array[2, 0, 1, 0] = value
    return array


@pytest.mark.parametrize("text", [False, True])
def test_a_fit_sample_has_no_fault(text):
    for index in range(12):
        assert fault_of(sample(index, text=text), with_text=text) is None
    assert fault_of(replace(sample(1), captions=(), label=np.int64(3)), with_text=False) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"id": ""}, "id: expected"),
        ({"id": "\ud800"}, "id: expected"),
        ({"moments": filled(np.nan)}, "moments: found nan at (2, 0, 1, 0)"),
        ({"moments": filled(-np.inf)}, "moments: found -inf"),
        ({"moments": filled(0, dtype=np.float32)}, "moments: found float32 (4, 1, 2, 2), expected float16"),
        ({"moments": filled(0)[0]}, "moments: found float16 (1, 2, 2), expected float16 with 4 axes"),
        ({"moments": filled(0)[:, :0]}, "moments: found float16 (4, 0, 2, 2)"),
        ({"moments": filled(0)[:3]}, "moments: found 3 channels, expected an even"),
        ({"captions": "one"}, "captions: found a str, expected a tuple"),
        ({"captions": (None,)}, "captions: found None"),
        ({"captions": ("\udcff",)}, "captions: found '\\udcff'"),
        ({"captions": (), "label": None}, "captions: found none and no label"),
        ({"label": -1}, "label: found -1"),
        ({"label": 2**31}, "label: found 2147483648"),
        ({"label": 1.0}, "label: found 1.0"),
        ({"motion": float("nan")}, "motion: found nan"),
        ({"motion": float("inf")}, "motion: found inf"),
        ({"fps": 0}, "fps: found 0"),
        ({"fps": float("nan")}, "fps: found nan"),
        ({"text": (np.zeros((1, 2), np.float16),)}, "text: found features, but the header names no"),
    ],
)
def test_a_fault_is_named_with_its_field(change, fault):
    assert fault_of(replace(sample(1), **change), with_text=False).startswith(fault)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (None, "text: found none, but the header names a text encoder"),
        ((np.ones((3, 8), np.float16),), "text: found features of 1 captions, expected 2"),
        ((np.ones((3, 8), np.float16), np.full((3, 8), np.nan, np.float16)), "text: found nan at (0, 0)"),
        ((np.ones((3, 8), np.float16), np.ones((8,), np.float16)), "text: found float16 (8,), expected float16 with 2"),
    ],
)
def test_features_belong_to_captions_and_to_the_header(text, fault):
    assert fault_of(replace(sample(1), text=text), with_text=True).startswith(fault)
