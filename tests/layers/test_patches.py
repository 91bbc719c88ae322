import torch

from nova.layers.patches import patchify, unpatchify


def test_unpatchify_inverts_patchify_for_any_leading_axes() -> None:
    for lead in ((), (2,), (2, 3)):
        frames = torch.randn(*lead, 4, 8, 12)
        for patch in (1, 2, 4):
            tokens = patchify(frames, patch)
            assert tokens.shape == (*lead, (8 // patch) * (12 // patch), patch**2 * 4)
            assert torch.equal(unpatchify(tokens, patch, 8, 12), frames)


def test_numbers_run_row_column_channel_and_tokens_row_by_row() -> None:
    rows = torch.arange(4.0).view(1, 4, 1).expand(2, 4, 6)
    columns = torch.arange(6.0).view(1, 1, 6).expand(2, 4, 6)
    channel = torch.tensor([0.0, 100.0]).view(2, 1, 1)
    tokens = patchify(rows * 10 + columns + channel, 2)
    assert tokens[1].tolist() == [2, 102, 3, 103, 12, 112, 13, 113]
    assert tokens[3, 0] == 20
