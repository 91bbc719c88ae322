"""The small world: what its captions say is what its frames show, and its splits keep apart what they promise."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from nova.data.digit_attributes import COLOURS, DIRECTIONS, PLACES, SIZES, SPEEDS, ZONES, Attributes, held_out
from nova.data.digit_captions import PHRASINGS, caption_for, vocabulary
from nova.data.digit_drawing import draw, glyphs, ink_size, typical
from nova.data.moving_digits import Sample, World, fitting_places, scene
from nova.errors import UsageError

SPLITS = ("train", "test", "held_out")


def samples(count: int = 60, **options) -> list[Sample]:
    world = World(**options)
    return [world.sample(index) for index in range(count)]


def ink_centre(frame: np.ndarray) -> np.ndarray:
    """The (x, y) middle of the box around all that is bright."""
    bright = frame.max(axis=-1) > 127
    return np.array([(np.flatnonzero(bright.any(axis=a))[[0, -1]].sum() + 1) / 2 for a in (0, 1)])


@pytest.mark.parametrize("split", SPLITS)
def test_a_sample_depends_on_seed_split_and_index_only(split):
    one, again = World(split=split), World(split=split)
    again.sample(3)
    assert (one.sample(7).frames == again.sample(7).frames).all()
    assert one.sample(7).digits == again.sample(7).digits
    assert one.sample(7).digits != one.sample(8).digits
    assert one.sample(7).digits != World(split=split, seed=1).sample(7).digits


@pytest.mark.parametrize(("size", "frames"), [(64, 17), (128, 5), (40, 1), (64, 33)])
def test_frames_have_the_shape_asked_for(size, frames):
    for sample in samples(10, size=size, frames=frames):
        assert sample.frames.shape == (frames, size, size, 3)
        assert sample.frames.dtype == np.uint8
        assert all(len(digit.boxes) == frames for digit in sample.digits)


def test_a_size_shows_the_same_scene_as_another():
    small, large = World(size=64).sample(5), World(size=128).sample(5)
    assert small.long == large.long
    assert large.motion == pytest.approx(2 * small.motion)
    halved = large.frames.reshape(17, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    assert abs(halved - small.frames).max() <= 1


def test_about_a_third_has_two_digits_of_different_colours():
    all_samples = samples(300, frames=2)
    pairs = [sample for sample in all_samples if len(sample.digits) == 2]
    assert 0.25 < len(pairs) / len(all_samples) < 0.42
    for sample in pairs:
        a, b = sample.digits
        assert a.rgb != b.rgb
        (al, at, ar, ab), (bl, bt, br, bb) = a.boxes[0], b.boxes[0]
        assert al >= br or bl >= ar or at >= bb or bt >= ab, "they start apart"


@pytest.mark.parametrize("frames", [17, 49])
def test_digits_keep_in_view_and_travel_as_their_speed_says(frames):
    for sample in samples(200, frames=frames):
        for digit in sample.digits:
            boxes = np.array(digit.boxes)
            assert boxes[:, :2].min() >= -1.5
            assert boxes[:, 2:].max() <= 65.5
            way = np.abs(boxes[-1, :2] - boxes[0, :2]).max()
            said = digit.attributes
            assert way == pytest.approx(0 if said.direction == "still" else SPEEDS[said.speed] * 64)


def test_the_picture_agrees_with_the_truth():
    for sample in samples(100):
        if len(sample.digits) == 1:
            (digit,) = sample.digits
            for frame, (left, top, right, bottom) in zip(sample.frames, digit.boxes, strict=True):
                assert abs(ink_centre(frame) - [(left + right) / 2, (top + bottom) / 2]).max() <= 1.5
            brightest = sample.frames.reshape(-1, 3)[sample.frames.sum(axis=-1).argmax()]
            assert tuple(brightest) == digit.rgb == COLOURS[digit.attributes.colour]
            x, y = DIRECTIONS[digit.attributes.direction]
            moved = ink_centre(sample.frames[-1]) - ink_centre(sample.frames[0])
            assert tuple(np.where(abs(moved) < 3, 0, np.sign(moved))) == (x, y)


def test_motion_is_the_mean_displacement_of_the_digits():
    for sample in samples(20):
        assert sample.motion == pytest.approx(np.mean([np.hypot(*digit.velocity) for digit in sample.digits]))


def test_the_second_digit_covers_the_first():
    below = Attributes(1, "white", size="large", place="centre", direction="still")
    above = Attributes(0, "red", size="normal", place="left", direction="right", speed="fast")
    both = scene([below, above], seed=2)
    covered = both.frames[..., 1].astype(int)
    path = np.array(both.digits[1].boxes)
    cover = draw(both.digits[1].glyph, 26, path[:, 0], path[:, 1], 64)
    assert (covered[cover > 0.999] == COLOURS["red"][1]).all()
    assert (cover > 0.999).any()


@pytest.mark.parametrize("frames", [1, 2])
def test_training_never_shows_a_held_out_pair_and_the_held_out_split_only_such(frames):
    moving = frames > 1
    for split in SPLITS:
        shown = [digit.attributes for sample in samples(150, split=split, frames=frames) for digit in sample.digits]
        assert {held_out(digit, moving) for digit in shown} == {split == "held_out"}


def test_each_value_keeps_one_colour_and_one_direction_out_of_training():
    for value in range(10):
        assert sum(held_out(Attributes(value, colour), moving=False) for colour in COLOURS) == 1
        shown = next(colour for colour in COLOURS if not held_out(Attributes(value, colour)))
        kept_out = [d for d in DIRECTIONS if held_out(Attributes(value, shown, direction=d))]
        assert len(kept_out) == 1
        assert kept_out != ["still"]


def test_handwriting_of_the_test_split_is_new():
    def hands(split: str) -> set[int]:
        return {digit.glyph for sample in samples(200, split=split, frames=1) for digit in sample.digits}

    assert not hands("train") & hands("test")
    assert hands("held_out") <= {glyph for (of, _), kept in glyphs().items() if of == "train" for glyph in kept}
    assert min(len(kept) for kept in glyphs().values()) >= 8


def test_captions_bind_each_attribute_to_its_digit():
    red = Attributes(3, "red", direction="right", place="left")
    orange = Attributes(5, "orange", size="large", place="bottom right", direction="up left", speed="slow")
    assert caption_for([red]) == "a red 3 moves right"
    assert caption_for([red, orange]) == "a red 3 moves right and an orange 5 moves up and left"
    assert caption_for([replace(red, direction="still")]) == "a red 3 stays still"
    assert caption_for([red, orange], moving=False) == "a red 3 and an orange 5"
    assert caption_for([orange], phrasing=0) == (
        "a large orange 5 starts at the bottom right and moves up and left slowly"
    )


def test_captions_come_without_drawing():
    for frames in (1, 17):
        world = World(frames=frames, split="held_out")
        for index in range(5):
            sample = world.sample(index)
            assert world.captions(index) == (sample.short, sample.long)


def test_long_captions_say_every_attribute():
    for sample in samples(200):
        words = set(re.findall(r"\w+", sample.long))
        for digit in sample.digits:
            said = digit.attributes
            assert said.colour in words
            assert said.size == "normal" or said.size in words
            assert said.speed != "slow" or "slowly" in words
            assert said.speed != "fast" or words & {"fast", "quickly"}
            assert words & ({"centre", "middle", "center"} if said.place == "centre" else {said.place.split()[-1]})
            vertical, horizontal = {"up", "upwards"}, {"left", "right"}
            assert (said.direction in ("left", "right")) <= bool(words & horizontal)
            assert ("up" in said.direction) <= bool(words & vertical)


def test_image_captions_do_not_speak_of_motion():
    for sample in samples(100, frames=1):
        assert not set(re.findall(r"\w+", f"{sample.short} {sample.long}")) & {
            "moves",
            "moving",
            "still",
            "starts",
        }
        assert sample.motion == 0


def test_the_vocabulary_is_exactly_the_words_of_the_captions():
    rng, seen = np.random.default_rng(0), set()
    for _ in range(6000):
        direction, colour, size, place, speed = (
            str(rng.choice(list(table))) for table in (DIRECTIONS, COLOURS, SIZES, PLACES, SPEEDS)
        )
        digit = Attributes(int(rng.integers(10)), colour, size, place, direction, speed)
        pair, number = [digit, replace(digit, colour="red")], int(rng.integers(PHRASINGS))
        for moving in (True, False):
            seen |= set(re.findall(r"\w+", caption_for(pair, moving, number) + " " + caption_for(pair, moving)))
    assert seen == set(vocabulary())


def test_a_scene_shows_what_it_is_asked_for():
    digit = Attributes(3, "red", size="large", place="left", direction="right")
    shown = scene([digit], seed=4)
    assert shown.short == "a red 3 moves right"
    assert shown.digits[0].attributes == digit
    assert shown.digits[0].centre[0] < 0.36 * 64
    assert (scene([digit], seed=4).frames == shown.frames).all()
    assert (scene([digit], seed=5).frames != shown.frames).any()
    assert scene([digit], frames=1).short == "a red 3"


def test_every_motion_fits_from_somewhere_and_a_bad_start_is_refused():
    for direction in DIRECTIONS:
        for speed in SPEEDS:
            for size in SIZES:
                assert fitting_places(Attributes(1, "red", size, direction=direction, speed=speed))
    with pytest.raises(UsageError, match="cannot start at 'right'"):
        scene([Attributes(3, "red", place="right", direction="right", speed="fast")])
    with pytest.raises(UsageError, match="start apart"):
        scene([Attributes(0, "red", size="large"), Attributes(1, "blue", size="large")])


@pytest.mark.parametrize(
    "wrong",
    [{"size": 60}, {"size": 0}, {"frames": 0}, {"split": "tset"}, {"seed": -1}],
    ids=lambda w: next(iter(w)),
)
def test_a_wrong_world_is_refused(wrong):
    with pytest.raises(UsageError):
        World(**wrong)
    with pytest.raises(UsageError, match="did you mean 'green'"):
        Attributes(3, "grean")


def test_an_index_outside_the_world_is_refused():
    world = World()
    with pytest.raises(IndexError):
        world.sample(len(world))
    with pytest.raises(IndexError):
        world.sample(-1)


def test_drawing_shifts_by_fractions_of_a_pixel_without_losing_ink():
    glyph = glyphs()["train", 3][0]
    lefts = np.linspace(10, 12, 9)
    cover = draw(glyph, 24.0, lefts, np.full(9, 20.0), 64)
    assert np.ptp(cover.sum(axis=(1, 2))) < 1e-9
    centres = (cover.sum(axis=1) * np.arange(64)).sum(axis=1) / cover.sum(axis=(1, 2))
    assert centres - centres[0] == pytest.approx(lefts - 10, abs=0.01)
    assert ink_size(glyph, 24.0)[1] == 24.0
    assert np.allclose(cover[0, :, :-1], cover[4, :, 1:]), "a whole pixel is a pure shift"


def test_a_clip_is_drawn_in_milliseconds():
    world = World()
    world.sample(0)
    start = time.process_time()
    for index in range(40):
        world.sample(index)
    assert (time.process_time() - start) / 40 < 0.02


def test_hands_are_the_most_typical():
    few = World(hands=2)
    seen = {digit.glyph for index in range(60) for digit in few.sample(index).digits}
    assert len(seen) > 10
    assert seen <= {glyph for value in range(10) for glyph in typical("train", value)[:2]}


@pytest.mark.parametrize("frames", [1, 17])
def test_on_a_grid_digits_start_on_it_and_where_their_place_says(frames):
    on_grid = 0
    for index in range(60):
        for digit in World(frames=frames, grid=8).sample(index).digits:
            for centre, zone in zip(digit.centre, PLACES[digit.attributes.place], strict=True):
                low, high = ZONES[zone]
                assert 64 * low - 1e-9 <= centre <= 64 * high + 1e-9
                on_grid += centre % 8 == 0
    assert on_grid > 100


@pytest.mark.parametrize("field", [{"hands": 0}, {"grid": -1}])
def test_a_world_that_cannot_be_is_refused(field):
    with pytest.raises(UsageError, match=next(iter(field))):
        World(**field)
