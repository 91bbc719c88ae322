"""Files and folders appear whole, in the place of what was there, and killed writers leave nothing for long."""

import pytest

from nova.errors import ResourceError, UsageError
from nova.files import json_bytes, publish_folder, replace_durably, sealed_json, unsealed, write_durably, written_whole


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced(tmp_path):
    for text in (b"old", b"new"):
        replace_durably(tmp_path / "file", text)
        assert (tmp_path / "file").read_bytes() == text
    assert names(tmp_path) == ["file"]


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path):
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"old")

    def write():
        with written_whole(file) as draft:
            assert (draft.parent, draft.suffix) == (tmp_path, ".mp4")
            draft.write_bytes(b"half")
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write()
    assert file.read_bytes() == b"old"
    assert names(tmp_path) == ["clip.mp4"]


def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path):
    for name in (".a[1].0123abcd.json", ".a[1].settings.json", ".a.0123abcd.json"):
        (tmp_path / name).touch()
    replace_durably(tmp_path / "a[1].json", b"{}")
    assert names(tmp_path) == [".a.0123abcd.json", ".a[1].settings.json", "a[1].json"], "only its own drafts"


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(UsageError, match="is a folder"), written_whole(tmp_path):
        pass
    with pytest.raises(UsageError, match="does not exist"), written_whole(tmp_path / "no" / "file"):
        pass
    with pytest.raises(ResourceError, match="file: cannot be written"), written_whole(tmp_path / "file"):
        write_durably(tmp_path / "no" / "file", b"")
    assert names(tmp_path) == []


def test_a_folder_is_replaced_once_it_is_whole(tmp_path):
    publish_folder(tmp_path / "model", lambda path: (path / "old").write_text("old"))

    def half(path):
        (path / "new").write_text("new")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        publish_folder(tmp_path / "model", half)
    assert names(tmp_path / "model") == ["old"]
    publish_folder(tmp_path / "model", lambda path: (path / "new").write_text("new"))
    assert names(tmp_path / "model") == ["new"]


def test_equal_values_are_equal_bytes():
    assert json_bytes({"a": 1, "b": 0.1}) == json_bytes({"b": 0.1, "a": 1})


def test_a_seal_is_broken_by_every_flipped_bit_and_every_cut():
    body = {"files": {"a b": 1}, "text": "é"}
    data = sealed_json(body)
    assert unsealed(data) == body
    flipped = [data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(len(data)) for bit in range(8)]
    cut = [data[:length] for length in range(len(data))]
    for damaged in [*flipped, *cut, b"[]", b"{}"]:
        with pytest.raises(ValueError):
            unsealed(damaged)
