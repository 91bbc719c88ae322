"""A run that shows samples and held-out losses makes the same numbers as one that shows nothing."""

import json

import pytest
import torch

from nova.errors import UsageError
from nova.media import read_image
from nova.recipes import observe
from nova.training.cluster import Cluster
from nova.training.heldout import split
from nova.training.log import RunLog
from nova.training.train import train
from nova.training.transformer import Inputs, new_transformer, transformer_task
from tests.tiny import text_parts
from tests.training.samples import TEXT_DIM, Samples, latent_run, small_autoencoder
from tests.training.toy import everything

PROMPTS = ("a red 3", "a blue 3 moves right")
SHOWN = {"every": 2, "prompts": PROMPTS, "steps": 2, "diffusion_steps": 2, "guidance": 2.0, "held_out": 2}
TRAINING, HELD = split(Samples((10,)), 2)


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.fixture(scope="module")
def inputs():
    tokenizer, encoder = text_parts()
    return Inputs(small_autoencoder(), encoder, tokenizer)


def trained(folder, inputs, shown):
    config = latent_run(observe=shown)
    model = new_transformer(config, (4, 2, 4, 4), TEXT_DIM, None)
    task = transformer_task(config, model, TRAINING, inputs.autoencoder)
    looks = observe.observer(config, folder, inputs, HELD, None, Cluster())
    return everything(train(task, config, folder, quiet=True, observer=looks).state)


def lines(folder):
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "samples_per_second"} for line in found]


@pytest.fixture(scope="module")
def unseen(inputs, tmp_path_factory):
    """State and metrics of a run that nobody looks at."""
    folder = tmp_path_factory.mktemp("unseen")
    return trained(folder, inputs, {}), lines(folder)


@pytest.fixture(scope="module")
def seen(inputs, tmp_path_factory):
    """State and folder of one that shows everything."""
    folder = tmp_path_factory.mktemp("seen")
    return trained(folder, inputs, SHOWN), folder


def test_looking_changes_no_number_and_no_frozen_part(inputs, unseen, seen):
    state, folder = seen
    assert state == unseen[0]
    assert [line for line in lines(folder) if "loss" in line] == unseen[1]
    fresh = small_autoencoder().state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in inputs.vae.state_dict().items())


def test_what_is_shown_changes_as_the_model_learns(seen):
    _, folder = seen
    observed = [line for line in lines(folder) if "loss" not in line]
    assert [line["step"] for line in observed] == [2, 4]
    assert {"held_out/loss", "held_out/first", "held_out/later"} < observed[0].keys()
    assert observed[0]["held_out/loss"] != observed[1]["held_out/loss"]
    first, second = (read_image(folder / "samples" / f"step-{step}.png") for step in (2, 4))
    assert first.shape == second.shape
    assert (first != second).any()


def test_a_run_killed_while_it_is_looked_at_goes_on_as_if_it_had_not_been(tmp_path, inputs, seen, monkeypatch):
    write_image = observe.write_image

    def killed(path, sheet):
        monkeypatch.setattr(observe, "write_image", write_image)
        raise Killed

    monkeypatch.setattr(observe, "write_image", killed)
    with pytest.raises(Killed):
        trained(tmp_path, inputs, SHOWN)
    state, folder = seen
    assert trained(tmp_path, inputs, SHOWN) == state
    assert lines(tmp_path) == lines(folder)
    for step in (2, 4):
        name = f"samples/step-{step}.png"
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_a_failure_is_told_and_the_run_goes_on(tmp_path, inputs, unseen, monkeypatch, capsys):
    def fails(*_, **__):
        torch.rand(3)
        raise torch.OutOfMemoryError("CUDA out of memory, token=canary12345\nmore lines")

    monkeypatch.setattr(observe, "NovaPipeline", fails)
    monkeypatch.setattr(observe, "held_out_loss", fails)
    assert trained(tmp_path, inputs, SHOWN) == unseen[0]
    assert lines(tmp_path) == unseen[1]
    said = capsys.readouterr().err.splitlines()
    assert [line.split(" left out")[0] for line in said] == [
        f"step {step}: {name}" for step in (2, 4) for name in ("the held-out loss", "samples")
    ]
    assert all("OutOfMemoryError: CUDA out of memory" in line and "canary" not in line for line in said)


def test_a_class_conditional_model_shows_classes(tmp_path, inputs):
    shown = {**SHOWN, "prompts": ("0", "2")}
    config = latent_run(observe=shown)
    size = config.model.model_copy(update={"classes": 3, "scale_shift_rank": None})
    config = config.model_copy(update={"model": size})
    model = new_transformer(config, (4, 1, 4, 4), None, None).eval()
    looks = observe.observer(config, tmp_path, Inputs(inputs.vae), Samples((2,), 1, True), None, Cluster())
    with RunLog(tmp_path, "toy", 0, config, quiet=True) as log:
        looks.look(model, 2, log)
    assert (tmp_path / "samples" / "step-2.png").exists()
    assert [line["step"] for line in lines(tmp_path)] == [2]
    for wrong in ("3", "-1", "a red 3"):
        config = latent_run(observe={**SHOWN, "prompts": (wrong,)}).model_copy(update={"model": size})
        with pytest.raises(UsageError, match=f"observe.prompts: '{wrong}' is no class; this model takes 0 to 2"):
            observe.observer(config, tmp_path, Inputs(inputs.vae), None, None, Cluster())


def test_nothing_asked_for_is_no_observer(tmp_path, inputs):
    for shown in ({}, {"every": 0, "prompts": PROMPTS}, {"every": 2}):
        for cluster in (Cluster(), Cluster(rank=1, size=2)):  # all make the averaged model together, or none
            assert observe.observer(latent_run(observe=shown), tmp_path, inputs, None, None, cluster) is None


def test_only_the_main_process_looks(tmp_path, inputs):
    looks = observe.observer(latent_run(observe=SHOWN), tmp_path, inputs, HELD, None, Cluster(rank=1, size=2))
    assert looks.every == 2
    looks.look(torch.nn.Linear(1, 1), 2, None)
    assert list(tmp_path.iterdir()) == []
