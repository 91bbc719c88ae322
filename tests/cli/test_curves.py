"""`nova curves`: a panel for each run, from whole lines of its metrics."""

import json

import pytest

from nova import cli
from nova.cli.curves import _series, _smoothed
from nova.media import read_image


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    lines = [{"step": step, "loss": 1 / step} for step in range(1, 9)]
    lines[3]["loss"] = None
    lines.append({"step": 8, "held_out/loss": 0.2})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + '{"step": 9, "lo')
    return folder


def test_lines_are_read_as_a_run_writes_them(run):
    steps, losses = _series(run, "loss")
    assert steps == [1, 2, 3, 5, 6, 7, 8]
    assert losses == [1 / step for step in steps]
    assert _series(run, "held_out/loss") == ([8], [0.2])


@pytest.mark.parametrize(("count", "shape"), [(1, (400, 720, 3)), (2, (400, 1440, 3)), (3, (800, 1440, 3))])
def test_every_run_has_a_panel(run, tmp_path, capsys, count, shape):
    output = tmp_path / "curves.png"
    assert cli.main(["curves", *[str(run)] * count, "--output", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}\n"
    assert read_image(output).shape == shape


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "is missing; give the folder of a run"),
        ("[]\n", "is no file of metrics"),
        ("x\n", "is no file of metrics"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, capsys, text, said):
    if text is not None:
        (tmp_path / "metrics.jsonl").write_text(text)
    assert cli.main(["curves", str(tmp_path), "--output", str(tmp_path / "x.png")]) == 3
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x.png").exists()


def test_a_smoothed_constant_is_the_constant_and_the_past_fades():
    assert _smoothed([2.0] * 500) == pytest.approx([2.0] * 500)
    assert _smoothed([3.0, 5.0]) == [3.0, 5.0]
    assert _smoothed([5.0] * 300 + [1.0] * 300)[-1] == pytest.approx(1.0, abs=1e-6)
