"""Everything about generation on one GPU, in one command of under eight minutes.

    PYTHONPATH=src python benchmarks/gpu.py FOLDER [--peer PUBLISHED] [--seconds 460]

For text-to-video 0.6B at 33x480x768 and text-to-image 0.6B at 1024x1024, random weights, bfloat16, batch 1: agreement
with the published code, seconds with and without the autoencoder, the first frame's delay, peak memory, the share of
the matrix product's speed and the gap to the limit, and the ratio to the published code, whole runs of it taking turns
with ours. FOLDER gets `generate-<case>.json` after every part and `generate-gpu.md` at the end: what is measured
stays, whatever fails or runs out of time later. `--tiny` tries it all out in a minute, on a CPU as well.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from generate_cases import CASES
from generate_peer import compare
from generate_result import Result
from generate_sides import Setting

from nova.files import written_whole

PARTS = {"0.6B-t2v-480": (0.65, 1), "0.6B-t2i-1024": (1.0, 3)}
"""Cases in order: what share of the time left each may take, and its rounds."""
TINY = {"tiny": (0.5, 1), "tiny-image": (1.0, 1)}


def measure(folder: Path, setting: Setting, peer: Path | None, rounds: int, limit: float) -> Result | None:
    """Measure a case for at most `limit` seconds; whatever goes wrong is printed, and what was found until then stays.

    None where nothing was.
    """
    result, told = None, set[str]()
    start = time.monotonic()
    try:
        with _at_most(limit):
            for result in compare(setting, peer, rounds, absolute=True, refuse=False):
                save(folder, result)
                print(f"{setting.name} after {time.monotonic() - start:.0f} s:", flush=True)
                new = [line for line in str(result).splitlines() if line not in told]
                print("\n".join(new), flush=True)
                told.update(new)
    except Exception:
        print(f"{setting.name}: failed after {time.monotonic() - start:.0f} s", flush=True)
        traceback.print_exc()
    return result


def save(folder: Path, result: Result) -> None:
    """Write what is known so far."""
    name = result.setting.name + ("-compiled" if result.setting.compile else "")
    with written_whole(folder / f"generate-{name}.json") as draft:
        draft.write_text(json.dumps(result.to_dict(), indent=1) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError in the block after so many seconds."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, print; 0 where every case was measured to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the figures go")
    parser.add_argument("--peer", type=Path, help="folder of the published code; without it ours is measured alone")
    parser.add_argument("--seconds", type=float, default=460, help="for everything")
    parser.add_argument("--only", choices=PARTS, help="one of the cases")
    parser.add_argument("--compile", action="store_true", help="fuse our operations, as nova generate --compile does")
    parser.add_argument("--tiny", action="store_true", help="models that mean nothing, to see whether it works")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + given.seconds
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not given.tiny:
        sys.exit("error: there is no GPU here; --tiny tries the script out on a CPU")
    parts = TINY if given.tiny else PARTS if given.only is None else {given.only: (1.0, PARTS[given.only][1])}
    results = []
    for name, (share, rounds) in parts.items():
        dtype = CASES[name].dtype if device == "cuda" else "float32"
        setting = Setting(name, device, dtype, torch.get_num_threads(), given.compile)
        results.append(measure(given.folder, setting, given.peer, rounds, share * (end - time.monotonic())))
    text = "\n\n".join(f"```\n{result}\n```" for result in results if result is not None)
    with written_whole(given.folder / "generate-gpu.md") as draft:
        draft.write_text(text + "\n", encoding="utf-8")
    complete = [result for result in results if result is not None and result.ours is not None]
    return 0 if len(complete) == len(parts) else 1


if __name__ == "__main__":
    sys.exit(main())
