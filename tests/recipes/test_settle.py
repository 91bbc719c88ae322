"""A run folder is gone on with by the same run only; what changes no number may change."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova.errors import UsageError
from nova.recipes.overrides import override, validated
from nova.recipes.settle import settle, settle_inputs
from nova.training.autoencoder import AutoencoderRun
from nova.training.config import OptimizerConfig, RunConfig
from nova.training.language import LanguageRun
from nova.training.lora import LoraSettings
from nova.training.optimizer import learning_rate
from nova.training.transformer import LatentData, TransformerRun


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


def flat(fields: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Dotted names and values of all fields of a config's dump."""
    if not isinstance(fields, dict):
        yield path, fields
        return
    for name, value in fields.items():
        yield from flat(value, f"{path}.{name}" if path else name)


def under(prefix: str, names: str) -> set[str]:
    return {prefix + name for name in names.split()}


ALLOWED = {
    *under("", "micro_batch workers worker_timeout sharding recompute compile checkpoint_every log_every"),
    *under("", "keep_checkpoints max_skipped trackers project steps optimizer.schedule_steps"),
    *under("observe.", "every prompts steps diffusion_steps guidance"),
}
BY_CONTENT = {"autoencoder", "text_encoder", "initial", "data.folder"}
REFUSED = {
    *under("", "batch_size seed precision freeze"),
    *under("optimizer.", "learning_rate schedule warmup_steps decay_fraction decay_every milestones final_fraction"),
    *under("optimizer.", "beta1 beta2 weight_decay clip_norm ema_decay ema_every"),
    *under("world.", "size frames seed hands grid"),
    *under("", "image_share recall crop_share crop_steps crop_frames kl_weight ink_weight amount_weight"),
    *under("model.", "block_out_channels latent_channels layers_per_block norm_num_groups layers width heads"),
    *under("model.", "temporal_layers spatial_encoder_layers spatial_decoder_layers denoiser_width denoiser_blocks"),
    *under("model.", "text_tokens scale_shift_rank rotary patch classes latent_frames latent_height latent_width"),
    *under("data.", "size frames seed hands grid clips"),
    *under("lora.", "rank alpha targets"),
    *under("", "diffusion caption_dropout motion_dropout repeats mask_std mask_low mask_per first_weight later_weight"),
    *under("", "context_noise observe.held_out"),
}
NAMES = {"kind", "data.kind"}
"""What tells configs apart; another one is another kind of run."""

WORDS = ("other", "float32", "bfloat16", "full", "blocks", "cosine", "sample", "ddpm")
VALUES = (True, 1, 3, 16, 0.25, 0.5, *WORDS, [], [0.5], [8], ["other"])
"""Among these is another value for every field."""
KINDS = (
    AutoencoderRun(steps=2, batch_size=2),
    LanguageRun(steps=2, batch_size=2),
    TransformerRun(steps=2, batch_size=2, lora=LoraSettings()),
    TransformerRun(steps=2, batch_size=2, data=LatentData(folder="latents")),
)


def otherwise(config: RunConfig, field: str) -> RunConfig:
    """A valid config that differs in one field."""
    for value in VALUES:
        with contextlib.suppress(UsageError):
            changed = override(config, [f"{field}={json.dumps(value)}"])
            if changed != config:
                return changed
    raise AssertionError(f"no other value for {field}: add one to VALUES")


def judged(config: RunConfig, field: str, folder: Path) -> str:
    """Whether the run that was started with `config` in `folder` goes on with a change of `field`."""
    try:
        line = settle(otherwise(config, field), folder)
    except UsageError as error:
        return "refused" if f"{field} " in str(error) else f"refused without its name: {error}"
    settle(config, folder)
    if line is None:
        return "compared by content"
    return "allowed" if f"{field} " in line else f"allowed without its name: {line}"


