"""Shards made up for tests: every number of a sample follows from its index."""

import numpy as np

from nova.data.manifest import publish_manifest
from nova.data.samples import ShardSample
from nova.data.shards import Header, Model, write_shard

SMALL, WIDE = (4, 1, 2, 2), (4, 2, 2, 4)
AUTOENCODER = Model(id="digits", sha256="0" * 64)
HEADER = Header(autoencoder=AUTOENCODER, shift=(0.5,), scale=(2.0,), versions={"nova": "0.1"}, options={"size": 64})
WITH_TEXT = HEADER.model_copy(update={"text_encoder": Model(id="phi", sha256="1" * 64)})


def sample(index, shape=SMALL, text=False):
    """Sample `index`: one caption or two, and a label, motion and rate on some."""
    rng = np.random.default_rng(index)
    captions = (f"clip {index}", f"Ziffer {index} é")[: 1 + index % 2]
    return ShardSample(
        id=f"sample-{index}",
        moments=rng.standard_normal(shape).astype(np.float16),
        captions=captions,
        label=index if index % 3 else None,
        motion=index / 4 if index % 2 else None,
        fps=12.5 if index % 4 else None,
        text=tuple(rng.standard_normal((3, 8)).astype(np.float16) for _ in captions) if text else None,
    )


def same(one, other):
    """Whether two samples are equal to the last bit; `other` may hold tensors."""
    arrays = [(one.moments, other.moments), *zip(one.text or (), other.text or (), strict=True)]
    fields = ("id", "captions", "label", "motion", "fps")
    return all(getattr(one, field) == getattr(other, field) for field in fields) and all(
        np.asarray(a).tobytes() == np.asarray(b).tobytes() and tuple(a.shape) == tuple(b.shape) for a, b in arrays
    )


def folder_of_shards(folder, shapes=(SMALL, WIDE), rows=10, header=HEADER):
    """A published folder of two shards of `rows` samples, of `shapes` in turn; returns its samples by file."""
    text = header.text_encoder is not None
    samples = [sample(index, shapes[index % len(shapes)], text) for index in range(2 * rows)]
    files = {"a.parquet": samples[:rows], "b.parquet": samples[rows:]}
    for name, written in files.items():
        write_shard(folder / name, written, header)
    publish_manifest(folder)
    return files
