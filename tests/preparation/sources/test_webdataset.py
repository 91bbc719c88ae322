"""Archives: samples are read in place, and an archive that means harm or is damaged is refused with the reason."""

import io
import os
import random
import struct
import tarfile

import pytest

from nova.preparation.items import Item, Reason
from nova.preparation.sources.refused import RefusedError
from nova.preparation.sources.tar_headers import members
from tests.preparation.sources.made import fates, listed, tar, write

FORMS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PAIR = (("0.jpg", "JPEG"), ("0.txt", "a caption"))


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_members_lie_where_it_says(tmp_path, form):
    long = "folder/" * 12 + "n" * 60 + ".jpg"
    contents = {"0.jpg": b"JPEG", long: b"x" * 1000, "é.mp4": b"", "./3.jpg": b"y" * 512}
    path = tar(tmp_path / "s.tar", *contents.items(), form=form)
    with path.open("rb") as file:
        found = list(members(file))
        assert [member.name for member in found] == list(contents)
        for member in found:
            file.seek(member.offset)
            assert file.read(member.size) == contents[member.name]


def test_members_of_one_name_are_a_sample(tmp_path):
    path = tar(
        tmp_path / "s.tar",
        *PAIR,
        ("0.json", '{"caption": "a caption", "aesthetic": 6}'),
        ("sub/0.mp4", "MP4"),
        ("sub/0.short.txt", "short"),
        ("sub/0.long.txt", "a long one"),
        ("1.jpg", "x"),
        ("1.cls", "3"),
    )
    first, second, third = listed(path)
    assert (first.id, first.captions, first.scores) == ("s.tar/0.jpg", ("a caption",), {"aesthetic": 6.0})
    assert (second.id, set(second.captions)) == ("s.tar/sub/0.mp4", {"short", "a long one"})
    assert (third.captions, third.label) == ((), 3)
    media = first.media
    with open(media.archive, "rb") as file:
        file.seek(media.offset)
        assert file.read(media.size) == b"JPEG"


def test_what_is_no_sample_is_ignored_and_what_is_ambiguous_refused(tmp_path):
    path = tar(
        tmp_path / "s.tar",
        ("._0.jpg", "x"),
        ("0.npy", "x"),
        ("0.txt", "no media"),
        ("1.jpg", "x"),
        ("1.png", "x"),
        ("1.txt", "whose?"),
        ("2.jpg", "x"),
        ("3.txt", b"it\x92s"),
        ("3.jpg", "x"),
    )
    assert fates(path) == {
        "s.tar/._0.jpg": Reason.IGNORED_FILE,
        "s.tar/0.npy": Reason.IGNORED_FILE,
        "s.tar/0.txt": Reason.IGNORED_FILE,
        "s.tar/1.jpg": Reason.AMBIGUOUS_CAPTION,
        "s.tar/1.png": Reason.AMBIGUOUS_CAPTION,
        "s.tar/2.jpg": Reason.NO_CAPTION,
        "s.tar/3.jpg": Reason.CAPTION_ENCODING,
    }


def test_of_two_members_of_one_name_the_first_counts(tmp_path):
    path = tar(tmp_path / "s.tar", ("0.jpg", "one"), ("0.jpg", "other"), ("0.txt", "c"), ("1.jpg", "x"), *PAIR)
    found = listed(path)
    items = [one for one in found if isinstance(one, Item)]
    assert [(item.id, item.media.size) for item in items] == [("s.tar/0.jpg", 3)]
    assert [one.reason for one in found if not isinstance(one, Item)] == [
        *(Reason.DUPLICATE_ID, Reason.NO_CAPTION, Reason.DUPLICATE_ID)
    ]


@pytest.mark.parametrize("name", ["../0.jpg", "/0.jpg", "a/../../0.jpg", "..\\0.jpg", "C:/0.jpg", "C:\\0.jpg"])
def test_names_that_lead_out_are_refused(tmp_path, name):
    found = listed(tar(tmp_path / "s.tar", (name, "x"), *PAIR))
    assert [getattr(one, "reason", None) for one in found] == [Reason.OUTSIDE_ROOT, None]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    found = listed(tar(tmp_path / "s.tar", special("x.jpg", kind, "/etc/passwd"), *PAIR))
    assert [getattr(one, "reason", None) for one in found] == [Reason.SPECIAL_MEMBER, None]


