"""Files and folders appear whole, in the place of what was there."""

import pytest

from nova.training.files import json_bytes, publish_folder, replace_durably


def test_a_file_is_replaced(tmp_path):
    for text in (b"old", b"new"):
        replace_durably(tmp_path / "file", text)
        assert (tmp_path / "file").read_bytes() == text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_once_it_is_whole(tmp_path):
    publish_folder(tmp_path / "model", lambda path: (path / "old").write_text("old"))

    def half(path):
        (path / "new").write_text("new")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        publish_folder(tmp_path / "model", half)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old"]
    publish_folder(tmp_path / "model", lambda path: (path / "new").write_text("new"))
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]


def test_equal_values_are_equal_bytes():
    assert json_bytes({"a": 1, "b": 0.1}) == json_bytes({"b": 0.1, "a": 1})
