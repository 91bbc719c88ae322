"""Bombs and giants: refused by their headers or streamed, in little memory and time; and nothing else is ever read."""

from __future__ import annotations

import http.client
import http.server
import io
import json
import os
import struct
import subprocess
import sys
import threading
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from nova.preparation.inspect import inspect
from nova.preparation.items import BytesMedia, Reason, Refusal
from nova.preparation.rules import Rules, buckets_of
from tests.preparation.films import film, item_of, numbered

RULES = Rules(buckets=buckets_of([(48, 64)], (5, 1)), fps=10, upscale=True)

MEASURED = """
import json, re, sys, time
from pathlib import Path
from nova.preparation.inspect import inspect
from nova.preparation.items import Clip, FileMedia, Item
from nova.preparation.rules import Rules
rules, fates, slowest = Rules(**json.loads(sys.argv[1])), [], 0
for path, start in json.loads(sys.argv[2]):
    began = time.process_time()
    found = inspect(Item("a", FileMedia(Path(path), ""), ("x",), start=start), rules)
    fates += ["ok" if isinstance(each, Clip) else each.reason.code for each in found]
    slowest = max(slowest, time.process_time() - began)
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
print(json.dumps([fates, peak // 1024, slowest]))
"""


def measured(*stretches):
    """What becomes of files, each with a start, in a process of its own; its peak in MiB; CPU seconds for the worst."""
    told = json.dumps([(str(path), start) for path, start in stretches])
    command = [sys.executable, "-c", MEASURED, RULES.model_dump_json(), told]
    run = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=True, text=True)
    return json.loads(run.stdout)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(kind: str) -> bytes:
    """A small file that claims to hold 9,000 by 9,000 pixels or more, and may do so."""
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
        rows = zlib.compress(bytes(1 << 20))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    if kind == "BMP":
        return (
            b"BM"
            + struct.pack("<IHHI", 1 << 20, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 40_000, 40_000, 1, 24, *[0] * 6)
        )
    if kind == "PPM":
        return b"P6 65000 65000 255\n"
    if kind == "TIFF":
        entries = [
            (256, 4, 1, 40_000),
            (257, 4, 1, 40_000),
            (258, 3, 1, 8),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (273, 4, 1, 8),
        ]
        return (
            b"II*\0\x08\0\0\0"
            + struct.pack("<H", 6)
            + b"".join(struct.pack("<HHII", *each) for each in entries)
            + bytes(4)
        )
    file = io.BytesIO()
    Image.new("1" if kind == "GIF" else "L", (9000, 9000)).save(file, kind)
    return file.getvalue()


def test_image_bombs_are_refused_in_little_memory(tmp_path):
    kinds = ("PNG", "BMP", "PPM", "TIFF", "GIF", "JPEG")
    for kind in kinds:
        (tmp_path / kind).write_bytes(bomb(kind))
    fates, peak, seconds = measured(*((tmp_path / kind, 0.0) for kind in kinds))
    assert fates == ["too_many_pixels"] * len(kinds)
    assert peak < 500
    assert seconds < 5


def test_large_frames_are_streamed(tmp_path):
    for height, width, codec, format in ((2160, 3840, "libx264", "yuv420p"), (4320, 7680, "mjpeg", "yuvj420p")):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[::64] = 200
        options = {"preset": "ultrafast"} if codec == "libx264" else {}
        (tmp_path / codec).write_bytes(film([frame] * 3, "mov", rate=6, codec=codec, pix_fmt=format, options=options))
    fates, peak, seconds = measured((tmp_path / "libx264", 0.0), (tmp_path / "mjpeg", 0.0))
    assert fates == ["ok", "ok"]
    assert peak < 1000
    assert seconds < 5


def test_a_video_of_ten_hours_is_read_where_it_is_wanted(tmp_path):
    """A frame every 10 s for ten hours; one key frame in ten."""
    pts = [10 * number for number in range(3600)]
    frames = [numbered(1, 32, 32)[0]] * 3600
    data = film(frames, "matroska", pts=pts, base=Fraction(1, 1), rate=1, options={"g": "10", "preset": "ultrafast"})
    (tmp_path / "a").write_bytes(data)
    fates, peak, seconds = measured((tmp_path / "a", 0.0), (tmp_path / "a", 35_000.0))
    assert fates == ["ok", "ok"]
    assert peak < 1000
    assert seconds < 5


def test_absurd_rates_do_not_matter(tmp_path):
    for base in (Fraction(1, 1_000_000_000), Fraction(1, 1)):
        data = film(numbered(20), "mov", base=base, rate=1, codec="mpeg4") if base == 1 else None
        data = data or film(numbered(20), "matroska", pts=[k * 10**8 for k in range(20)], base=base, rate=10)
        (found,) = inspect(item_of(tmp_path / "a", data), RULES)
        assert found.frames.shape == (5, 48, 64, 3)


class Trap(http.server.BaseHTTPRequestHandler):
    """A server on this machine that notes who asks."""

    def do_GET(self):
        self.server.asked.append(self.path)
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def trap():
    with http.server.HTTPServer(("127.0.0.1", 0), Trap) as server:
        server.asked = []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def tricks(secret, address):
    """Files that ask their reader to open another file or address."""
    url = f"http://{address[0]}:{address[1]}/trap"
    return {
        "concat": f"ffconcat version 1.0\nfile {secret}\n",
        "concat url": f"ffconcat version 1.0\nfile {url}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "hls url": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n",
        "hls key": f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:1,\n{url}\n',
        "dash": f'<?xml version="1.0"?><MPD type="static"><BaseURL>{url}</BaseURL></MPD>',
        "svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
        "sdp": f"v=0\nc=IN IP4 {address[0]}\nm=video {address[1]} RTP/AVP 96\n",
        "asx": f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>',
        "eps": f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({secret}) run\n",
        "subtitles": f"1\n00:00:00,000 --> 00:00:01,000\n{url}\n",
        "filter graph": f"movie={secret}\n",
    }


@pytest.mark.parametrize("held", ["file", "bytes"])
def test_no_file_makes_its_reader_open_another(tmp_path, trap, held, monkeypatch):
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(film(numbered(8), rate=10))
    opened = []
    sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" else None)
    for name, text in tricks(secret, trap.server_address).items():
        for suffix in (".mp4", ".jpg", ".m3u8"):
            item = item_of(tmp_path / f"a{suffix}", text.encode())
            if held == "bytes":
                item = item_of(tmp_path / "b")
                item = type(item)("b", BytesMedia(text.encode(), f"b{suffix}", ""), ("x",))
            opened.clear()
            (found,) = inspect(item, RULES)
            assert isinstance(found, Refusal), name
            assert found.reason is Reason.NOT_MEDIA, name
            assert str(secret) not in map(str, opened)
    ours = http.client.HTTPConnection(*trap.server_address)
    ours.request("GET", "/ours")  # served after all that came before
    ours.getresponse().read()
    ours.close()
    assert trap.asked == ["/ours"]


@pytest.mark.parametrize(
    "path", ["concat:a.mp4|b.mp4", "http://127.0.0.1:9/a.mp4", "data:text/plain,a", "pipe:0", "%d.png"]
)
def test_names_are_files_and_nothing_else(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (found,) = inspect(item_of(type(tmp_path)(path)), RULES)
    assert found.reason is Reason.MISSING
