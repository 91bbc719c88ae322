"""What is published: every item's fate, the same bytes however the work went, and only what changed made anew."""

import dataclasses
import json

import numpy as np
import pytest

from nova.data.latents import LatentDataset
from nova.data.order import BatchOrder
from nova.errors import DataError, ResourceError
from nova.lock import run_lock
from nova.preparation.items import Reason, Refusal
from tests.preparation.made import RULES, Counting, encoder, prepared, published
from tests.preparation.workers import clip, item, work

NAMES = [*(f"clip-{n}" for n in range(6)), "refused-6", "many-7", "clip-8", "late-9"]
ITEMS = [*map(item, NAMES), Refusal("gone", "gone.png", Reason.MISSING, "no such file")]


def report(output):
    """The lines of the report."""
    return [json.loads(line) for line in (output / "report.jsonl").read_text().splitlines()]


def test_every_item_has_its_fate_and_every_clip_its_latents(tmp_path):
    summary = prepared(ITEMS, tmp_path)
    lines = report(tmp_path)
    assert [line["id"] for line in lines] == [
        *NAMES[:7], "many-7", "many-7#t=1,2", "many-7#t=2,3", "clip-8", "late-9", "gone",
    ]  # fmt: skip
    data = LatentDataset(tmp_path)
    rows = {(shard.file, row): None for shard in data._manifest.shards for row in range(shard.rows)}
    assert {(line["shard"], line["row"]) for line in lines if line["status"] == "ok"} == set(rows)
    assert {data.get(0, n).id for n in range(len(data))} == {line["id"] for line in lines if line["status"] == "ok"}
    stored = json.loads((tmp_path / "summary.json").read_text())
    assert stored["by_reason"] == {"damaged": 1, "missing": 1}
    assert stored["total"] == stored["ok"] + stored["skipped"] + stored["failed"] == len(lines) == summary.total == 13
    assert sum(stored["shards"].values()) == stored["ok"] == 11
    data.verify()


def test_an_item_that_is_alone_in_its_bucket_is_trained_on_too(tmp_path):
    def of_its_own_size(one):
        side = 8 * int(one.id.split("-")[1])
        return iter([clip(one, frames=1, side=side)])

    names = [f"clip-{number}" for number in (1, 2, 2, 3, 5)]
    names[2] += "-again"
    prepared(map(item, names), tmp_path, inspect=of_its_own_size)
    data = LatentDataset(tmp_path)
    assert data.counts == (1, 2, 1, 1)
    order = BatchOrder(data.counts, batch_size=4, seed=0)
    batches = [order.batch(step) for step in range(order.batches_per_epoch)]
    assert {data.get(batch.bucket, index).id for batch in batches for index in batch.ids} == set(names)


def test_latents_are_those_of_the_clip(tmp_path):
    prepared(ITEMS[:4], tmp_path)
    made = encoder()
    data = LatentDataset(tmp_path)
    for number in range(4):
        sample = data.get(0, number)
        (clip,) = work(item(sample.id))
        assert np.array_equal(made.encode([clip])[0].moments, sample.moments.numpy())
        assert sample.captions == ("a caption",)


def test_neither_workers_nor_the_size_of_batches_nor_repetition_change_a_byte(tmp_path):
    prepared(ITEMS, tmp_path / "one", workers=1)
    prepared(ITEMS, tmp_path / "three", workers=3)
    before = published(tmp_path / "one")
    assert published(tmp_path / "three") == before
    log = Counting(tmp_path / "log")
    prepared(ITEMS, tmp_path / "one", inspect=log)
    assert log.seen() == []
    assert published(tmp_path / "one") == before


def test_rows_are_sorted_by_bucket_and_shards_are_of_one(tmp_path):
    prepared([item(f"clip-{n}") for n in range(10)], tmp_path, shard_bytes=3 * 4 * 2)
    lines = report(tmp_path)
    assert [(line["shard"][:5], line["row"]) for line in lines] == [(f"{n // 3:05d}", n % 3) for n in range(10)]


@pytest.mark.parametrize(
    "change", ["media", "caption", "added", "removed", "autoencoder", "rules", "versions", "text encoder"]
)
def test_what_changes_is_made_anew_and_nothing_else(change, tmp_path):
    """As if it had been prepared so from the beginning."""
    log = Counting(tmp_path / "log")
    items, everything = list(ITEMS), set(NAMES)
    prepared(items, tmp_path / "out", inspect=log)
    log.seen()
    made, rules = encoder(), RULES
    match change:
        case "media":
            items[3], expected = item("clip-3", stamp="2"), {"clip-3"}
        case "caption":
            items[7], expected = item("many-7", captions=("another",)), {"many-7"}
        case "added":
            items.insert(2, item("clip-77"))
            expected = {"clip-77"}
        case "removed":
            del items[2]
            expected = set()
        case "autoencoder":
            made, expected = encoder(seed=1), everything
        case "rules":
            rules = RULES.model_copy(update={"fps": 24.0})
            made, expected = encoder(rules), everything
        case "versions":
            made, expected = encoder(versions={"preparation": "2"}), everything
        case "text encoder":
            made, expected = encoder(max_tokens=7), everything
    prepared(items, tmp_path / "out", rules=rules, made_with=made, inspect=log)
    assert set(log.seen()) == expected
    prepared(items, tmp_path / "fresh", rules=rules, made_with=made)
    assert published(tmp_path / "out") == published(tmp_path / "fresh")


