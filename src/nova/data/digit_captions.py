"""The captions of the small world: a grammar small enough to list, with a few natural phrasings.

A short caption says value, colour and direction ("a red 3 moves right"); a long one says everything ("a large
red 3 starts at the left and moves right slowly on a black background"). Normal size and normal speed have no
word. Captions of images leave the motion out ("a red 3", "a large red 3 at the left").
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from nova.data.digit_attributes import COLOURS, PLACES, VALUES, Attributes

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ENDINGS = ("", " on a black background", " on black")
_JOINTS = (" and ", " while ")

_DIRECTIONS = {
    "left": ("left", "to the left"),
    "right": ("right", "to the right"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
    "up left": ("up and left", "diagonally up and to the left"),
    "up right": ("up and right", "diagonally up and to the right"),
    "down left": ("down and left", "diagonally down and to the left"),
    "down right": ("down and right", "diagonally down and to the right"),
}
_PLACES: dict[str, tuple[str, ...]] = {
    **{place: (f"at the {place}", f"on the {place} side") for place in ("left", "right")},
    **{place: (f"at the {place}", f"near the {place}") for place in ("top", "bottom")},
    **{place: (f"at the {place}", f"in the {place} corner") for place in PLACES if " " in place},
    "centre": ("in the centre", "in the middle", "in the center"),
}
_SIZES = {"small": "small", "normal": "", "large": "large"}
_SPEEDS = {"slow": ("slowly",), "normal": ("",), "fast": ("fast", "quickly")}

_MOVING = (
    "{noun} starts {place} and moves {direction} {speed}",
    "{noun} {place} moves {speed} {direction}",
    "{noun} moves {direction} {speed} starting {place}",
    "starting {place}, {noun} moves {speed} {direction}",
    "{noun} moving {speed} {direction} from its start {place}",
)
_STILL = (
    "{noun} stays still {place}",
    "{noun} {place} stays still",
    "{noun} stays {place} without moving",
    "{place} {noun} stays still",
    "{noun} standing still {place}",
)
_IMAGE = (
    "{noun} {place}",
    "{place}, {noun}",
    "{noun} is {place}",
    "{place} there is {noun}",
    "a picture of {noun} {place}",
)
_NOUNS = ("{size} {colour} {value}", "{size} {colour} digit {value}", "{size} {colour} {number}")

_RADICES = (len(_ENDINGS), len(_JOINTS), len(_MOVING), len(_NOUNS), 2, 6, 2)  # the last three: word variants
PHRASINGS = math.prod(_RADICES)


def caption_for(digits: Sequence[Attributes], moving: bool = True, phrasing: int | None = None) -> str:
    """The caption of a clip (`moving`) or an image of these digits: the short one, or long one number `phrasing`.

    A pure function. `phrasing` is an integer below PHRASINGS; together they reach every wording of the grammar.
    """
    if phrasing is None:
        return " and ".join(_short(digit, moving) for digit in digits)
    choices = []
    for radix in _RADICES:
        phrasing, choice = divmod(phrasing, radix)
        choices.append(choice)
    ending, joint, *wording = choices
    joiner = _JOINTS[joint] if moving else " and "
    return joiner.join(_long(digit, moving, *wording) for digit in digits) + _ENDINGS[ending]


def vocabulary() -> tuple[str, ...]:
    """Every word that a caption of this world can hold, sorted, without punctuation."""
    phrases = [
        *_MOVING,
        *_STILL,
        *_IMAGE,
        *_ENDINGS,
        *_JOINTS,
        *_NUMBERS,
        *COLOURS,
        *_SIZES.values(),
        "a an digit",
    ]
    phrases += [str(value) for value in VALUES]
    for table in (_DIRECTIONS, _PLACES, _SPEEDS):
        phrases += [phrase for variants in table.values() for phrase in variants]
    return tuple(sorted(set(re.findall(r"[a-z0-9]+", re.sub(r"{\w+}", "", " ".join(phrases))))))


def _short(digit: Attributes, moving: bool) -> str:
    noun = _with_article(f"{digit.colour} {digit.value}")
    if not moving:
        return noun
    return f"{noun} stays still" if digit.direction == "still" else f"{noun} moves {_DIRECTIONS[digit.direction][0]}"


def _long(digit: Attributes, moving: bool, pattern: int, noun: int, direction: int, place: int, speed: int) -> str:
    still = digit.direction == "still"
    template = (_STILL if still else _MOVING)[pattern] if moving else _IMAGE[pattern]
    named = _NOUNS[noun].format(
        size=_SIZES[digit.size], colour=digit.colour, value=digit.value, number=_NUMBERS[digit.value]
    )
    text = template.format(
        noun=_with_article(named.strip()),
        place=_pick(_PLACES[digit.place], place),
        direction="" if still else _pick(_DIRECTIONS[digit.direction], direction),
        speed=_pick(_SPEEDS[digit.speed], speed),
    )
    return " ".join(text.split())


def _pick(variants: tuple[str, ...], index: int) -> str:
    return variants[index % len(variants)]


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
