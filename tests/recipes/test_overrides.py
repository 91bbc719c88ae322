"""`field=value` changes what it names, and nothing is accepted that is not understood."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova.errors import UsageError
from nova.recipes.digits import digits_tiny
from nova.recipes.overrides import override


def test_fields_change_at_every_depth():
    config = override(
        digits_tiny(),
        ["steps=7", "optimizer.learning_rate=3e-5", "initial.seed=4", "autoencoder.model.norm_num_groups=2"],
    )
    assert (config.steps, config.optimizer.learning_rate) == (7, 3e-5)
    assert config.initial.seed == 4
    assert config.autoencoder.model.norm_num_groups == 2
    assert config.text_encoder == digits_tiny().text_encoder


def test_no_settings_change_nothing():
    assert override(digits_tiny(), []) == digits_tiny()


@pytest.mark.parametrize(
    ("value", "expected"), [("runs/a b", "runs/a b"), ("null", None), ("12", "12"), ("a=b", "a=b")]
)
def test_text_stays_text(value, expected):
    assert override(digits_tiny(), [f"text_encoder={value}"]).text_encoder == expected


def test_a_setting_never_changes_the_recipe():
    config = digits_tiny()
    before = config.model_dump()
    override(config, ["optimizer.learning_rate=1", "initial.steps=9"])
    assert config.model_dump() == before


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stepps=3", "unknown field 'stepps' of TransformerRun; did you mean 'steps'"),
        ("optimizer.learning_rat=3", "unknown field 'learning_rat' of OptimizerConfig; did you mean 'learning_rate'"),
        ("steps.more=3", "field 'steps' of TransformerRun has no fields"),
        ("steps", "'steps' is not a setting; write field=value"),
        ("steps=0", "steps: found 0; .*greater than or equal to 1"),
        ("steps=many", "steps: found 'many'"),
        ("precision=float8", "precision: found 'float8'"),
        ("optimizer.beta2=1", r"optimizer.beta2: found 1"),
        ("initial.model.width=a", r"initial.*model.width: found 'a'"),
    ],
)
def test_what_is_not_understood_is_named(setting, message):
    with pytest.raises(UsageError, match=message) as raised:
        override(digits_tiny(), [setting])
    assert "\n" not in str(raised.value)


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_setting_is_understood_or_refused(name, value):
    with contextlib.suppress(UsageError):
        override(digits_tiny(), [f"{name}={value}"])


def test_a_part_that_is_off_is_switched_on_by_one_of_its_fields():
    config = override(digits_tiny(), ["lora.rank=4", "lora.alpha=8"])
    assert (config.lora.rank, config.lora.alpha) == (4, 8)
    assert override(config, ["lora=null"]) == digits_tiny()
    with pytest.raises(UsageError, match="unknown field 'ranc' of LoraSettings; did you mean 'rank'"):
        override(digits_tiny(), ["lora.ranc=4"])
    with pytest.raises(UsageError, match="field 'micro_batch' of TransformerRun has no fields"):
        override(digits_tiny(), ["micro_batch.size=4"])
