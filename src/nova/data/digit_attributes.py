"""What can be said of a digit in the small world: the named values, and the pairs kept out of training.

Lengths are fractions of the frame's side, so that a name means the same at every frame size; speeds are
fractions of the side travelled along each axis in sixteen frame steps, one clip of seventeen frames.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nova.errors import UsageError, nearest

VALUES = tuple(range(10))

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (255, 40, 40),
    "orange": (255, 140, 0),
    "yellow": (255, 235, 40),
    "green": (45, 210, 60),
    "cyan": (40, 225, 235),
    "blue": (55, 100, 255),
    "pink": (255, 90, 205),
    "white": (255, 255, 255),
}

SIZES = {"small": 20 / 64, "normal": 26 / 64, "large": 32 / 64}  # height of the ink

SPEEDS = {"slow": 0.125, "normal": 0.25, "fast": 0.5}

DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up left": (-1, -1),
    "up right": (1, -1),
    "down left": (-1, 1),
    "down right": (1, 1),
    "still": (0, 0),
}

PLACES: dict[str, tuple[int, int]] = {
    "top left": (-1, -1),
    "top": (0, -1),
    "top right": (1, -1),
    "left": (-1, 0),
    "centre": (0, 0),
    "right": (1, 0),
    "bottom left": (-1, 1),
    "bottom": (0, 1),
    "bottom right": (1, 1),
}

ZONES = {-1: (0.0, 0.36), 0: (0.42, 0.58), 1: (0.64, 1.0)}  # where a centre may lie to deserve a place's name


@dataclass(frozen=True)
class Attributes:
    """Everything a caption can say of one digit. A digit that stays still has speed "normal", which is not said.

    Raises UsageError for a name that is not one of the tables above.
    """

    value: int
    colour: str
    size: str = "normal"
    place: str = "centre"
    direction: str = "still"
    speed: str = "normal"

    def __post_init__(self) -> None:
        if self.value not in VALUES:
            raise UsageError(f"digit value: found {self.value!r}, expected 0 to 9")
        _check("colour", self.colour, COLOURS)
        _check("size", self.size, SIZES)
        _check("place", self.place, PLACES)
        _check("direction", self.direction, DIRECTIONS)
        _check("speed", self.speed, SPEEDS)


def held_out(digit: Attributes, moving: bool = True) -> bool:
    """Whether training never shows this pair of value and colour or, in moving clips, of value and direction.

    One colour and one direction of motion are kept out for each value, an eighth of all pairs. Standing still
    is never kept out: every value is seen still in images.
    """
    colour, direction = list(COLOURS).index(digit.colour), list(DIRECTIONS).index(digit.direction)
    return colour == (3 * digit.value + 2) % 8 or (moving and direction == (3 * digit.value + 5) % 8)


def _check(field: str, name: str, names: Collection[str]) -> None:
    if name not in names:
        raise UsageError(f"digit {field}: {name!r} is unknown{nearest(name, names)}")
