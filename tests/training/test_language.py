"""The text encoder learns what it is asked, from the same numbers every time, and is saved as it is loaded."""

import pytest
import torch

from nova.text import encode_text, load_text_encoder, load_tokenizer
from nova.training.config import OptimizerConfig
from nova.training.language import (
    LanguageRun,
    LanguageSize,
    TokenBatch,
    export_text_encoder,
    language_task,
    new_language_model,
    targets,
    to_tokens,
    world_tokenizer,
)
from nova.training.train import train


@pytest.fixture
def config() -> LanguageRun:
    return LanguageRun(
        steps=40,
        batch_size=8,
        checkpoint_every=40,
        recall=2,
        model=LanguageSize(width=32, layers=1, heads=2),
        optimizer=OptimizerConfig(learning_rate=1e-2, ema_decay=0.9),
    )


def test_targets_are_the_tokens_ahead_and_behind_within_the_caption():
    batch = TokenBatch(torch.tensor([[5, 6, 7, 0, 0], [8, 0, 0, 0, 0]]), torch.tensor([4, 2]))
    none = -100
    assert targets(batch, 1).tolist() == [[6, 7, 0, none, none], [0, none, none, none, none]]
    assert targets(batch, 0).tolist() == [[5, 6, 7, none, none], [8, none, none, none, none]]
    assert targets(batch, -2).tolist() == [[none, none, 5, none, none], [none] * 5]


def test_captions_fill_a_batch():
    tokenizer = world_tokenizer()
    batch = to_tokens(tokenizer, ["a red 3", "up"])
    assert batch.lengths.tolist() == [4, 2]
    assert batch.ids.shape == (2, 4)
    assert batch.ids[0, :3].tolist() == tokenizer("a red 3")["input_ids"]
    assert (batch.ids[1, 1:] == tokenizer.eos_token_id).all()


def test_filling_changes_no_row(config):
    model, tokenizer = new_language_model(config).eval(), world_tokenizer()
    both = to_tokens(tokenizer, ["a red 3", "a red 3 moves right and a blue 5 moves up"])
    alone = to_tokens(tokenizer, ["a red 3"])
    with torch.no_grad():
        torch.testing.assert_close(model(both.ids)[0, :3], model(alone.ids)[0, :3])


def test_first_weights_batches_and_losses_follow_from_the_seed(config):
    first, second = new_language_model(config), new_language_model(config)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    tasks = [language_task(config, model) for model in (first, second)]
    losses = [task.objective(task.batch(3, range(8))).parts["loss"] for task in tasks]
    assert torch.equal(*losses)
    other = language_task(config.model_copy(update={"seed": 1}), first)
    assert other.batch(3, range(8)).ids.tolist() != tasks[0].batch(3, range(8)).ids.tolist()


def test_drawing_first_weights_leaves_the_global_generator_alone(config):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    new_language_model(config)
    assert torch.equal(torch.rand(3), expected)


def test_training_lowers_both_losses_and_the_encoder_is_saved_whole(config, tmp_path):
    model = new_language_model(config)
    task = language_task(config, model)
    with torch.no_grad():
        before = {name: float(value) for name, value in task.objective(task.batch(0, range(8))).parts.items()}
    train(task, config, tmp_path, quiet=True)
    with torch.no_grad():
        after = {name: float(value) for name, value in task.objective(task.batch(0, range(8))).parts.items()}
    assert all(after[name] < 0.8 * before[name] for name in ("loss", "next", "recall"))

    figures = export_text_encoder(model.eval(), config, tmp_path / "model")
    assert set(figures) == {f"{s}_{f}" for s in ("test", "held_out") for f in ("next_loss", "recalled")}
    assert 0 <= figures["test_recalled"] <= 1
    tokenizer, encoder = (
        load_tokenizer(tmp_path / "model" / "tokenizer"),
        load_text_encoder(tmp_path / "model" / "text_encoder"),
    )
    (rows,) = encode_text(tokenizer, encoder, ["a red 3 moves right"], 64)
    ids = to_tokens(world_tokenizer(), ["a red 3 moves right"]).ids[:, :-1]
    with torch.no_grad():
        torch.testing.assert_close(rows, model(ids)[0])
