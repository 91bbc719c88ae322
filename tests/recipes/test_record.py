"""A run folder says what its numbers came from, and the user hears when they may differ in the last bits."""

import json
import shlex

import pytest
import torch

import nova
from nova.recipes import record
from nova.recipes.record import PAGE, RECORD, record_start
from nova.training.autoencoder import AutoencoderRun
from nova.training.cluster import Cluster
from nova.training.transformer import TransformerRun

RUN, ALONE = TransformerRun(steps=10, batch_size=4), Cluster()


def model():
    network = torch.nn.Linear(4, 3)
    network.bias.requires_grad_(False)
    return network


def started(folder, config=RUN, cluster=ALONE):
    return record_start(config, folder, model(), cluster)


def starts(folder):
    return json.loads((folder / RECORD).read_text())["starts"]


@pytest.fixture
def saved(tmp_path):
    """A run that was started and has a checkpoint of step 7."""
    assert started(tmp_path) is None
    (tmp_path / "checkpoints" / "step-7").mkdir(parents=True)
    return tmp_path


def test_what_ran_where_is_kept_for_every_start(saved):
    (saved / "inputs.json").write_text('{"data": "abc"}')
    assert started(saved) is None
    found = json.loads((saved / RECORD).read_text())
    assert (found["kind"], found["parameters"], found["trained"]) == ("transformer", 15, 12)
    assert found["inputs"] == {"data": "abc"}
    first, second = found["starts"]
    assert (first["step"], second["step"]) == (0, 7)
    assert second["nova"] == nova.__version__
    assert second["torch"] == torch.__version__
    assert second["threads"] == torch.get_num_threads()
    assert second["processes"] == 1
    assert second["device"]
    assert first["started"] <= second["started"]


def test_other_threads_versions_and_processes_are_told_when_it_goes_on(saved, monkeypatch):
    monkeypatch.setattr(record.torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(record.torch, "__version__", "9.9")
    line = started(saved, cluster=Cluster(size=2))
    assert line.startswith(f"{saved}: goes on, but not to the bit as it would have before")
    for change in ("-> 9.9", "threads 1 -> 64", "processes 1 -> 2"):
        assert change in line
    assert started(saved, cluster=Cluster(size=2)) is None


def test_before_the_first_checkpoint_there_is_nothing_to_go_on_with(tmp_path, monkeypatch):
    assert started(tmp_path) is None
    monkeypatch.setattr(record.torch, "get_num_threads", lambda: 64)
    assert started(tmp_path) is None
    assert len(starts(tmp_path)) == 2


def test_no_secret_of_the_command_line_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(
        record.sys, "argv", ["/usr/bin/nova", "train", "digits", "--hf-token", "canary123456", "seed=1"]
    )
    started(tmp_path)
    text = (tmp_path / RECORD).read_text() + (tmp_path / PAGE).read_text()
    assert "canary" not in text
    assert starts(tmp_path)[0]["command"].startswith("nova train digits")


def test_code_in_a_checkout_is_named_by_its_commit(tmp_path, monkeypatch):
    said = {"rev-parse": "f00d", "status": " M a.py"}
    monkeypatch.setattr(record, "_git", lambda word, *_: said[word])
    started(tmp_path)
    monkeypatch.setattr(record, "_git", lambda *_: None)
    started(tmp_path)
    assert [(start["commit"], start["changed"]) for start in starts(tmp_path)] == [("f00d", True), (None, None)]


@pytest.mark.parametrize("spoilt", ["", "[]", '{"starts": [1]}'])
def test_a_spoilt_record_is_begun_anew(saved, spoilt):
    (saved / RECORD).write_text(spoilt)
    assert started(saved) is None
    assert len(starts(saved)) == 1


def test_the_page_tells_how_to_go_on_and_to_generate(tmp_path, monkeypatch):
    folder = tmp_path / "my run"
    folder.mkdir()
    monkeypatch.setattr(record.sys, "argv", ["nova", "train", "digits", "--output", str(folder)])
    started(folder)
    page = (folder / PAGE).read_text()
    assert f"    nova train digits --output {shlex.quote(str(folder))}\n" in page
    assert f"    nova generate 'a prompt' --model {shlex.quote(str(folder / 'model'))}\n" in page
    started(folder, AutoencoderRun(steps=3, batch_size=2))
    assert "nova generate" not in (folder / PAGE).read_text()
