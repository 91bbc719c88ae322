"""A run folder is gone on with by the same run only; what changes no number may change."""

import json

import pytest

from nova.errors import UsageError
from nova.recipes.overrides import override
from nova.recipes.settle import settle, settle_inputs
from nova.training.config import OptimizerConfig, RunConfig
from nova.training.transformer import TransformerRun


@pytest.fixture
def config() -> RunConfig:
    return RunConfig(steps=100, batch_size=4, optimizer=OptimizerConfig(warmup_steps=5))


def done(folder, step):
    (folder / "checkpoints" / f"step-{step}").mkdir(parents=True)


def test_the_same_run_settles_again_and_can_be_read_back(tmp_path, config):
    settle(config, tmp_path)
    settle(config, tmp_path)
    assert RunConfig.model_validate(json.loads((tmp_path / "config.json").read_text())) == config


@pytest.mark.parametrize(
    "setting", ["seed=1", "batch_size=5", "precision=float32", "optimizer.ema_decay=0.5", "optimizer.warmup_steps=1"]
)
def test_a_run_that_makes_other_numbers_is_refused(tmp_path, config, setting):
    settle(config, tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(UsageError, match=rf"{setting.partition('=')[0]} .* -> .*; choose another --output"):
        settle(override(config, [setting]), tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_all_differing_fields_are_named(tmp_path, config):
    settle(config, tmp_path)
    with pytest.raises(UsageError, match="batch_size 4 -> 8, seed 0 -> 1"):
        settle(override(config, ["seed=1", "batch_size=8"]), tmp_path)


@pytest.mark.parametrize(
    "setting",
    [
        "checkpoint_every=3",
        "log_every=1",
        "keep_checkpoints=9",
        "max_skipped=2",
        "micro_batch=2",
        "workers=3",
        "project=a",
        "trackers=[]",
    ],
)
def test_what_changes_no_number_may_change(tmp_path, config, setting):
    settle(config, tmp_path)
    settle(override(config, [setting]), tmp_path)


def test_what_is_shown_may_change_but_not_what_is_held_out(tmp_path):
    run = TransformerRun(steps=100, batch_size=4)
    settle(run, tmp_path)
    settle(override(run, ["observe.every=7", "observe.guidance=1", 'observe.prompts=["a red 3"]']), tmp_path)
    with pytest.raises(UsageError, match=r"observe.held_out 0 -> 8"):
        settle(override(run, ["observe.held_out=8"]), tmp_path)


def test_a_run_may_become_longer_while_its_past_rates_stay(tmp_path, config):
    settle(config, tmp_path)
    done(tmp_path, 60)
    settle(override(config, ["steps=200"]), tmp_path)


def test_a_cosine_may_be_stretched_before_it_begins_to_fall_only(tmp_path, config):
    falling = override(config, ["optimizer.schedule=cosine", "optimizer.decay_fraction=0.5"])
    settle(falling, tmp_path)
    done(tmp_path, 40)
    settle(override(falling, ["steps=200"]), tmp_path)
    settle(falling, tmp_path)
    done(tmp_path, 60)
    with pytest.raises(UsageError, match="steps 100 -> 200"):
        settle(override(falling, ["steps=200"]), tmp_path)


def test_a_run_goes_on_with_the_models_it_was_started_with(tmp_path):
    settle_inputs({"autoencoder": "a", "initial": "b"}, tmp_path)
    settle_inputs({"autoencoder": "a", "initial": "b"}, tmp_path)
    with pytest.raises(UsageError, match="initial changed"):
        settle_inputs({"autoencoder": "a", "initial": "c"}, tmp_path)
    with pytest.raises(UsageError, match="initial changed"):
        settle_inputs({"autoencoder": "a"}, tmp_path)
