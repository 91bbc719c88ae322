"""A model with LoRA starts as the function it was, learns through its factors alone, and says what it cannot target."""

import pytest
import torch
from pydantic import ValidationError

from nova.checkpoints.lora import load_lora
from nova.errors import UsageError
from nova.training.lora import LoraSettings, add_lora, export_lora
from tests import tiny


def outputs(model):
    """Conditions of three frames."""
    frames = torch.linspace(-1, 1, 2 * 3 * 6 * 64, dtype=model.dtype).reshape(2, 3, 6, 64)
    return model.temporal(frames, tiny.prompt(model).to(model.dtype), (2, 3))


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_run_starts_with_the_function_it_was_given():
    model = add_lora(tiny.model(), LoraSettings(rank=4), seed=0)
    assert torch.equal(outputs(model), outputs(tiny.model()))


def test_only_the_factors_of_all_blocks_are_trained():
    model = add_lora(tiny.model(), LoraSettings(rank=4), seed=0)
    blocks = [
        *(f"temporal.blocks.{i}" for i in range(2)),
        "spatial.encoder.0",
        *(f"spatial.decoder.{i}" for i in (0, 1)),
    ]
    layers = [f"{block}.{name}" for block in blocks for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    assert trained(model) == {f"{layer}.lora_{half}.default.weight" for layer in layers for half in "AB"}
    outputs(model).square().sum().backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert moved == {name for name in trained(model) if name.startswith("temporal.")}


def test_patterns_choose_the_layers():
    model = add_lora(tiny.model(), LoraSettings(targets=("denoiser.*", "*.qkv")), seed=0)
    layers = {name.rpartition(".lora_")[0] for name in trained(model)}
    assert all(name.startswith("denoiser.") or name.endswith(".qkv") for name in layers)
    assert {"denoiser.modulation", "spatial.encoder.0.attn.qkv"} <= layers


def factors(seed):
    model = tiny.model()
    before = torch.get_rng_state()
    add_lora(model, LoraSettings(rank=2), seed)
    assert torch.equal(torch.get_rng_state(), before)
    return torch.cat([model.get_parameter(name).flatten() for name in sorted(trained(model))])


def test_first_factors_follow_from_the_seed_alone():
    assert torch.equal(factors(3), factors(3))
    assert not torch.equal(factors(3), factors(4))


@pytest.mark.parametrize(("settings", "scale"), [({"rank": 4}, 1), ({"rank": 4, "alpha": 2}, 0.5)])
def test_the_product_of_the_factors_is_scaled_by_alpha_over_rank(settings, scale):
    target = "temporal.blocks.0.mlp.fc1"
    model = add_lora(tiny.model(), LoraSettings(targets=(target,), **settings), seed=0)
    layer, x = model.get_submodule(target), torch.randn(5, 32, dtype=torch.float64)
    torch.nn.init.normal_(layer.lora_B["default"].weight)
    added = x @ layer.lora_A["default"].weight.T @ layer.lora_B["default"].weight.T
    torch.testing.assert_close(layer(x), layer.base_layer(x) + scale * added)


def test_wrong_settings_are_named():
    with pytest.raises(UsageError, match=r"lora.targets: 'spatial.encodr.\*' matches no linear layer"):
        add_lora(tiny.model(), LoraSettings(targets=("spatial.encodr.*",)), seed=0)
    with pytest.raises(ValidationError):
        LoraSettings(rank=0)
    with pytest.raises(ValidationError):
        LoraSettings(dropout=0.1)


def test_what_is_exported_is_the_adapter_and_a_plain_model(tmp_path):
    model = add_lora(tiny.model(), LoraSettings(rank=2), seed=0)
    for name in trained(model):
        torch.nn.init.normal_(model.get_parameter(name), std=0.1)
    before = outputs(model).detach()
    plain = export_lora(model, tmp_path / "adapter")
    assert list(plain.state_dict()) == list(tiny.model().state_dict())
    torch.testing.assert_close(outputs(plain), before)
    torch.testing.assert_close(outputs(load_lora(tiny.model(), tmp_path / "adapter")), before)
    export_lora(add_lora(tiny.model(), LoraSettings(rank=3), seed=0), tmp_path / "adapter")
    assert "lora_A" in "".join(load_lora(tiny.model(), tmp_path / "adapter").state_dict())
