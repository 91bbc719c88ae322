import torch

from nova.randomness import generator_for, normal

CPU = torch.device("cpu")


def test_one_generator_per_sample_makes_samples_independent_of_their_batch() -> None:
    def seeds(*numbers: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(number) for number in numbers]

    together = normal((3, 4, 5), seeds(7, 8, 9), CPU)
    alone = normal((1, 4, 5), seeds(8), CPU)
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


def test_one_generator_draws_for_the_batch_as_torch_does() -> None:
    drawn = normal((2, 4, 8), torch.Generator().manual_seed(3), CPU)
    assert torch.equal(drawn, torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(3)))


def test_generator_for_is_a_function_of_its_key() -> None:
    def first(*key: int | str) -> float:
        return torch.rand((), generator=generator_for(*key)).item()

    assert first(1, "noise", 5) == first(1, "noise", 5)
    assert len({first(1, "noise", 5), first(2, "noise", 5), first(1, "mask", 5), first(1, "noise", 6)}) == 4