def test_every_field_is_refused_or_allowed_or_compared_by_content(tmp_path):
    found: dict[str, set[str]] = defaultdict(set)
    for number, config in enumerate(KINDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        settle(config, folder)
        for field in dict(flat(config.model_dump())).keys() - NAMES - {"lora"}:
            found[judged(config, field, folder)].add(field)
    assert found == {"refused": REFUSED, "allowed": ALLOWED, "compared by content": BY_CONTENT}
    print(", ".join(f"{len(names)} fields {verdict}" for verdict, names in found.items()))


def test_other_data_and_factors_where_there_were_none_are_refused(tmp_path):
    digits, latents = TransformerRun(steps=2, batch_size=2), KINDS[3]
    settle(digits, tmp_path)
    with pytest.raises(UsageError, match="data.kind 'digits' -> 'latents'"):
        settle(latents, tmp_path)
    with pytest.raises(UsageError, match="lora.rank None -> 16"):
        settle(override(digits, ["lora.rank=16"]), tmp_path)


def test_what_is_shown_may_change_but_not_what_is_held_out(tmp_path):
    run = TransformerRun(steps=100, batch_size=4)
    settle(run, tmp_path)
    settle(override(run, ["observe.every=7", "observe.guidance=1", 'observe.prompts=["a red 3"]']), tmp_path)
    with pytest.raises(UsageError, match=r"observe.held_out 0 -> 8"):
        settle(override(run, ["observe.held_out=8"]), tmp_path)


def test_what_changes_is_told(tmp_path, config):
    assert settle(config, tmp_path) is None
    assert settle(config, tmp_path) is None
    line = settle(override(config, ["log_every=1", "steps=200"]), tmp_path)
    assert line == f"{tmp_path}: goes on with log_every 10 -> 1, steps 100 -> 200"


def test_a_run_may_become_longer_while_its_past_rates_stay(tmp_path, config):
    settle(config, tmp_path)
    done(tmp_path, 60)
    settle(override(config, ["steps=200"]), tmp_path)


def test_a_run_does_not_become_shorter_than_it_is(tmp_path, config):
    settle(config, tmp_path)
    done(tmp_path, 60)
    with pytest.raises(UsageError, match="60 steps are done, more than steps=59"):
        settle(override(config, ["steps=59"]), tmp_path)
    settle(override(config, ["steps=60"]), tmp_path)


def test_a_cosine_may_be_stretched_silently_before_it_begins_to_fall_only(tmp_path, config):
    falling = override(config, ["optimizer.schedule=cosine", "optimizer.decay_fraction=0.5"])
    settle(falling, tmp_path)
    done(tmp_path, 40)
    settle(override(falling, ["steps=200"]), tmp_path)
    settle(falling, tmp_path)
    done(tmp_path, 60)
    with pytest.raises(UsageError, match="on a curve of 200 steps, not 100, the learning rate of the 60 steps done"):
        settle(override(falling, ["steps=200"]), tmp_path)


def test_a_longer_run_keeps_or_stretches_its_curve_by_choice(tmp_path, config):
    falling = override(config, ["optimizer.schedule=cosine"])
    settle(falling, tmp_path)
    done(tmp_path, 60)
    choice = "add optimizer.schedule_steps=100 to keep the curve .* or optimizer.schedule_steps=200 to go on"
    with pytest.raises(UsageError, match=choice):
        settle(override(falling, ["steps=200"]), tmp_path)
    kept = override(falling, ["steps=200", "optimizer.schedule_steps=100"])
    stretched = override(falling, ["steps=200", "optimizer.schedule_steps=200"])
    for chosen in (kept, stretched):
        line = settle(chosen, tmp_path)
        assert "optimizer.schedule_steps" in line
        assert validated(RunConfig, json.loads((tmp_path / "config.json").read_text())) == chosen
    rates = [[learning_rate(one.optimizer, step, one.steps) for step in (59, 60, 150)] for one in (falling, kept)]
    assert rates[0][:2] == rates[1][:2]
    assert rates[1][2] == 0.0


def test_a_run_goes_on_with_the_models_it_was_started_with(tmp_path):
    settle_inputs({"autoencoder": "a", "initial": "b"}, tmp_path)
    settle_inputs({"autoencoder": "a", "initial": "b"}, tmp_path)
    with pytest.raises(UsageError, match="initial changed"):
        settle_inputs({"autoencoder": "a", "initial": "c"}, tmp_path)
    with pytest.raises(UsageError, match="initial changed"):
        settle_inputs({"autoencoder": "a"}, tmp_path)


def test_changed_data_are_refused_with_counts_of_their_shards(tmp_path):
    before = {"data": "1", "data/a": "x", "data/b": "y", "data/c": "z"}
    settle_inputs(before, tmp_path)
    with pytest.raises(UsageError, match=r"data \(shards: 2 added, 1 removed, 1 changed\) changed since"):
        settle_inputs({"data": "2", "data/a": "x", "data/b": "Y", "data/d": "z", "data/e": "z"}, tmp_path)
    settle_inputs(before, tmp_path)


def test_a_run_from_before_shards_were_noted_goes_on(tmp_path):
    settle_inputs({"data": "1"}, tmp_path)
    with pytest.raises(UsageError, match="data changed since"):
        settle_inputs({"data": "2", "data/a": "x"}, tmp_path)
    settle_inputs({"data": "1", "data/a": "x"}, tmp_path)
