"""Perceptual hashes: near for copies in other sizes and qualities, far for other clips."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from nova.preparation.hashing import BITS, perceptual_hash


def scene(seed, count=9):
    """A picture of soft blobs through which a window moves."""
    rng = np.random.default_rng(seed)
    whole = sum(
        cv2.GaussianBlur(rng.normal(size=(200, 330)).astype(np.float32), (0, 0), sigma) * sigma for sigma in (3, 9, 25)
    )
    whole = cv2.normalize(whole, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return [whole[20:180, 10 + 4 * k : 266 + 4 * k].copy() for k in range(count)]


def jpeg(grey, quality):
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def distance(one, other):
    return (perceptual_hash(one) ^ perceptual_hash(other)).bit_count()


COPIES = {
    "smaller": lambda grey: cv2.resize(grey, (128, 80), interpolation=cv2.INTER_AREA),
    "larger": lambda grey: cv2.resize(grey, (512, 320), interpolation=cv2.INTER_CUBIC),
    "compressed": lambda grey: jpeg(grey, 25),
    "brighter": lambda grey: np.clip(grey.astype(int) * 0.8 + 30, 0, 255).astype(np.uint8),
    "noisy": lambda grey: np.clip(grey + np.random.default_rng(1).normal(0, 4, grey.shape), 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("count", [1, 9])
def test_copies_are_near(copy, count):
    distances = [
        distance(scene(seed, count), [COPIES[copy](grey) for grey in scene(seed, count)]) for seed in range(20)
    ]
    assert max(distances) <= 8
    assert np.mean(distances) <= 3


@pytest.mark.parametrize("count", [1, 9])
def test_other_clips_are_far(count):
    hashes = [perceptual_hash(scene(seed, count)) for seed in range(40)]
    distances = [(one ^ other).bit_count() for k, one in enumerate(hashes) for other in hashes[:k]]
    assert min(distances) > 10
    assert 24 < np.mean(distances) < 40


def test_order_and_movement_count():
    clip, still = scene(0, 33), [scene(0, 33)[0]] * 33
    assert distance(clip, clip[::-1]) > 4
    assert distance(clip, still) > 4


def test_a_hash_has_64_bits_and_flat_pictures_are_alike():
    assert all(0 <= perceptual_hash(scene(seed)) < 1 << BITS for seed in range(5))
    assert perceptual_hash([np.full((50, 70), level, np.uint8) for level in (9, 9, 9, 9)]) == 0
