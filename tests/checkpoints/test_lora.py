"""An adapter comes back as it was saved, adds what its matrices say, and folds into weights that compute the same."""

import json
import shutil

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from nova.checkpoints.lora import CONFIG, WEIGHTS, load_lora, merge_lora, save_lora
from nova.errors import CheckpointError
from nova.training.lora import LoraSettings, add_lora
from tests import tiny

FIRST = "base_model.model.spatial.decoder.0.attn.proj.lora_A.weight"


def conditions(model):
    """What the temporal encoder makes of three frames and a prompt."""
    frames = torch.linspace(-1, 1, 2 * 3 * 6 * 64, dtype=model.dtype).reshape(2, 3, 6, 64)
    return model.temporal(frames, tiny.prompt(model).to(model.dtype), (2, 3)).detach()


def features(model):
    """What the spatial encoder makes of a frame with ten known tokens."""
    tokens = torch.linspace(-1, 1, 2 * 24 * 16, dtype=model.dtype).reshape(2, 24, 16)
    known = torch.arange(10).expand(2, -1)
    condition = conditions(model)[:, 0].unsqueeze(0)
    return model.spatial(tokens, known, condition, model.spatial.places((4, 6), 6)).detach()


def adapted(dtype=torch.float64):
    """A model whose adapter, on one part of it only, makes a difference."""
    model = add_lora(tiny.model(dtype), LoraSettings(rank=3, alpha=6, targets=("spatial.*coder.*",)), seed=5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The adapter's folder."""
    save_lora(adapted(), folder := tmp_path_factory.mktemp("adapter"))
    return folder


def test_a_loaded_adapter_is_the_saved_one(folder):
    loaded = load_lora(tiny.model(), folder)
    assert not torch.equal(features(loaded), features(tiny.model()))
    torch.testing.assert_close(features(loaded), features(adapted()), rtol=1e-12, atol=1e-12)
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in adapted().named_parameters()]


def test_peft_itself_reads_it(folder):
    loaded = peft.PeftModel.from_pretrained(tiny.model(), folder)
    torch.testing.assert_close(features(loaded.base_model.model), features(adapted()), rtol=1e-12, atol=1e-12)


def test_the_same_adapter_is_the_same_bytes(folder, tmp_path):
    save_lora(load_lora(tiny.model(), folder), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


@pytest.mark.parametrize(("dtype", "difference"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_merging_keeps_the_function_and_restores_the_names(dtype, difference):
    model = adapted(dtype)
    before = features(model)
    assert merge_lora(model) is model
    assert model.state_dict().keys() == tiny.model().state_dict().keys()
    assert not hasattr(model, "peft_config")
    torch.testing.assert_close(features(model), before, atol=difference, rtol=difference)
    assert not torch.equal(features(model), features(tiny.model(dtype)))


def test_what_an_adapter_does_not_name_stays(folder):
    merged, plain = merge_lora(load_lora(tiny.model(), folder)).state_dict(), tiny.model().state_dict()
    changed = {name for name in plain if not torch.equal(merged[name], plain[name])}
    layers = ("attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight")
    blocks = ("spatial.encoder.", "spatial.decoder.")
    assert changed == {name for name in plain if name.startswith(blocks) and name.endswith(layers)}


@pytest.fixture
def copied(folder, tmp_path):
    """A copy of the adapter's folder, to be spoiled."""
    return shutil.copytree(folder, tmp_path / "copy")


def refused(folder, said):
    """Whether loading says so, in one line, and leaves the model as it was."""
    model = tiny.model()
    names = list(model.state_dict())
    with pytest.raises(CheckpointError, match=said) as raised:
        load_lora(model, folder)
    assert "\n" not in str(raised.value)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"use_dora": True}, "use_dora is True; only plain LoRA"),
        ({"rank_pattern": {"qkv": 9}}, "rank_pattern"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_co"),
        ({"some_new_thing": "on"}, "some_new_thing is 'on'"),
        ({"r": 0}, "r is 0"),
        ({"r": 4}, "expected \\(4, 32\\)"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
    ],
)
def test_a_config_of_another_kind_is_refused(copied, change, said):
    fields = json.loads((copied / CONFIG).read_text())
    (copied / CONFIG).write_text(json.dumps(fields | change))
    refused(copied, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors: tensors.pop(FIRST), "proj.lora_A.weight is missing"),
        (lambda tensors: tensors.update({FIRST: torch.zeros(3, 31)}), "is \\(3, 31\\), expected \\(3, 32\\)"),
        (lambda tensors: tensors.update({"unet.lora_A.weight": torch.zeros(3, 3)}), "unet.lora_A.weight fits no layer"),
        (lambda tensors: tensors.update({"spatial.norm.weight": torch.zeros(3)}), "spatial.norm.weight fits no layer"),
    ],
)
def test_weights_of_another_model_are_refused(copied, change, said):
    tensors = load_file(copied / WEIGHTS)
    change(tensors)
    save_file(tensors, copied / WEIGHTS)
    refused(copied, said)


def test_what_is_damaged_or_missing_is_named(copied):
    whole = (copied / WEIGHTS).read_bytes()
    (copied / WEIGHTS).write_bytes(whole[:-1])
    refused(copied, f"{WEIGHTS}: damaged")
    (copied / WEIGHTS).unlink()
    refused(copied, f"{WEIGHTS}: missing")
    (copied / CONFIG).unlink()
    refused(copied, f"{CONFIG}: missing")
