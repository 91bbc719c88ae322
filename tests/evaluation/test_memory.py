"""Computed memory of a generation: weights as they are, and what it takes to make the paper's video on a small card."""

import json

import torch

from nova.autoencoders.video import VideoAutoencoder
from nova.evaluation.memory import Memory, Part, generation_memory
from nova.models.config import published_size
from nova.models.nova import NovaTransformer
from nova.text import unloaded_text_encoder
from tests import tiny

GIB = 2**30


def test_weights_are_counted_in_the_precision_asked_for():
    pipe = tiny.pipeline()
    counts = [sum(p.numel() for p in (*m.parameters(), *m.buffers())) for m in (pipe.transformer, pipe.vae)]
    sizes = []
    for dtype, width in ((torch.bfloat16, 2), (torch.float32, 4)):
        found = generation_memory(tiny.pipeline().transformer, tiny.pipeline().vae, None, dtype, sliced=False)
        assert [part.weights for part in found.parts] == [width * count for count in counts]
        sizes.append([part.working for part in found.parts])
    assert all(half < full for half, full in zip(*sizes, strict=True))


def test_offload_holds_one_part_at_a_time():
    memory = Memory((Part("a", 5, 1), Part("b", 2, 3), Part("c", 1, 6)))
    assert memory.together == 8 + 3 + 6  # the last two at the same time
    assert Memory((Part("a", 5, 10), *memory.parts[1:])).together == 8 + 10
    assert memory.offloaded == 7


def test_the_480p_video_fits_a_card_of_8_gb_with_offload_only(tmp_path):
    phi = {"vocab_size": 51200, "hidden_size": 2560, "intermediate_size": 10240}
    layers = {"num_hidden_layers": 32, "num_attention_heads": 32}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "phi", **phi, **layers}))
    found = {}
    for sliced in (False, True):
        with torch.device("meta"):
            network = NovaTransformer(published_size("0.6B", height=480, width=768, latent_frames=9))
            autoencoder = VideoAutoencoder()
        text = unloaded_text_encoder(tmp_path)
        found[sliced] = generation_memory(network, autoencoder, text, torch.bfloat16, sliced)
    assert found[False].together > 16 * GIB
    assert found[True].offloaded < 6.5 * GIB < found[False].offloaded
