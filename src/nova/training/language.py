"""Training of the small model's text encoder: a tiny Phi that reads the captions of the small world.

It learns to say the next token, as every causal language model does, and to recall from each row the tokens
before it. The second is what makes it an encoder: the transformer that reads the rows is told no order, so a row
must hold what stands before it, or "a red 3 moves right and a blue 5 moves up" could not be told from its mirror.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from nova.data.digit_captions import vocabulary
from nova.data.moving_digits import Split, World
from nova.randomness import generator_for
from nova.training.config import Config, RunConfig, WorldConfig
from nova.training.task import Sums, Task
from nova.training.tokenizer import build_tokenizer

if TYPE_CHECKING:
    from transformers import PhiModel, PreTrainedTokenizerFast

_IGNORED = -100
_TEST_CAPTIONS = 256


class LanguageSize(Config):
    """The fields of Phi's config that a run chooses; the feed-forward layers are four times as wide."""

    width: int = Field(default=128, ge=8)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)


class LanguageRun(RunConfig):
    """A run that trains a text encoder on captions, half of the steps on short and half on long ones.

    Of the steps, `image_share` see captions of images. `recall` is how many tokens back a row must remember.
    """

    kind: Literal["language"] = "language"
    world: WorldConfig = WorldConfig()
    precision: Literal["float32", "bfloat16"] = "float32"
    model: LanguageSize = LanguageSize()
    image_share: float = Field(default=0.3, ge=0, le=1)
    recall: int = Field(default=8, ge=0)


@dataclass(frozen=True)
class TokenBatch:
    """Token ids, short rows filled up with the end token; lengths count each caption and one end token."""

    ids: Int[Tensor, "b l"]
    lengths: Int[Tensor, " b"]

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch on another device."""
        return TokenBatch(self.ids.to(device), self.lengths.to(device))


class LanguageModel(nn.Module):
    """The encoder with what only training needs: a head on the vocabulary and a map for each distance of recall."""

    def __init__(self, encoder: PhiModel, recall: int) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.head = nn.Linear(width, encoder.config.vocab_size)
        self.recalls = nn.ModuleList(nn.Linear(width, width) for _ in range(recall + 1))

    def forward(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b l width"]:
        """The rows of each caption. Filling follows it, so causal attention never sees it."""
        return self.encoder(input_ids=ids, use_cache=False).last_hidden_state

    def next_logits(self, rows: Float[Tensor, "*n width"]) -> Float[Tensor, "*n vocabulary"]:
        """Scores of the token after each row."""
        return self.head(rows)

    def recall_logits(self, rows: Float[Tensor, "*n width"], back: int) -> Float[Tensor, "*n vocabulary"]:
        """Scores of the token `back` places before each row."""
        return self.head(self.recalls[back](rows))


class LanguageObjective(nn.Module):
    """The encoder with its loss: a batch to sums over its captions."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> Sums:
        """`loss` and its parts: `next`, and `recall`, the mean over all distances."""
        rows = self.model(batch.ids)
        ahead = _next_loss(self.model, rows, batch)
        distances = range(len(self.model.recalls))
        recall = torch.stack([_recall_loss(self.model, rows, batch, back) for back in distances]).mean()
        count = len(batch.ids)
        return Sums({"loss": count * (ahead + recall), "next": count * ahead, "recall": count * recall}, count)


