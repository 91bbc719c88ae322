"""A listing is read as it was written, and a key changes with everything that samples depend on, and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from nova.preparation.items import BytesMedia, FileMedia, Item, MemberMedia, Reason, Refusal
from nova.preparation.listing import Listed, read_listing, write_listing
from tests.preparation.made import RULES, encoder

HEADER = encoder().header
FILE = Item("a/b.png", FileMedia(Path("/data/a/b.png"), "10 1234"), ("one", "zwei é"), 0.5, 2.0, {"aesthetic": 5.5}, 3)
MEMBER = Item("x.tar/c.mp4", MemberMedia(Path("/data/x.tar"), 512, 99, "c.mp4", "7 8"), ("a clip",))
BYTES = Item("t.parquet#4", BytesMedia(b"\x00\xffpixels", "4.png", "abc"), (), label=7)
REFUSED = Refusal("gone", "gone.png", Reason.MISSING, "no such file")


def keys(tmp_path, *items, header=HEADER):
    return [one.key for one in write_listing(tmp_path / "items.jsonl", items, header)]


def test_what_is_read_is_what_was_written(tmp_path):
    everything = [FILE, REFUSED, MEMBER, BYTES, replace(FILE, id="n\udcffo\nt utf-8")]
    written = list(write_listing(tmp_path / "items.jsonl", everything, HEADER))
    read = list(read_listing(tmp_path / "items.jsonl"))
    assert read == written
    assert [one.item if isinstance(one, Listed) else one for one in read] == everything


@pytest.mark.parametrize(
    "change",
    [
        {"media": FileMedia(Path("/data/a/b.png"), "10 1235")},
        {"captions": ("one",)},
        {"captions": ("zwei é", "one")},
        {"start": None},
        {"end": 3.0},
        {"scores": {"aesthetic": 5.6}},
        {"label": 4},
        {"id": "a/c.png"},
    ],
    ids=str,
)
def test_a_key_changes_with_the_item(change, tmp_path):
    assert len(set(keys(tmp_path, FILE, replace(FILE, **change)))) == 2


@pytest.mark.parametrize("change", [{"offset": 1024}, {"size": 100}, {"name": "d.mp4"}, {"stamp": "7 9"}], ids=str)
def test_a_key_changes_with_the_place_in_an_archive(change, tmp_path):
    assert len(set(keys(tmp_path, MEMBER, replace(MEMBER, media=replace(MEMBER.media, **change))))) == 2


def test_a_key_changes_with_what_samples_are_made_with(tmp_path):
    headers = [
        HEADER,
        encoder(seed=1).header,
        encoder(RULES.model_copy(update={"static": 1.0})).header,
        encoder(versions={"preparation": "1", "av": "0"}).header,
        encoder(max_tokens=4).header,
        HEADER.model_copy(update={"text_encoder": HEADER.autoencoder}),
    ]
    assert len({keys(tmp_path, FILE, header=header)[0] for header in headers}) == len(headers)


def test_names_of_models_and_folders_change_no_key(tmp_path):
    renamed = HEADER.model_copy(update={"autoencoder": HEADER.autoencoder.model_copy(update={"id": "other"})})
    moved = replace(FILE, media=FileMedia(Path("/elsewhere/a/b.png"), "10 1234"))
    assert keys(tmp_path, FILE) == keys(tmp_path, moved, header=renamed)
