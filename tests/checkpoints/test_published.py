import json
from pathlib import Path

import pytest
import torch

from nova.checkpoints import published
from nova.checkpoints.folder import load_transformer
from nova.errors import CheckpointError
from nova.models.config import published_size
from nova.models.nova import NovaTransformer
from nova.weights import read_weights
from tests import tiny


def test_published_config_and_weights_survive_the_round_trip(record: Path) -> None:
    folder = record / "transformer"
    config = published.read_config(json.loads((folder / "config.json").read_text()))
    written = published.write_config(config)
    original = json.loads((folder / "config.json").read_text())
    assert {name: value for name, value in original.items() if name != "_diffusers_version"} == written

    weights = read_weights(folder)
    again = published.write_weights(published.read_weights(weights, config), config)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], value) for name, value in weights.items())
    model = load_transformer(folder, torch.float32)
    assert published.read_weights(weights, config).keys() == model.state_dict().keys()


@pytest.mark.parametrize("variant", tiny.VARIANTS)
def test_every_kind_of_model_can_be_written_and_read_back(variant: str) -> None:
    changes = {"width": 128, "heads": 2, "spatial_encoder_layers": 2} | tiny.VARIANTS[variant] | {"heads": 2}
    if changes.get("classes"):
        changes["classes"] = published.CLASSES
    else:
        changes["text_tokens"] = 6
    model = NovaTransformer(tiny.config(**changes))
    config = published.read_config(published.write_config(model.shape))
    assert config.to_dict() == model.shape.to_dict() | {"text_tokens": config.text_tokens}
    written = published.write_weights(model.state_dict(), model.shape)
    again = published.read_weights(written, config)
    assert again.keys() == model.state_dict().keys()
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_published_names_of_the_large_models_are_read() -> None:
    config = {
        "arch": ["vit_d16w1024", "vit_d32w1024", "mlp_d3w1280"],
        "image_dim": 4,
        "image_size": [480, 768],
        "image_stride": 8,
        "image_base_size": [30, 48],
        "video_base_size": [9, 15, 24],
        "video_mixer_rank": 24,
        "rotary_pos_embed": False,
        "text_token_dim": 2560,
        "text_token_len": 256,
    }
    ours = published.read_config(config)
    assert ours == published_size("0.6B", height=480, width=768, latent_frames=9)
    vanilla = published.read_config({**config, "video_mixer_rank": -1, "image_size": 512})
    assert (vanilla.scale_shift, vanilla.scale_shift_rank) == (True, None)
    assert (vanilla.latent_height, vanilla.latent_width) == (64, 64)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"arch": ["vit_d2w128", "vit_d4w64", "mlp_d3w160"]}, "widths 128 and 64"),
        ({"arch": ["vit_large", "vit_d4w64", "mlp_d3w160"]}, "vit_large"),
        ({"image_stride": None}, "published"),
    ],
)
def test_strange_configs_are_refused_by_name(changes: dict[str, object], found: str) -> None:
    config = published.write_config(published_size("0.3B"))
    with pytest.raises(CheckpointError, match=found):
        published.read_config({**config, **changes})


@pytest.mark.parametrize("changes", [{"heads": 1}, {"spatial_decoder_layers": 5}])
def test_what_the_published_layout_cannot_say_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(changes))):
        published.write_config(tiny.config(**({"width": 128, "heads": 2, "spatial_encoder_layers": 2} | changes)))
