"""No secret passes, and what is none stays as it is."""

import pytest

from nova.training.redact import HIDDEN, redacted

CANARY = "canary0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        f"nova train x --api-key {CANARY}",
        f"nova train x --token={CANARY} steps=3",
        f"WANDB_API_KEY={CANARY}",
        f"failed: invalid token: {CANARY}, try again",
        f"https://someone:{CANARY}@example.org/x",
        f"401 for hf_{CANARY}",
        f"password='{CANARY}'",
    ],
)
def test_what_looks_like_a_secret_is_hidden(text):
    assert CANARY not in redacted(text)
    assert HIDDEN in redacted(text)


def test_values_of_secret_variables_are_hidden_wherever_they_stand(monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    monkeypatch.setenv("HARMLESS", "steps")
    assert redacted(f"cannot reach {CANARY}/path with steps") == f"cannot reach {HIDDEN}/path with steps"


def test_a_plain_command_stays():
    command = "nova train digits-tiny --output runs/tiny model.text_tokens=48 optimizer.learning_rate=1e-3"
    assert redacted(command) == command