def test_a_huge_header_is_refused_unread_with_its_member(tmp_path):
    info = tarfile.TarInfo("x.jpg")
    info.pax_headers = {"comment": "x" * 100_000}
    found = listed(tar(tmp_path / "s.tar", info, *PAIR))
    assert [getattr(one, "reason", None) for one in found] == [Reason.BAD_ARCHIVE, None]


def test_a_size_that_lies_ends_the_archive(tmp_path):
    path = tar(tmp_path / "s.tar", *PAIR, ("1.jpg", "x"), ("1.txt", "c"))
    data = bytearray(path.read_bytes())
    for size in (b"77777777777\0", b"\x80" + (10**15).to_bytes(11, "big"), b"\xff" * 12):
        header = data[2048:2560]
        header[124:136] = size
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        write(path, bytes(data[:2048] + header + data[2560:]))
        found = fates(path)
        assert found == {"s.tar/0.jpg": ("a caption",), "s.tar": Reason.BAD_ARCHIVE}


def test_an_archive_cut_anywhere_gives_what_is_whole(tmp_path):
    whole = tar(tmp_path / "s.tar", *PAIR, ("1.jpg", "x" * 600), ("1.txt", "c")).read_bytes()
    for length in range(0, 4700, 61):
        found = listed(write(tmp_path / "s.tar", whole[:length]))
        items = [one for one in found if isinstance(one, Item)]
        for item in items:
            assert item.media.offset + item.media.size <= length
        assert any(one.id == "s.tar/0.jpg" for one in found) == (length >= 516)
        assert any(item.id == "s.tar/0.jpg" for item in items) == (length >= 1545)


def test_archives_that_are_none_are_refused(tmp_path):
    for data in (b"<html>" * 200, b"\x1f\x8b" + b"x" * 600, random.Random(0).randbytes(5000)):
        assert fates(write(tmp_path / "s.tar", data)) == {"s.tar": Reason.BAD_ARCHIVE}


def test_damaged_headers_never_crash(tmp_path):
    numbers = random.Random(1)
    source = tar(tmp_path / "s.tar", ("n" * 120 + ".jpg", "x"), *PAIR, form=tarfile.PAX_FORMAT).read_bytes()
    for _ in range(150):
        data = bytearray(source)
        place = numbers.randrange(len(data) - 4)
        data[place : place + 4] = struct.pack("I", numbers.randrange(2**32))
        block = place // 512 * 512
        data[block + 148 : block + 156] = b" " * 8  # with a right checksum, so that what it says is looked at
        data[block + 148 : block + 156] = b"%06o\0 " % sum(data[block : block + 512])
        for one in listed(write(tmp_path / "t.tar", bytes(data)), no_caption="empty"):
            if isinstance(one, Item):
                assert one.media.offset + one.media.size <= len(data)


def test_several_archives_are_one_source(tmp_path):
    for number in range(3):
        tar(tmp_path / f"s-{number:03d}.tar", *PAIR)
    expected = [f"s-{number:03d}.tar/0.jpg" for number in range(3)]
    assert list(fates(tmp_path / "s-{000..002}.tar")) == list(fates(tmp_path)) == expected
    assert fates(tmp_path / "s-{002..003}.tar") == {expected[2]: ("a caption",), "s-003.tar": Reason.MISSING}


def test_nothing_is_written(tmp_path):
    path = tar(
        tmp_path / "in" / "s.tar", ("../out.jpg", "x"), special("ln", tarfile.SYMTYPE, "/tmp"), ("ln/x.jpg", "x")
    )
    before = sorted(os.walk(tmp_path))
    listed(path)
    assert sorted(os.walk(tmp_path)) == before


def test_headers_of_an_open_file_are_read_one_at_a_time(tmp_path):
    path = tar(tmp_path / "s.tar", *PAIR)
    with path.open("rb") as file:
        found = members(file)
        assert next(found).name == "0.jpg"
        file.seek(0, io.SEEK_END)  # others may read in between
        assert next(found).name == "0.txt"
    with pytest.raises(RefusedError), write(tmp_path / "t.tar", b"x" * 512).open("rb") as file:
        next(members(file))
