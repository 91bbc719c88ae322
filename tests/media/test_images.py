"""Images come in upright, on white, in eight bits, or not at all; they go out whole or not at all."""

import io
import os
import random
import struct
import zlib

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange
from PIL import Image, ImageCms

from nova.errors import DataError, ResourceError, UsageError
from nova.media import read_image, write_image
from nova.media.faults import Fault, MediaError
from nova.media.images import decode_image


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_writing_and_reading_are_inverses(tmp_path, picture, suffix):
    write_image(tmp_path / f"a{suffix}", picture)
    assert (read_image(tmp_path / f"a{suffix}") == picture).all()
    assert [file.name for file in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_followed(tmp_path, picture, orientation):
    undo = {1: 0, 2: 1, 3: 2, 4: 3, 5: 5, 6: 4, 7: 6, 8: 4}[orientation]  # how an upright picture was stored
    stored = {
        0: picture,
        1: picture[:, ::-1],
        2: picture[::-1, ::-1],
        3: picture[::-1],
        4: np.rot90(picture, 1 if orientation == 6 else -1),
        5: picture.transpose(1, 0, 2),
        6: picture.transpose(1, 0, 2)[::-1, ::-1],
    }[undo]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png") == picture).all()


def test_transparency_is_laid_on_white(tmp_path):
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 3] = 0, 128, 255
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert abs(read_image(tmp_path / "a.png")[0, :, 0].astype(int) - [255, 127, 0]).max() <= 1
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.save(tmp_path / "b.png", transparency=0)
    assert read_image(tmp_path / "b.png")[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.ppm"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, name):
    ramp = np.linspace(0, 65535, 512).astype(np.uint16).reshape(16, 32)
    Image.fromarray(ramp).save(tmp_path / name)
    expected = ramp / 257
    assert abs(read_image(tmp_path / name) - expected[..., None]).max() <= 0.51


def test_other_modes_become_rgb(tmp_path, picture):
    for mode, name, tolerance in (("L", "a.png", 0), ("1", "a.png", 0), ("CMYK", "a.tiff", 0), ("P", "a.gif", 0)):
        image = Image.fromarray(picture).convert(mode)
        image.save(tmp_path / name)
        difference = read_image(tmp_path / name).astype(int) - np.asarray(image.convert("RGB"))
        assert abs(difference).max() <= tolerance


def test_a_colour_profile_is_converted_and_a_broken_one_ignored(tmp_path, picture):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for profile in (lab, b"nonsense"):
        Image.fromarray(picture).save(tmp_path / "a.png", icc_profile=profile)
        assert (read_image(tmp_path / "a.png") == picture).all()
    linear = _linear_profile()
    Image.fromarray(np.full((4, 4, 3), 128, np.uint8)).save(tmp_path / "b.png", icc_profile=linear)
    assert abs(read_image(tmp_path / "b.png").astype(int) - 188).max() <= 2, "half the light is sRGB 188"


def _linear_profile() -> bytes:
    """The sRGB profile with its tone curves replaced by the identity."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for index in range(struct.unpack(">I", data[128:132])[0]):
        name, start, _ = struct.unpack(">4sII", data[132 + 12 * index : 144 + 12 * index])
        if name in (b"rTRC", b"gTRC", b"bTRC"):
            data[start : start + 16] = b"para" + bytes(4) + struct.pack(">HHI", 0, 0, 65536)
        elif name == b"desc":
            data[start : start + 4] = b"zzzz"
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF"])
def test_a_truncated_image_is_refused(tmp_path, picture, kind):
    whole = io.BytesIO()
    Image.fromarray(picture).save(whole, kind)
    data = whole.getvalue()  # its last four bytes may be a checksum of nothing
    for length in np.linspace(0, len(data) - 5, 100).astype(int):
        (tmp_path / "a").write_bytes(data[:length])
        with pytest.raises(DataError, match="a: is"):
            read_image(tmp_path / "a")


def test_what_was_done_is_told(picture):
    rgba = np.dstack([picture, np.full(picture.shape[:2], 128, np.uint8)])
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(stored(rgba, "PNG", exif=exif), "a").notes == ("turned", "alpha_on_background")
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    assert decode_image(stored(deep, "PNG"), "a").notes == ("scaled_from_16_bits",)
    assert decode_image(stored(picture, "PNG"), "a").notes == ()


def stored(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file


@pytest.mark.parametrize("ground", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
def test_the_background_is_the_one_asked_for(ground):
    clear = np.zeros((4, 4, 4), np.uint8)
    assert (decode_image(stored(clear, "PNG"), "a", background=ground).pixels == ground).all()


@pytest.mark.parametrize("mode", ["LA", "PA", "P"])
def test_every_kind_of_transparency_is_laid_on_the_background(mode):
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0)).convert(mode if mode != "P" else "RGBA")
    file = io.BytesIO()
    clear.save(file, "TIFF" if mode == "PA" else "PNG")
    if mode == "P":
        file = io.BytesIO()
        Image.new("P", (4, 4), 0).save(file, "PNG", transparency=0)
    found = decode_image(file, "a", background=(10, 200, 30))
    assert (found.pixels == (10, 200, 30)).all()
    assert "alpha_on_background" in found.notes


def test_a_ramp_of_ten_bits_keeps_its_values(tmp_path):
    ramp = np.linspace(0, 1023, 256).astype(np.uint16)
    grey = np.full((32, 128), 512, np.uint16)
    with av.open(str(tmp_path / "a.avif"), "w", format="avif") as container:
        stream = container.add_stream("libsvtav1", rate=1, options={"crf": "4", "preset": "8"})
        stream.height, stream.width, stream.pix_fmt = 64, 256, "yuv420p10le"
        stream.codec_context.color_range = ColorRange.JPEG
        frame = av.VideoFrame(256, 64, "yuv420p10le")
        frame.color_range = ColorRange.JPEG
        for plane, values in zip(frame.planes, (np.repeat(ramp[None], 64, axis=0), grey, grey), strict=True):
            rows = np.zeros((len(values), plane.line_size), np.uint8)
            rows[:, : 2 * values.shape[1]] = np.ascontiguousarray(values).view(np.uint8)
            plane.update(rows.tobytes())
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert abs(read_image(tmp_path / "a.avif").mean(axis=(0, 2)) - ramp / 1023 * 255).mean() < 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_several_pictures_the_first_is_read_and_it_is_told(kind):
    pictures = [Image.new("RGB", (16, 16), (80 * number, 0, 0)) for number in range(3)]
    file = io.BytesIO()
    pictures[1].save(file, kind, save_all=True, append_images=[pictures[0], pictures[2]])
    found = decode_image(file, "a")
    assert found.several
    assert abs(found.pixels.astype(int) - (80, 0, 0)).max() <= 3
    assert not decode_image(stored(np.zeros((8, 8, 3), np.uint8), kind), "a").several


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", Fault.EMPTY_FILE),
        (b"<html><body>not found", Fault.NOT_MEDIA),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", Fault.NOT_MEDIA),
        (b"\x89PNG\r\n\x1a\n\0\0", Fault.DAMAGED),
        (b"\0\0\0\x18ftypheic" + bytes(80), Fault.CODEC),
        (b"P5 70000 70000 255\n", Fault.TOO_MANY_PIXELS),
    ],
)
def test_faults_are_told_apart(data, fault):
    with pytest.raises(MediaError) as refusal:
        decode_image(io.BytesIO(data), "a")
    assert refusal.value.fault is fault


def survivors(count, picture):
    """How many of `count` mutated images are read; the others are refused."""
    kinds = [stored(picture, kind).getvalue() for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF")]
    rng, read = random.Random(0), 0
    for number in range(count):
        data = bytearray(kinds[number % len(kinds)])
        for _ in range(rng.choice((1, 3, 20))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        try:
            pixels = decode_image(io.BytesIO(data), "a", max_pixels=1_000_000).pixels
        except MediaError:
            continue
        assert pixels.ndim == 3
        assert pixels.dtype == np.uint8
        read += 1
    return read


def test_mutated_images_are_read_or_refused(picture):
    assert 0 < survivors(800, picture) < 800


@pytest.mark.slow
def test_twelve_thousand_mutated_images_are_read_or_refused(picture):
    assert 0 < survivors(12_000, picture) < 12_000


def test_a_flipped_bit_in_a_png_is_refused(tmp_path, picture):
    write_image(tmp_path / "a.png", picture)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match="damaged"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "an empty file"),
        (b"hello, I am a text", "text"),
        (b"%PDF-1.7\n", "a PDF"),
        (b"8BPS\0\1", "a Photoshop"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript"),
        (b"\x80\x02}q\x00.", "a Python pickle"),
        (bytes(range(200, 256)), "other data"),
    ],
)
def test_what_is_not_an_image_is_named(tmp_path, data, found):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(DataError, match=found) as refusal:
        read_image(tmp_path / "a.png")
    assert str(tmp_path / "a.png") in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_values_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match="range"):
        read_image(tmp_path / "a.tiff")


def test_a_decompression_bomb_is_refused_by_its_header(tmp_path):
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )
    with pytest.raises(DataError, match="pixels"):
        read_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png", np.zeros((10, 10, 3), np.uint8))
    with pytest.raises(DataError, match="10x10 pixels, more than 99"):
        read_image(tmp_path / "b.png", max_pixels=99)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "nowhere.png"):
        with pytest.raises(DataError, match=str(path)):
            read_image(path)


def test_an_unwritable_target_is_refused_and_leaves_nothing(tmp_path, picture, monkeypatch):
    with pytest.raises(UsageError, match="does not exist"):
        write_image(tmp_path / "no" / "a.png", picture)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        write_image(tmp_path / "folder.png", picture)
    with pytest.raises(UsageError, match="xyz"):
        write_image(tmp_path / "a.xyz", picture)
    with pytest.raises(UsageError, match="float64"):
        write_image(tmp_path / "a.png", picture / 255)

    def full(self, file, **options):
        file.write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    write_image(tmp_path / "a.png", picture)
    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(ResourceError, match="no space left"):
        write_image(tmp_path / "a.png", 255 - picture)
    assert (read_image(tmp_path / "a.png") == picture).all(), "the earlier file stays"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.png", "folder.png"]
