"""Names of outputs, and what is refused before anything is computed."""

import os
import re
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova.cli.outputs import check_writable, choose_suffix, plan_targets, slug
from nova.cli.request import Sample
from nova.errors import ResourceError, UsageError

NASTY = ["../../etc/passwd", "a\0b", "CON", "x" * 4096, "\u202eevil", "~", "-rf", "a\nb", "..", "/", "", "ﷺ" * 50]


@given(st.text() | st.sampled_from(NASTY))
def test_no_prompt_leaves_the_folder(tmp_path_factory, prompt):
    folder = tmp_path_factory.getbasetemp()
    (target,) = plan_targets(folder, [Sample(3, prompt)], ".mp4")
    assert target.media.parent == target.sidecar.parent == folder
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,59}-3\.mp4", target.media.name)
    assert target.sidecar.name == target.media.name.replace(".mp4", ".json")


def test_slugs_read_like_their_prompt():
    assert slug("A red 3 moves right!") == "a-red-3-moves-right"
    assert slug("Café, déjà vu") == "cafe-deja-vu"
    assert slug("熊猫") == "sample"


def test_one_file_by_name(tmp_path):
    (target,) = plan_targets(tmp_path / "x.mp4", [Sample(0, "a")], ".mp4")
    assert (target.media, target.sidecar) == (tmp_path / "x.mp4", tmp_path / "x.json")
    with pytest.raises(UsageError, match="is one file, but 2 will be made"):
        plan_targets(tmp_path / "x.mp4", [Sample(0, "a"), Sample(1, "a")], ".mp4")


def test_two_samples_never_share_a_file(tmp_path):
    with pytest.raises(UsageError, match="give them different seeds"):
        plan_targets(tmp_path, [Sample(0, "a!"), Sample(0, "a?")], ".mp4")


def test_a_folder_may_look_like_a_file(tmp_path):
    (tmp_path / "run.mp4").mkdir()
    (target,) = plan_targets(tmp_path / "run.mp4", [Sample(0, "a")], ".mp4")
    assert target.media == tmp_path / "run.mp4" / "a-0.mp4"


@pytest.mark.parametrize(
    ("name", "frames", "videos", "suffix"),
    [
        (None, None, True, ".mp4"),
        (None, 1, True, ".png"),
        (None, None, False, ".png"),
        ("folder", 5, True, ".mp4"),
        ("x.gif", None, True, ".gif"),
        ("x.PNG", None, True, ".png"),
        ("x.png", 1, False, ".png"),
    ],
)
def test_kinds_of_output(tmp_path, name, frames, videos, suffix):
    assert choose_suffix(name and tmp_path / name, frames, videos) == suffix


@pytest.mark.parametrize(
    ("name", "frames", "videos", "said"),
    [
        ("x.png", 5, True, "name a .mp4"),
        ("x.mp4", 1, True, "name a .png"),
        ("x.mp4", None, False, "the model makes images"),
        ("x.avi", None, True, ".avi files are not written"),
    ],
)
def test_outputs_that_contradict(tmp_path, name, frames, videos, said):
    with pytest.raises(UsageError, match=said):
        choose_suffix(tmp_path / name, frames, videos)


def test_existing_files_are_refused(tmp_path):
    file = tmp_path / "x.mp4"
    file.write_bytes(b"old")
    with pytest.raises(UsageError, match="exists"):
        check_writable([file], overwrite=False)
    check_writable([file], overwrite=True)
    assert file.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.mp4"]


def test_dangling_links_are_existing_files(tmp_path):
    (tmp_path / "x.mp4").symlink_to(tmp_path / "elsewhere.mp4")
    with pytest.raises(UsageError, match="exists"):
        check_writable([tmp_path / "x.mp4"], overwrite=False)


def test_folders_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot write into"):
        check_writable([tmp_path / "file" / "x.mp4"], overwrite=False)
    with pytest.raises(ResourceError, match="cannot write into"):
        check_writable([tmp_path / ("n" * 300) / "x.mp4"], overwrite=False)
    with pytest.raises(UsageError, match="is too long; use at most 255 bytes"):
        check_writable([tmp_path / ("n" * 252 + ".mp4")], overwrite=False)
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_writable([tmp_path / "folder.mp4"], overwrite=True)


def test_a_full_disk_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(ResourceError, match="0 MiB free"):
        check_writable([tmp_path / "x.mp4"], overwrite=False)
