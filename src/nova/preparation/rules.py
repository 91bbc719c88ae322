"""What a preparation does to every item: how clips are cut, sized and judged. Filters are off unless asked for.

`Rules()` takes one clip of 33 frames at 12 frames a second from each video, at 480×768; `paper()` is the recipe of
the NOVA paper.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Channel = Annotated[int, Field(ge=0, le=255)]
Predicted = Literal["aesthetic", "similarity"]


class _Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bucket(_Rules):
    """A shape that clips are brought to. frames: 1 for images.  height, width: pixels."""

    frames: int = Field(ge=1)
    height: int = Field(ge=8)
    width: int = Field(ge=8)


class Autoencoder(_Rules):
    """Which sizes and lengths it takes: multiples of `pixels`, and `frames` · k + 1."""

    pixels: int = Field(default=8, ge=1)
    frames: int = Field(default=4, ge=1)


class Motion(_Rules):
    """How the motion score is computed: see `nova.preparation.motion`.

    longest: pixels of the longer side of the grey copies that are compared; None: those of the clip.
    """

    method: Literal["lucas-kanade", "farneback", "dis"] = "lucas-kanade"
    longest: int | None = Field(default=384, ge=32)


class ScoreRange(_Rules):
    """Bounds of the score called `name`, both allowed. A clip without that score is left out if `required`."""

    name: str = Field(min_length=1)
    least: float | None = None
    most: float | None = None
    required: bool = True


class Captions(_Rules):
    """Bounds of each caption's characters and words; captions outside are dropped, and items left without any."""

    least_characters: int = Field(default=1, ge=0)
    most_characters: int | None = Field(default=None, ge=1)
    least_words: int = Field(default=0, ge=0)
    most_words: int | None = Field(default=None, ge=1)


class Rules(_Rules):
    """How items become clips. Numbers of seconds and frames a second are of the file's own clock.

    Attributes:
        buckets: sizes and lengths. Those of one frame are for images, the others for videos.
        autoencoder: what these have to be multiples of.
        fps: frames a second to sample videos at; None with `stride`.
        stride: every so many frames are taken, at whatever rate; None with `fps`.
        scenes: cut videos where the picture changes at once, at this threshold of PySceneDetect's content detector
            (27 is its default); None: no cuts.
        clips: the most clips from a video or, with `scenes`, from a scene; they follow each other.
        short: what is done with stretches of fewer frames than the shortest bucket has.
        upscale: whether pictures smaller than every bucket are enlarged or refused.
        background: what transparent pictures are laid on.
        animations: whether animated GIF, WebP, PNG and AVIF files are their first picture, videos, or refused.
        max_pixels: the most pixels of a picture, looked at before decoding.
        min_side, min_seconds, max_seconds, min_aspect, max_aspect: of the source; aspect is width over height.
        least_kept: the least share of a picture's area that the crop to its bucket may leave.
        static: clips are left out in which no 16th of the height by 16th of the width changes by more than this
            many of 255 levels.
        black: the largest share of black frames.
        letterbox: what is done with black bars on opposite edges.
        longest_repeat: the longest run of one source frame in a clip, which slower or uneven videos have.
        motion, min_motion, max_motion: the score and its bounds.
        scores: bounds of scores, those of the source and those of models, called `aesthetic` and `similarity`.
        predicted: scores that models will give, which are judged then.
        captions: bounds of captions.
        duplicates: the most bits of 64 in which perceptual hashes of near-duplicates differ; None: all are kept.
    """

    buckets: tuple[Bucket, ...] = (
        Bucket(frames=33, height=480, width=768),
        Bucket(frames=1, height=480, width=768),
    )
    autoencoder: Autoencoder = Autoencoder()
    fps: float | None = Field(default=12.0, gt=0, le=1000)
    stride: int | None = Field(default=None, ge=1)
    scenes: float | None = Field(default=None, gt=0)
    clips: int = Field(default=1, ge=1)
    short: Literal["refuse", "hold", "loop"] = "refuse"
    upscale: bool = False
    background: tuple[Channel, Channel, Channel] = (255, 255, 255)
    animations: Literal["first", "video", "refuse"] = "first"
    max_pixels: int = Field(default=64_000_000, ge=1)
    min_side: int | None = Field(default=None, ge=1)
    min_seconds: float | None = Field(default=None, ge=0)
    max_seconds: float | None = Field(default=None, gt=0)
    min_aspect: float | None = Field(default=None, gt=0)
    max_aspect: float | None = Field(default=None, gt=0)
    least_kept: float = Field(default=0.0, ge=0, le=1)
    static: float | None = Field(default=None, ge=0)
    black: float | None = Field(default=None, ge=0, lt=1)
    letterbox: Literal["keep", "refuse", "crop"] = "keep"
    longest_repeat: int | None = Field(default=None, ge=1)
    motion: Motion = Motion()
    min_motion: float | None = Field(default=None, ge=0)
    max_motion: float | None = Field(default=None, gt=0)
    scores: tuple[ScoreRange, ...] = ()
    predicted: tuple[Predicted, ...] = ()
    captions: Captions = Captions()
    duplicates: int | None = Field(default=None, ge=0, le=16)

    @field_validator("buckets")
    @classmethod
    def _some_and_each_once(cls, buckets: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
        if not buckets or len(set(buckets)) < len(buckets):
            raise ValueError("expected one bucket or more, each once")
        return buckets

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.fps is None) == (self.stride is None):
            raise ValueError("give either fps or stride, and None for the other")
        pixels, frames = self.autoencoder.pixels, self.autoencoder.frames
        for bucket in self.buckets:
            if bucket.height % pixels or bucket.width % pixels:
                size = f"{bucket.height}x{bucket.width}"
                raise ValueError(f"bucket {size}: the autoencoder takes multiples of {pixels} pixels")
            if (bucket.frames - 1) % frames:
                near = 1 + frames * round((bucket.frames - 1) / frames)
                raise ValueError(f"bucket of {bucket.frames} frames: the autoencoder takes {frames}k + 1, like {near}")
        for least, most, name in (
            (self.min_seconds, self.max_seconds, "seconds"),
            (self.min_aspect, self.max_aspect, "aspect"),
            (self.min_motion, self.max_motion, "motion"),
            *((score.least, score.most, f"score {score.name!r}") for score in self.scores),
        ):
            if least is not None and most is not None and least > most:
                raise ValueError(f"{name}: the least, {least:g}, is more than the most, {most:g}")
        return self


def paper() -> Rules:
    """The recipe of the NOVA paper: 33 frames at stride 2, 480×768, aesthetic score of 5 or more."""
    return Rules(fps=None, stride=2, scores=(ScoreRange(name="aesthetic", least=5.0),))


def buckets_of(sizes: Iterable[tuple[int, int]], lengths: Iterable[int]) -> tuple[Bucket, ...]:
    """Every (height, width) of `sizes` in every length of `lengths`."""
    lengths = tuple(lengths)
    return tuple(Bucket(frames=frames, height=height, width=width) for height, width in sizes for frames in lengths)
