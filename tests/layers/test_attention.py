import torch

from nova.layers.attention import Attention
from nova.layers.positions import rotary_angles


def test_blocks_in_one_pass_equal_blocks_one_after_another() -> None:
    torch.manual_seed(0)
    attention = Attention(64, 2).double()
    x = torch.randn(2, 9, 64, dtype=torch.float64)
    positions = torch.randint(0, 5, (1, 9, 3))
    whole, _ = attention(x, rotary_angles(positions, 32), blocks=(4, 2, 3))
    parts, past = [], None
    for part, places in zip(x.split((4, 2, 3), dim=1), positions.split((4, 2, 3), dim=1), strict=True):
        output, kept = attention(part, rotary_angles(places, 32), past, keep=True)
        parts.append(output)
        past = kept if past is None else tuple(torch.cat(both, dim=2) for both in zip(past, kept, strict=True))
    assert torch.allclose(whole, torch.cat(parts, dim=1), atol=1e-12)


def test_a_block_sees_all_of_itself_and_nothing_after_it() -> None:
    torch.manual_seed(0)
    attention = Attention(64, 2).double()
    x = torch.randn(1, 6, 64, dtype=torch.float64, requires_grad=True)
    output, _ = attention(x, blocks=(2, 2, 2))
    (gradient,) = torch.autograd.grad(output[:, 2].sum(), x)
    assert (gradient[0, :4].abs().sum(-1) > 0).all()
    assert (gradient[0, 4:] == 0).all()
