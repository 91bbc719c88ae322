import pytest
import torch

from nova.models.conditioning import Prompts
from tests import tiny


def test_rows_after_a_prompt_and_the_null_prompt_come_from_the_stored_table() -> None:
    text = tiny.model().text
    features = torch.randn(2, 16, dtype=torch.float64)
    rows = text.rows([features, features[:0]])
    assert torch.equal(rows[0, :2], features)
    assert torch.equal(rows[0, 2:], text.null_rows[2:6])
    assert torch.equal(rows[1], text.null_rows[:6])


def test_a_prompt_longer_than_the_block_is_cut() -> None:
    text = tiny.model().text
    features = torch.randn(9, 16, dtype=torch.float64)
    assert torch.equal(text.rows([features])[0], features[:6])


def test_the_stored_table_is_saved_but_not_learned() -> None:
    model = tiny.model()
    assert "text.null_rows" in model.state_dict()
    assert "text.null_rows" not in dict(model.named_parameters())


def test_motion_and_frame_rate_are_two_tokens_that_matter_to_video_models_only() -> None:
    video, image = tiny.model(), tiny.model(latent_frames=1)
    rows, scalars = tiny.condition(video), torch.tensor([1.0, 5.0], dtype=torch.float64)
    with torch.no_grad():
        tokens = video.prompt(rows, scalars, scalars)
        other = video.prompt(rows, scalars + 1, scalars)
    assert tokens.shape[1] == 6 + 2
    assert (tokens != other).any(-1)[0].tolist() == [False] * 6 + [True, False]
    assert image.prompt(rows, scalars, scalars).shape[1] == 6


def test_labels_make_one_token() -> None:
    model = tiny.model(text_dim=None, classes=10, latent_frames=1)
    assert model.prompt(torch.tensor([3, 10])).shape == (2, 1, 32)


@pytest.mark.parametrize("part", [slice(None), slice(1), slice(1, 2), slice(1, 3)])
def test_some_of_the_samples_have_their_own_prompts_and_no_others(part: slice) -> None:
    prompts = Prompts(torch.tensor([10, 11, 12, 13]), ((1, 0, 1), (2, 3, 3)))
    some = prompts[part]
    assert torch.equal(some.rows[torch.tensor(some.index)], torch.tensor([[11, 10, 11], [12, 13, 13]])[:, part])
    assert len(some.rows) == len(some.rows.unique()) == len({row for branch in some.index for row in branch})
    assert len(some) == len(some.index[0])


def test_a_tensor_of_prompts_shares_nothing() -> None:
    tensor = torch.randn(3, 2, 6, 32)
    prompts = Prompts.unshared(tensor)
    assert len(prompts.rows) == 6
    assert torch.equal(prompts.rows[torch.tensor(prompts.index)], tensor)
