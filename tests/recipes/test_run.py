"""Every recipe takes its steps and leaves a model; the chain is done once and can be stopped anywhere."""

import dataclasses
import json
import os
import signal

import pytest
import torch

from nova.errors import ResourceError, UsageError
from nova.lock import run_lock
from nova.pipeline import NovaPipeline
from nova.recipes import run as runs
from nova.recipes.catalogue import RECIPES
from nova.recipes.digits import digits_tiny
from nova.recipes.overrides import override
from nova.recipes.run import run
from nova.training import autoencoder

STAGES = ("autoencoder", "text_encoder", "initial", ".")
SMALL = ["batch_size=1", "checkpoint_every=1", "log_every=1"]
SETTINGS = {
    "digits-autoencoder": ["steps=1", "world.size=32"],
    "digits-text-encoder": ["steps=2", "world.size=32"],
    "digits-image": ["steps=2", "initial=null", "data.size=32", "data.clips=2", "observe.every=0"],
    "digits-video": ["steps=2", "data.size=32", "data.frames=5", "data.clips=2", "observe.every=0"],
    "digits-finetune": ["steps=1", "data.clips=2", "autoencoder=null", "text_encoder=null", "observe.every=0"],
    "digits-lora": ["steps=1", "data.clips=2", "autoencoder=null", "text_encoder=null", "observe.every=0"],
}


@pytest.fixture(autouse=True)
def few_measurements(monkeypatch):
    monkeypatch.setattr(autoencoder, "TEST_CLIPS", 1)
    monkeypatch.setattr(autoencoder, "SCALE_CLIPS", 8)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The finished folder of the whole chain in miniature."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(autoencoder, "TEST_CLIPS", 1)
        patch.setattr(autoencoder, "SCALE_CLIPS", 8)
        folder = tmp_path_factory.mktemp("chain")
        assert run(digits_tiny(), folder, quiet=True) is None
    return folder


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_chain_ends_in_a_pipeline(chain):
    for stage in STAGES:
        assert json.loads((chain / stage / "result.json").read_text())["steps"] == 4
        lines = [json.loads(line) for line in (chain / stage / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2, 3, 4]
        assert all({"loss", "learning_rate"} <= set(line) for line in lines)
        assert (chain / stage / "checkpoints" / "step-4").is_dir()
    pipe = NovaPipeline.from_pretrained(chain / "model")
    pipe.set_progress_bar_config(disable=True)
    made = pipe("a red 3", num_inference_steps=1, num_diffusion_steps=1, output_type="np", generator=0).frames
    assert made.shape == (1, 5, 32, 32, 3)


def test_a_finished_chain_is_left_as_it_is(chain):
    before = {name: data for name, data in files(chain).items() if "tensorboard" not in name.parts}
    assert run(digits_tiny(), chain, quiet=True) is None
    after = {name: data for name, data in files(chain).items() if "tensorboard" not in name.parts}
    locks = {name for name in before if name.name == ".lock"}
    assert {name for name in before.keys() | after if before.get(name) != after.get(name)} <= locks


def signalling(stage):
    """The training loop, with a SIGTERM in the second step of the `stage`-th time it is run."""
    train, runs_before = runs.train, iter(range(100))

    def one(task, config, *others):
        chosen = next(runs_before) == stage

        def batch(step, places):
            if chosen and step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return task.batch(step, places)

        return train(dataclasses.replace(task, batch=batch), config, *others)

    return one


@pytest.mark.parametrize("stage", range(len(STAGES)))
def test_a_chain_stopped_in_any_stage_goes_on(chain, tmp_path, stage):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "train", signalling(stage))
        assert run(digits_tiny(), tmp_path, quiet=True) == signal.SIGTERM
    assert (tmp_path / STAGES[stage] / "checkpoints" / "step-2").is_dir()
    assert not (tmp_path / "model").exists()
    assert run(digits_tiny(), tmp_path, quiet=True) is None
    weights = "model/transformer/diffusion_pytorch_model.safetensors"
    assert (tmp_path / weights).read_bytes() == (chain / weights).read_bytes()


