import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from nova.errors import CheckpointError
from nova.weights import load_into, read_shapes, read_weights

WEIGHTS = {"weight": torch.arange(12.0).view(3, 4), "bias": torch.ones(3)}


def write(folder: Path, name: str = "model.safetensors", weights: dict[str, torch.Tensor] = WEIGHTS) -> Path:
    save_file(weights, folder / name)
    return folder / name


@pytest.mark.parametrize(
    "name", ["model.safetensors", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors"]
)
def test_whole_files_and_variants_are_read(tmp_path: Path, name: str) -> None:
    write(tmp_path, name)
    assert torch.equal(read_weights(tmp_path)["weight"], WEIGHTS["weight"])
    assert read_shapes(tmp_path)["weight"] == ((3, 4), "F32")


def test_shards_are_read_through_their_index(tmp_path: Path) -> None:
    write(tmp_path, "model-1.safetensors", {"weight": WEIGHTS["weight"]})
    write(tmp_path, "model-2.safetensors", {"bias": WEIGHTS["bias"]})
    index = {"weight_map": {"weight": "model-1.safetensors", "bias": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert read_weights(tmp_path).keys() == WEIGHTS.keys()
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-2.safetensors"):
        read_weights(tmp_path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    content = path.read_bytes()
    for size in range(0, len(content), 7):
        path.write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"model\.safetensors"):
            read_weights(tmp_path)


def test_pickles_pointers_and_nothing_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="download"):
        read_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match="convert"):
        read_weights(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        read_weights(tmp_path)
    with pytest.raises(CheckpointError, match="missing"):
        read_weights(tmp_path / "nothing")


def test_weights_must_fit_exactly() -> None:
    def load(**changes: torch.Tensor | None) -> nn.Linear:
        weights = {name: value for name, value in (WEIGHTS | changes).items() if value is not None}
        with torch.device("meta"):
            module = nn.Linear(4, 3)
        return load_into(module, weights, Path("folder"), torch.float16)

    assert load().weight.dtype == torch.float16
    assert torch.equal(load().bias, torch.ones(3).half())
    with pytest.raises(CheckpointError, match="1 missing.*bias"):
        load(bias=None)
    with pytest.raises(CheckpointError, match="1 unexpected.*scale"):
        load(scale=torch.ones(1))
    with pytest.raises(CheckpointError, match=r"weight has shape \(4, 3\)"):
        load(weight=torch.ones(4, 3))
