import pytest

from nova.errors import UsageError
from nova.models.config import NovaConfig, published_size
from nova.models.nova import NovaTransformer
from tests import tiny


def test_saved_fields_make_the_same_config() -> None:
    config = tiny.config(scale_shift=True, scale_shift_rank=4)
    assert NovaConfig.from_dict(config.to_dict()) == config


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"classes": 5}, "text_dim"),
        ({"text_dim": None}, "text_dim"),
        ({"heads": 5}, "width"),
        ({"latent_height": 10}, "latent_height"),
        ({"rotary": True}, "heads"),
        ({"scale_shift_rank": 4}, "scale_shift_rank"),
    ],
)
def test_impossible_shapes_name_their_field(changes: dict[str, object], field: str) -> None:
    with pytest.raises(UsageError, match=field):
        tiny.config(**changes)


def test_a_misspelt_field_suggests_the_right_one() -> None:
    with pytest.raises(UsageError, match="denoiser_width"):
        NovaConfig.from_dict({**tiny.config().to_dict(), "denoiser_widht": 3})


@pytest.mark.parametrize(("name", "millions"), [("0.3B", 364), ("0.6B", 646), ("1.4B", 1450)])
def test_published_sizes_have_the_published_number_of_parameters(name: str, millions: int) -> None:
    import torch

    video = name == "0.6B"
    config = published_size(
        name, height=480 if video else 1024, width=768 if video else 1024, latent_frames=9 if video else 1
    )
    with torch.device("meta"):
        model = NovaTransformer(config)
    assert sum(parameter.numel() for parameter in model.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)
