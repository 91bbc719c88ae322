"""Buckets: the size that keeps most of a picture, scaled evenly to within half a pixel, never enlarged unasked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nova.preparation.buckets import Box, best_size, enlarged, fit, kept, lengths_of, sizes_for
from nova.preparation.rules import Autoencoder, Bucket, Rules, buckets_of, paper

SIDES = st.integers(8, 5000)
SIZES = [(480, 768), (768, 480), (608, 608), (240, 384)]


@given(SIDES, SIDES, st.sampled_from(SIZES))
def test_pictures_are_scaled_evenly_and_cut_in_the_middle(height, width, size):
    found = fit((height, width), size)
    scale = max(size[0] / height, size[1] / width)
    assert abs(found.scaled[0] - height * scale) <= 0.5
    assert abs(found.scaled[1] - width * scale) <= 0.5
    assert found.scaled[0] >= size[0]
    assert found.scaled[1] >= size[1]
    assert size[0] in (found.scaled[0], size[0])
    assert abs(2 * found.top - (found.scaled[0] - size[0])) <= 1
    assert abs(2 * found.left - (found.scaled[1] - size[1])) <= 1


@given(SIDES, SIDES, st.sampled_from(SIZES), st.data())
def test_of_a_box_nothing_but_the_box_is_shown(height, width, size, data):
    tall, wide = data.draw(st.integers(8, height)), data.draw(st.integers(8, width))
    box = Box(data.draw(st.integers(0, height - tall)), data.draw(st.integers(0, width - wide)), tall, wide)
    found = fit((height, width), size, box)
    scale = max(size[0] / tall, size[1] / wide)
    slack = 1 + scale / 2
    assert found.top >= box.top * scale - slack
    assert found.left >= box.left * scale - slack
    assert found.top + size[0] <= (box.top + box.height) * scale + slack
    assert found.left + size[1] <= (box.left + box.width) * scale + slack
    assert 0 <= found.top <= found.scaled[0] - size[0]
    assert 0 <= found.left <= found.scaled[1] - size[1]


@given(SIDES, SIDES)
def test_the_best_size_keeps_most_and_enlarges_nothing(height, width):
    found = best_size((height, width), SIZES, upscale=False)
    possible = [size for size in SIZES if not enlarged((height, width), size)]
    assert (found is None) == (not possible)
    if found:
        assert kept((height, width), found) >= max(kept((height, width), size) for size in possible) - 1e-6


def test_choices():
    assert best_size((1080, 1920), SIZES, False) == (480, 768)
    assert best_size((1920, 1080), SIZES, False) == (768, 480)
    assert best_size((300, 480), SIZES, False) == (240, 384)
    assert best_size((100, 100), SIZES, False) is None
    assert best_size((100, 100), SIZES, True) == (608, 608)
    assert best_size((1, 10_000), SIZES, False) is None


def test_images_and_videos_have_buckets_of_their_own():
    rules = Rules(buckets=(*buckets_of([(480, 768)], (65, 33)), Bucket(frames=1, height=512, width=512)))
    assert sizes_for(False, rules) == ((480, 768),)
    assert sizes_for(True, rules) == ((512, 512),)
    assert lengths_of((480, 768), False, rules) == (33, 65)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"buckets": ()}, "one bucket"),
        ({"buckets": (Bucket(frames=33, height=480, width=764),)}, "480x764.*multiples of 8"),
        ({"buckets": (Bucket(frames=32, height=480, width=768),)}, "like 33"),
        ({"fps": 12, "stride": 2}, "either fps or stride"),
        ({"fps": None}, "either fps or stride"),
        ({"min_motion": 5, "max_motion": 2}, "motion"),
        ({"fps": float("nan")}, "fps"),
        ({"frames": 3}, "frames"),
    ],
)
def test_rules_that_cannot_be_kept_are_refused(wrong, match):
    with pytest.raises(ValidationError, match=match):
        Rules(**wrong)


def test_other_autoencoders_take_other_sizes():
    odd = (Bucket(frames=32, height=36, width=36),)
    assert Rules(buckets=odd, autoencoder=Autoencoder(pixels=4, frames=1)).buckets == odd


def test_the_papers_recipe():
    rules = paper()
    assert (rules.stride, rules.fps) == (2, None)
    assert [bucket for bucket in rules.buckets if bucket.frames > 1] == [Bucket(frames=33, height=480, width=768)]
    assert [(score.name, score.least) for score in rules.scores] == [("aesthetic", 5.0)]
    assert Rules.model_validate_json(rules.model_dump_json()) == rules