@pytest.mark.parametrize("name", SETTINGS)
def test_every_recipe_takes_a_step_at_its_real_size(chain, tmp_path, name):
    config = RECIPES[name]()
    parts = [f"autoencoder={chain}", f"text_encoder={chain}"] if config.kind == "transformer" else []
    assert run(override(config, SMALL + parts + SETTINGS[name]), tmp_path, quiet=True) is None
    assert (tmp_path / "model").is_dir()


def test_a_lora_run_leaves_its_adapter_and_a_model_with_it_folded_in(chain, tmp_path):
    parts = [f"{part}={chain}" for part in ("autoencoder", "text_encoder", "initial")]
    settings = ["lora.rank=2", "optimizer.learning_rate=0.1", "steps=8", *parts]
    assert run(override(digits_tiny(), settings), tmp_path, quiet=True) is None
    merged, adapted = NovaPipeline.from_pretrained(tmp_path / "model"), NovaPipeline.from_pretrained(chain / "model")
    before = {name: tensor.clone() for name, tensor in adapted.transformer.state_dict().items()}
    adapted.load_lora(tmp_path / "adapter")
    moved = 0.0
    for name, tensor in merged.transformer.state_dict().items():
        torch.testing.assert_close(adapted.transformer.state_dict()[name], tensor, atol=1e-3, rtol=1e-3)
        moved = max(moved, float((tensor - before[name]).abs().max()))
    assert moved > 1e-2


def test_every_recipe_is_tried():
    elsewhere = {"digits", "digits-tiny", "digits-clips"}  # the chain below; docs/prepare.md
    assert set(SETTINGS) | elsewhere == {name for name in RECIPES if name.startswith("digits")}


def test_the_chain_is_its_recipes():
    config = RECIPES["digits"]()
    assert config.autoencoder == RECIPES["digits-autoencoder"]()
    assert config.text_encoder == RECIPES["digits-text-encoder"]()
    assert config.initial == RECIPES["digits-image"]()
    assert config.model_copy(update={"autoencoder": None, "text_encoder": None, "initial": None}) == (
        RECIPES["digits-video"]()
    )


def test_a_folder_in_use_is_refused(tmp_path):
    with run_lock(tmp_path), pytest.raises(ResourceError, match="another run writes here"):
        run(digits_tiny(), tmp_path, quiet=True)


@pytest.mark.parametrize("field", ["autoencoder", "text_encoder", "initial"])
def test_a_part_that_is_not_there_is_named(chain, tmp_path, field):
    parts = {"autoencoder": chain, "text_encoder": chain, "initial": "null"} | {field: tmp_path / "nothing"}
    config = override(digits_tiny(), [f"{name}={value}" for name, value in parts.items()])
    with pytest.raises(UsageError, match=f"{field}: .*nothing: no such folder"):
        run(config, tmp_path / "run", quiet=True)


def test_other_inputs_are_another_run(chain, tmp_path):
    given = [f"autoencoder={chain}", f"text_encoder={chain}"]
    assert run(override(digits_tiny(), [*given, f"initial={chain / 'initial'}"]), tmp_path, quiet=True) is None
    with pytest.raises(UsageError, match="initial changed"):
        run(override(digits_tiny(), [*given, "initial=null"]), tmp_path, quiet=True)


def test_a_run_shows_samples_and_its_held_out_loss_and_says_what_it_ran_on(chain, tmp_path):
    parts = {name: str(chain / name) for name in ("autoencoder", "text_encoder", "initial")}
    shown = ["observe.every=2", 'observe.prompts=["a red 3"]', "observe.steps=1", "observe.diffusion_steps=1"]
    config = override(digits_tiny().model_copy(update=parts), [*shown, "observe.held_out=2"])
    assert run(config, tmp_path, quiet=True) is None
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out/loss" in line] == [2, 4]
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step-2.png", "step-4.png"]
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["inputs"] == json.loads((tmp_path / "inputs.json").read_text())
    assert len(record["starts"]) == 1
    assert run(config.model_copy(update={"steps": 6}), tmp_path, quiet=True) is None
    assert [start["step"] for start in json.loads((tmp_path / "run.json").read_text())["starts"]] == [0, 4]