def world_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer that knows every word of the small world."""
    return build_tokenizer(vocabulary())


def new_language_model(config: LanguageRun) -> LanguageModel:
    """The network of the run with its first weights."""
    from transformers import PhiConfig, PhiModel

    tokenizer = world_tokenizer()
    size = PhiConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.model.width,
        intermediate_size=4 * config.model.width,
        num_hidden_layers=config.model.layers,
        num_attention_heads=config.model.heads,
        max_position_embeddings=512,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return LanguageModel(PhiModel(size), config.recall)


def language_task(config: LanguageRun, model: LanguageModel) -> Task[TokenBatch]:
    """`model` as the training loop takes it."""
    tokenizer = world_tokenizer()

    def indices(step: int, places: range) -> list[int]:
        generator = generator_for(config.seed, "samples", step)
        drawn = torch.randint(len(World()), (config.batch_size,), generator=generator)
        return drawn[places.start : places.stop].tolist()

    def batch(step: int, places: range) -> TokenBatch:
        image, long = torch.rand(2, generator=generator_for(config.seed, "kind", step)).tolist()
        chosen = indices(step, places)
        captions = [_caption(config, "train", i, image < config.image_share, long < 0.5) for i in chosen]
        return to_tokens(tokenizer, captions)

    def ids(step: int, places: range) -> list[str]:
        return [str(index) for index in indices(step, places)]

    return Task("text encoder", model, LanguageObjective(model), batch, ids)


def export_text_encoder(model: LanguageModel, config: LanguageRun, folder: Path) -> dict[str, float]:
    """Write `folder`/text_encoder and `folder`/tokenizer in the Hugging Face layout, and report their quality.

    Returns the mean loss of the next token in nats, and the share of tokens up to `recall` back that a row gives
    back rightly: for captions like those of training, and for held-out combinations.
    """
    tokenizer = world_tokenizer()
    figures: dict[str, float] = {}
    for split in ("test", "held_out"):
        captions = [_caption(config, split, i, image=False, long=bool(i % 2)) for i in range(_TEST_CAPTIONS)]
        batch = to_tokens(tokenizer, captions).to(model.head.weight.device)
        next_loss, recalled = _quality(model, batch, config.recall)
        figures |= {f"{split}_next_loss": next_loss, f"{split}_recalled": recalled}
    model.encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return figures


def to_tokens(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> TokenBatch:
    """Captions as one batch, filled up to the longest and its end token."""
    rows = [tokenizer(caption, add_special_tokens=False)["input_ids"] for caption in captions]
    lengths = torch.tensor([len(row) + 1 for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), tokenizer.eos_token_id)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.long)
    return TokenBatch(ids, lengths)


def targets(batch: TokenBatch, ahead: int) -> Int[Tensor, "b l"]:
    """For each row the id of the token `ahead` places on (back if negative), -100 where there is none.

    The end token is a target but no row: nothing is asked of the place where it stands.
    """
    place = torch.arange(batch.ids.shape[1], device=batch.ids.device)
    source = place + ahead
    shifted = batch.ids.gather(1, source.clamp(0, len(place) - 1).expand_as(batch.ids))
    lengths = batch.lengths[:, None]
    return shifted.masked_fill((place >= lengths - 1) | (source >= lengths) | (source < 0), _IGNORED)


def _caption(config: LanguageRun, split: Split, index: int, image: bool, long: bool) -> str:
    world = World(config.world.size, 1 if image else config.world.frames, config.world.seed, split)
    return world.captions(index)[int(long)]


def _next_loss(model: LanguageModel, rows: Float[Tensor, "b l width"], batch: TokenBatch) -> Float[Tensor, ""]:
    wanted = targets(batch, 1)
    asked = wanted != _IGNORED
    return F.cross_entropy(model.next_logits(rows[asked]).float(), wanted[asked])


def _recall_loss(
    model: LanguageModel, rows: Float[Tensor, "b l width"], batch: TokenBatch, back: int
) -> Float[Tensor, ""]:
    wanted = targets(batch, -back)
    asked = wanted != _IGNORED
    total = F.cross_entropy(model.recall_logits(rows[asked], back).float(), wanted[asked], reduction="sum")
    return total / asked.sum().clamp(min=1)  # captions shorter than the distance ask for nothing


@torch.no_grad()
def _quality(model: LanguageModel, batch: TokenBatch, recall: int) -> tuple[float, float]:
    rows = model(batch.ids)
    right = asked = 0
    for back in range(recall + 1):
        wanted = targets(batch, -back)
        right += int((model.recall_logits(rows, back).argmax(dim=-1) == wanted).sum())
        asked += int((wanted != _IGNORED).sum())
    return float(_next_loss(model, rows, batch)), right / asked
