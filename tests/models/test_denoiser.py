import torch

from tests import tiny


def test_branches_share_noisy_tokens_by_broadcasting() -> None:
    denoiser = tiny.model().denoiser
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 5, 16, generator=generator, dtype=torch.float64)
    features = torch.randn(3, 2, 5, 32, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        time = denoiser.times(torch.tensor(400.0))
        together = denoiser.predict(noisy, denoiser.modulations(time, denoiser.condition(features)))
        for branch in range(3):
            alone = denoiser.predict(noisy, denoiser.modulations(time, denoiser.condition(features[branch])))
            assert torch.allclose(together[branch], alone, atol=1e-10)


def test_each_token_is_predicted_by_itself() -> None:
    denoiser = tiny.model().denoiser
    generator = torch.Generator().manual_seed(0)
    noisy = torch.randn(1, 5, 16, generator=generator, dtype=torch.float64)
    condition = denoiser.condition(torch.randn(1, 5, 32, generator=generator, dtype=torch.float64))
    time = denoiser.times(torch.tensor(400.0))
    changed = noisy.clone()
    changed[0, 2] += 1
    with torch.no_grad():
        difference = (
            (
                denoiser.predict(noisy, denoiser.modulations(time, condition))
                - denoiser.predict(changed, denoiser.modulations(time, condition))
            )
            .abs()
            .amax(-1)[0]
        )
    assert (difference > 1e-8).tolist() == [False, False, True, False, False]


def test_times_matter() -> None:
    denoiser = tiny.model().denoiser
    with torch.no_grad():
        early, late = denoiser.times(torch.tensor([10.0, 900.0]))
    assert not torch.allclose(early, late)
