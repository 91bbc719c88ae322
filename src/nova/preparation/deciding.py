"""One pass over all items in order: what is known is judged anew, what is not is inspected, judged and encoded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nova.preparation.encode import Encoder
from nova.preparation.fates import Fate, fate_of_clip, fate_of_refusal, path_of
from nova.preparation.filters import judge_scores
from nova.preparation.items import Clip, Item, Reason, Refusal
from nova.preparation.listing import Listed, read_listing
from nova.preparation.making import Maker
from nova.preparation.parts import Store
from nova.preparation.pool import Piece
from nova.preparation.rules import Rules
from nova.preparation.verdicts import Verdicts

Tickets = Iterable[tuple[str, Item]]
"""Items with their keys."""
Inspect = Callable[[Tickets], Generator[Piece[str], None, None]]
"""What becomes of items, in their order: `nova.preparation.pool.pooled`, or another executor."""


@dataclass(frozen=True)
class Shop:
    """What the passes over a listing share."""

    listing: Path
    store: Store
    maker: Maker
    encoder: Encoder
    rules: Rules
    inspect: Inspect


def unknown(shop: Shop) -> Iterator[tuple[str, Item]]:
    """The items of the listing that the store does not know."""
    for listed in read_listing(shop.listing):
        if isinstance(listed, Listed) and listed.key not in shop.store:
            yield listed.key, listed.item


def decide(shop: Shop, lost: set[str]) -> Iterator[list[Fate]]:
    """The fates of every item in order, and in the end all clips that are ok are in the store.

    But for those of items that it adds to `lost`: clips that were duplicates of what is no longer there.
    """
    verdicts = Verdicts(shop.rules.duplicates)
    pieces = shop.inspect(unknown(shop))
    try:
        for listed in read_listing(shop.listing):
            if isinstance(listed, Refusal):
                yield [fate_of_refusal(listed)]
            elif listed.key in shop.store:
                fates = [verdicts.judge(fate) for fate in shop.store.find(listed.key)]
                if any(fate.status == "ok" and not fate.stored for fate in fates):
                    lost.add(listed.key)
                yield fates
            else:
                yield _made(pieces, listed, shop, verdicts)
        shop.maker.flush()
    finally:
        pieces.close()


def remake(shop: Shop, keys: Collection[str]) -> Iterator[list[Fate]]:
    """Make all clips of the items with these keys, duplicates or not; their fates."""
    wanted = [listed for listed in read_listing(shop.listing) if isinstance(listed, Listed) and listed.key in keys]
    pieces = shop.inspect((listed.key, listed.item) for listed in wanted)
    try:
        for listed in wanted:
            yield _made(pieces, listed, shop, Verdicts(None))
        shop.maker.flush()
    finally:
        pieces.close()


def _made(pieces: Iterator[Piece[str]], listed: Listed, shop: Shop, verdicts: Verdicts) -> list[Fate]:
    """Take the next item from `pieces`; its clips that are to be trained on go to the maker."""
    fates: list[Fate] = []
    begin = len(verdicts)
    for piece in pieces:
        if piece.final:
            break
        if isinstance(piece.made, Clip):
            clip = shop.encoder.scored(piece.made)
            fate = verdicts.judge(_fate(clip, listed.key, shop))
            shop.maker.take(fate, clip if fate.status == "ok" else None)
        else:
            assert piece.made is not None  # only the last piece of an item is nothing
            fate = fate_of_refusal(piece.made, listed.key)
            shop.maker.take(fate)
        fates.append(fate)
    failure = _failure(piece.made, fates, listed)
    if failure is not None:
        verdicts.forget(begin)
        fates = [failure]
    shop.maker.end(failure)
    return fates


def _fate(clip: Clip, key: str, shop: Shop) -> Fate:
    """The fate of a clip by its scores; those that models give are known only now."""
    fate = fate_of_clip(clip, key, shop.encoder.cut_captions(clip))
    verdict = judge_scores(clip.scores, shop.rules)
    return fate if verdict is None else fate.refused(*verdict)


def _failure(last: Clip | Refusal | None, fates: list[Fate], listed: Listed) -> Fate | None:
    """The fate of an item that its worker could not finish, or made nothing of."""
    if isinstance(last, Refusal):
        return fate_of_refusal(last, listed.key)
    if fates:
        return None
    nothing = Refusal(listed.item.id, path_of(listed.item), Reason.DAMAGED, "no pictures were found in it")
    return fate_of_refusal(nothing, listed.key)
