"""A part counts when it is whole: whatever a kill or a bad disk left of one is made again. Row D2."""

import shutil

import pytest

from nova.preparation.fates import fate_of_clip
from nova.preparation.parts import Store
from tests.preparation.made import encoder
from tests.preparation.workers import clip, item

KEYS = [f"{number:032x}" for number in range(3)]


def filled(folder):
    """A store of one part with three items, and its samples."""
    made = encoder()
    store = Store(folder / "parts", folder, made.header)
    clips = [clip(item(f"clip-{number}")) for number in range(3)]
    samples = {one.id: sample for one, sample in zip(clips, made.encode(clips), strict=True)}
    store.add([[fate_of_clip(one, key)] for one, key in zip(clips, KEYS, strict=True)], samples)
    return made.header, samples


def test_what_is_found_is_what_was_added(tmp_path):
    header, samples = filled(tmp_path)
    store = Store(tmp_path / "parts", tmp_path, header)
    for key, (id, sample) in zip(KEYS, samples.items(), strict=True):
        (fate,) = store.find(key)
        assert fate.id == id
        assert store.sample(*fate.place).moments.tobytes() == sample.moments.tobytes()
    assert "f" * 32 not in store


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_part_that_is_cut_anywhere_or_missing_is_forgotten(suffix, tmp_path):
    header, _ = filled(tmp_path / "whole")
    (name,) = [path.name for path in (tmp_path / "whole" / "parts").glob(f"*{suffix}")]
    size = (tmp_path / "whole" / "parts" / name).stat().st_size
    for length in [None, *range(0, size, max(1, size // 40)), size - 1]:
        folder = tmp_path / f"{length}"
        shutil.copytree(tmp_path / "whole" / "parts", folder / "parts")
        path = folder / "parts" / name
        if length is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:length])
        store = Store(folder / "parts", folder, header)
        known = [key for key in KEYS if key in store]
        assert known == []
        assert not store.has_parts


def test_files_of_nobody_are_deleted(tmp_path):
    header, _ = filled(tmp_path)
    whole = {path.name for path in (tmp_path / "parts").iterdir()}
    for name in ("0123456789abcdef.parquet", ".0123456789abcdef.12345678.parquet", "odd.txt"):
        (tmp_path / "parts" / name).write_bytes(b"half")
    Store(tmp_path / "parts", tmp_path, header)
    assert {path.name for path in (tmp_path / "parts").iterdir()} == whole


def test_a_draft_of_fates_is_no_part_even_if_it_is_whole(tmp_path):
    header, _ = filled(tmp_path)
    (fates,) = (tmp_path / "parts").glob("*.jsonl")
    fates.rename(fates.with_name(f".{fates.stem}.0123abcd.jsonl"))
    store = Store(tmp_path / "parts", tmp_path, header)
    assert [key for key in KEYS if key in store] == []
    assert list((tmp_path / "parts").iterdir()) == []


def test_of_two_parts_the_one_with_more_latents_counts(tmp_path):
    header, samples = filled(tmp_path)
    store = Store(tmp_path / "parts", tmp_path, header)
    without = [fate_of_clip(clip(item("clip-0")), KEYS[0])]
    store.add([without, [fate_of_clip(clip(item("clip-9")), "9" * 32)]], {})
    assert store.find(KEYS[0])[0].stored
    assert not store.find("9" * 32)[0].stored
    store.add([[fate_of_clip(clip(item("clip-9")), "9" * 32)]], {"clip-9": samples["clip-0"]})
    assert store.find("9" * 32)[0].stored