def test_of_near_duplicates_the_first_stays_and_another_takes_its_place(tmp_path):
    twins = [item("clip-10"), item("clip-01"), item("clip-2")]  # letters of the same sum: the same hash
    log = Counting(tmp_path / "log")
    prepared(twins, tmp_path / "out", inspect=log)
    lines = report(tmp_path / "out")
    assert [line["status"] for line in lines] == ["ok", "skipped", "ok"]
    assert lines[1]["reason"] == "near_duplicate"
    assert lines[1]["detail"] == "looks like clip-10"
    log.seen()
    prepared(twins[1:], tmp_path / "out", inspect=log)
    assert log.seen() == ["clip-01"]  # its latents were never made
    prepared(twins[1:], tmp_path / "fresh")
    assert published(tmp_path / "out") == published(tmp_path / "fresh")
    prepared(twins, tmp_path / "out")
    prepared(twins, tmp_path / "again")
    assert published(tmp_path / "out") == published(tmp_path / "again")


@pytest.mark.parametrize("damage", ["missing", "truncated", "unlisted"])
def test_a_shard_that_is_not_as_listed_is_made_again(damage, tmp_path):
    prepared(ITEMS, tmp_path, shard_bytes=4 * 4 * 2)
    before = published(tmp_path)
    shard = sorted(tmp_path.glob("*.parquet"))[1]
    if damage == "missing":
        shard.unlink()
    elif damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-20])
    else:
        (tmp_path / "99999-0123456789ab.parquet").write_bytes(b"half a shard")
    if damage == "unlisted":
        assert len(LatentDataset(tmp_path)) == 11
    lost = {line["id"].split("#")[0] for line in report(tmp_path) if line.get("shard") == shard.name}
    log = Counting(tmp_path / "log")
    prepared(ITEMS, tmp_path, shard_bytes=4 * 4 * 2, inspect=log)
    assert set(log.seen()) == (set() if damage == "unlisted" else lost)
    assert {**published(tmp_path), **before} == published(tmp_path)


def test_latents_that_are_not_finite_are_refused(tmp_path, monkeypatch):
    made = encoder()
    encode = made.models.autoencoder.encode

    bright = [item(f"clip-{n}") for n in range(6)]
    shades = {one.id: next(iter(work(one))).frames.mean() / 127.5 - 1 for one in bright}
    middle = sorted(shades.values())[3]

    def overflows(pixels):
        return encode(pixels) * (1e9 if pixels.mean() > middle - 1e-4 else 1)

    monkeypatch.setattr(made.models.autoencoder, "encode", overflows)
    expected = [name for name in shades if shades[name] >= middle]
    prepared(bright, tmp_path, made_with=made)
    lines = {line["id"]: line for line in report(tmp_path)}
    assert [name for name, line in lines.items() if line["status"] == "failed"] == expected
    assert {lines[name]["reason"] for name in expected} == {"not_finite"}


def test_too_many_failures_stop_before_anything_is_published(tmp_path):
    with pytest.raises(
        DataError, match=r"2 of 13 failed, more than --max-bad 10%.*refused-6: damaged \(found nothing\)"
    ):
        prepared(ITEMS, tmp_path, max_bad=0.1)
    assert not (tmp_path / "manifest.json").exists()
    log = Counting(tmp_path / "log")
    prepared(ITEMS, tmp_path, max_bad=0.2, inspect=log)
    assert log.seen() == []


def test_nothing_that_can_be_trained_on_is_an_error_with_a_report(tmp_path):
    with pytest.raises(DataError, match=r"none of 1 items can be trained on \(1 damaged\)"):
        prepared([item("refused-1")], tmp_path)
    assert report(tmp_path)[0]["reason"] == "damaged"


def test_one_writer(tmp_path):
    with run_lock(tmp_path), pytest.raises(ResourceError, match="another run writes here"):
        prepared(ITEMS, tmp_path)


def test_batches_of_several_clips_give_the_same_samples_up_to_rounding(tmp_path):
    prepared(ITEMS, tmp_path / "one")
    prepared(ITEMS, tmp_path / "four", made_with=dataclasses.replace(encoder(), batch=4))
    one, four = LatentDataset(tmp_path / "one"), LatentDataset(tmp_path / "four")
    for number in range(len(one)):
        assert one.get(0, number).id == four.get(0, number).id
        assert np.allclose(one.get(0, number).moments, four.get(0, number).moments, atol=1e-3)
