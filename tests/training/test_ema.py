"""The average follows its formula in float32 whatever the weights' type, and touches nothing else."""

import torch

from nova.training.ema import Ema
from tests.training.toy import toy


def test_the_average_is_its_formula():
    model = toy().double()
    average = Ema.of(model, decay=0.3)
    expected = model.inner.weight.detach().clone()
    generator = torch.Generator().manual_seed(0)
    for update in range(5):
        with torch.no_grad():
            model.inner.weight.add_(torch.randn(4, 4, generator=generator))
        average.update(model)
        decay = min(0.3, (1 + update) / (10 + update))
        expected = decay * expected + (1 - decay) * model.inner.weight.detach()
    torch.testing.assert_close(average.shadows["inner.weight"].double(), expected, atol=1e-6, rtol=0)
    assert average.updates == 5


def test_shadows_are_float32_and_see_steps_that_bfloat16_cannot():
    model = toy().bfloat16()
    average = Ema(0.999, Ema.of(model, 0.999).shadows, updates=10**6)
    before = average.shadows["inner.weight"].clone()
    with torch.no_grad():
        model.inner.weight.mul_(1.05)
    average.update(model)
    assert average.shadows["inner.weight"].dtype == torch.float32
    changed = (average.shadows["inner.weight"] - before).abs()
    assert (changed > 0).all()
    assert (changed < 1e-3 * before.abs()).all()
