"""What a resumed run may not change: its learning rates (row A9). And that it does not start anew where it cannot go on
(row A6).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from nova.errors import CheckpointError
from nova.training.config import OptimizerConfig, RunConfig
from nova.training.optimizer import learning_rate
from nova.training.train import train
from tests.training.toy import toy, toy_run, toy_task

STEPS = 24
SCHEDULES = {
    "constant": {},
    "warm-up": {"warmup_steps": 7},
    "cosine": {"schedule": "cosine", "warmup_steps": 5},
    "cosine in stairs": {"schedule": "cosine", "decay_every": 10, "final_fraction": 0.1},
    "multistep": {"schedule": "multistep", "milestones": (0.5, 0.75), "final_fraction": 0.3, "warmup_steps": 4},
}


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def run(folder: Path, config: RunConfig, killed_at: int | None = None) -> None:
    """Train, until a step if one is given."""

    def batch(step: int, places: range) -> object:
        if step == killed_at:
            raise Killed
        return task.batch(step, places)

    task = toy_task(toy())
    train(dataclasses.replace(task, batch=batch), config, folder, quiet=True)


def rates(folder: Path) -> list[str]:
    """The learning rate of each step, to the last bit."""
    return [json.loads(line)["learning_rate"].hex() for line in (folder / "metrics.jsonl").read_text().splitlines()]


def curve(config: RunConfig) -> list[str]:
    return [learning_rate(config.optimizer, step, config.steps).hex() for step in range(config.steps)]


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_learning_rate_does_not_see_that_a_run_was_killed(tmp_path, name):
    optimizer = OptimizerConfig(learning_rate=1e-2, **SCHEDULES[name])
    config = toy_run(steps=STEPS, checkpoint_every=8, optimizer=optimizer)
    for step in (3, 20):  # the first is inside the warm-up
        with pytest.raises(Killed):
            run(tmp_path, config, step)
    run(tmp_path, config)
    assert rates(tmp_path) == curve(config)


@pytest.mark.parametrize("length", [STEPS // 2, STEPS])
def test_a_longer_run_keeps_its_curve_or_goes_on_with_a_longer_one(tmp_path, length):
    config = toy_run(steps=STEPS // 2)
    run(tmp_path, config)
    longer = toy_run(steps=STEPS, optimizer=config.optimizer.model_copy(update={"schedule_steps": length}))
    run(tmp_path, longer)
    assert rates(tmp_path) == curve(config) + curve(longer)[STEPS // 2 :]


def test_without_a_valid_checkpoint_a_run_says_what_is_wrong_with_each(tmp_path):
    run(tmp_path, toy_run())
    folder = tmp_path / "checkpoints"
    (folder / "step-12" / "manifest.json").unlink()
    weights = folder / "step-8" / "counters.json"
    weights.write_bytes(weights.read_bytes()[:-1])
    size = weights.stat().st_size
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, toy_run())
    assert str(caught.value) == (
        f"{folder}: no valid checkpoint ("
        f"{folder}/step-12/manifest.json: missing, the checkpoint is incomplete; "
        f"{folder}/step-8/counters.json: {size} bytes, expected {size + 1}; it was cut or replaced); "
        "restore one of them, or choose another --output to start anew"
    )
