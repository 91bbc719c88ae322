"""Decoding in slices computes the same, and holds less."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from nova.autoencoders.video import VideoAutoencoder
from nova.training.rehearsal import Account

WIDTHS = (8, 16, 32, 32)


def model() -> VideoAutoencoder:
    torch.manual_seed(0)
    network = VideoAutoencoder(block_out_channels=WIDTHS, norm_num_groups=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("batch", [1, 2])
def test_it_is_the_same_function(frames: int, batch: int) -> None:
    network = model().double()
    latents = torch.randn(batch, 4, frames, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = network.decode_window(latents)
        network.enable_slicing()
        sliced = network.decode_window(latents)
        network.disable_slicing()
        assert torch.equal(network.decode_window(latents), whole)
    assert sliced.shape == (batch, 3, 4 * frames - 3, 24, 40)
    assert (sliced - whole).abs().max() < 1e-5 * whole.abs().max()  # norms are taken in float32


def test_half_precision_is_as_near_to_the_truth() -> None:
    network = model()
    latents = torch.randn(1, 4, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        truth = network.decode_window(latents)
        network.bfloat16()
        errors = []
        for prepare in (network.disable_slicing, network.enable_slicing):
            prepare()
            errors.append((network.decode_window(latents.bfloat16()).float() - truth).norm() / truth.norm())
    assert errors[1] < 1.2 * errors[0] < 0.1


def test_it_holds_little_more_than_half() -> None:
    peaks = []
    for sliced in (False, True):
        mode, account = FakeTensorMode(), Account()
        with mode:
            network = VideoAutoencoder(block_out_channels=(32, 64, 64, 64)).eval()
            network.use_slicing = sliced
        account.leave_out(network)
        with mode, account, torch.no_grad():
            network.decode_window(torch.empty(1, 4, 5, 16, 16))
        peaks.append(account.peak)
    assert peaks[1] < 0.55 * peaks[0]
