"""What is held out is never trained on, and its loss depends on nothing but the model."""

import pytest
import torch

from nova.autoencoders.adapter import Autoencoder
from nova.errors import UsageError
from nova.training.heldout import EDGES, _groups, held_out_loss, split
from nova.training.objective import TokenErrors
from nova.training.transformer import new_transformer, transformer_task
from tests.training.samples import TEXT_DIM, Samples, latent_run, small_autoencoder


def names(part):
    return [part.where(bucket, index) for bucket, count in enumerate(part.counts) for index in range(count)]


@pytest.mark.parametrize("counts", [(40,), (40, 17, 3), (1, 1, 1, 1, 1, 1), (1, 100)])
@pytest.mark.parametrize("share", [0, 1, 3])
def test_every_sample_is_on_one_side(counts, share):
    samples = Samples(counts)
    training, held = split(samples, share)
    assert sum(held.counts) == share
    assert sorted(names(training) + names(held)) == sorted(names(samples))
    for part in (training, held):
        assert 0 not in part.counts
        for bucket, shape in enumerate(part.buckets):
            assert part.get(bucket, 0).moments.shape == shape
            assert part.get(bucket, 0).id == part.where(bucket, 0)


def test_the_same_samples_are_held_out_every_time_and_not_the_last_ones():
    first, second = (names(split(Samples((100, 60)), 16)[1]) for _ in range(2))
    assert first == second
    assert sum(name.startswith("0/") for name in first) == 10
    assert set(first) != {*(f"0/{index}" for index in range(90, 100)), *(f"1/{index}" for index in range(54, 60))}


def test_at_most_half_can_be_held_out():
    with pytest.raises(UsageError, match="observe.held_out: 6 of 10 samples"):
        split(Samples((4, 6)), 6)


@pytest.fixture(scope="module")
def autoencoder():
    return Autoencoder(small_autoencoder())


def model_and_samples(frames, labels=False):
    samples = Samples((3, 2), frames, labels)
    size = {"classes": 3, "scale_shift_rank": None} if labels else {}
    config = latent_run(mask_low=0.2, mask_std=1.0, first_weight=2.0, caption_dropout=0.0)
    config = config.model_copy(update={"model": config.model.model_copy(update=size)})
    return config, new_transformer(config, (4, frames, 4, 4), None if labels else TEXT_DIM, None).eval(), samples


@pytest.mark.parametrize(("frames", "labels"), [(1, False), (3, False), (1, True)])
def test_it_is_the_loss_of_training(autoencoder, frames, labels):
    config, model, samples = model_and_samples(frames, labels)
    found = held_out_loss(config, model, samples, autoencoder)
    task = transformer_task(config.model_copy(update={"batch_size": 1}), model, samples, autoencoder)
    sums = [task.objective(task.batch(step, range(1))) for step in range(5)]
    weight = sum(one.weight for one in sums)
    for name in sums[0].parts:
        mean = sum(float(one.parts[name].detach()) for one in sums) / weight
        assert found[f"held_out/{name}"] == pytest.approx(mean, rel=1e-5)
    assert ("held_out/later" in found) == (frames > 1)


def test_it_disturbs_nothing_and_does_not_depend_on_the_run(autoencoder):
    config, model, samples = model_and_samples(2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    found = held_out_loss(config, model, samples, autoencoder)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    other = {"seed": 7, "batch_size": 4, "caption_dropout": 1.0, "motion_dropout": 1.0, "context_noise": 0.5}
    assert held_out_loss(config.model_copy(update=other), model, samples, autoencoder) == found
    with torch.no_grad():
        model.denoiser.get_parameter(next(name for name, _ in model.denoiser.named_parameters())).add_(0.1)
    assert held_out_loss(config, model, samples, autoencoder)["held_out/loss"] != found["held_out/loss"]


def test_every_error_has_one_noise_level_and_one_kind_of_frame():
    times = torch.tensor([[0.0, 249.9, 250.0, 500.0], [750.0, 999.0, 1000.0, 1.0]])
    found = _groups(TokenErrors(torch.zeros(2, 4), torch.tensor([0, 0, 1, 2])), times)
    levels = torch.stack([chosen for name, chosen in found.items() if "noise" in name]).int()
    assert levels.sum(dim=0).eq(1).all()
    assert levels.argmax(dim=0).tolist() == [[0, 0, 1, 2], [3, 3, 3, 0]]
    assert len(levels) == len(EDGES) - 1
    assert found["held_out/first"].tolist() == [[True, True, False, False]] * 2
    assert torch.equal(found["held_out/later"], ~found["held_out/first"])
