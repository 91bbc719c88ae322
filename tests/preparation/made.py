"""A tiny encoder, and preparations of made-up items: what is published as bytes by file."""

import hashlib
from functools import cache

import torch

from nova.autoencoders.adapter import Autoencoder
from nova.autoencoders.video import VideoAutoencoder
from nova.data.shards import Header, Model
from nova.preparation.encode import Encoder, Models
from nova.preparation.pool import Limits
from nova.preparation.prepare import Options, prepare
from nova.preparation.rules import Bucket, Rules
from nova.weights import weights_digest
from tests.preparation.workers import SIZE, work

RULES = Rules(
    buckets=(Bucket(frames=1, height=SIZE, width=SIZE), Bucket(frames=5, height=SIZE, width=SIZE)), duplicates=0
)


@cache
def autoencoder(seed=0):
    """A video autoencoder of a few thousand random weights."""
    torch.manual_seed(seed)
    return VideoAutoencoder(block_out_channels=(4, 4, 4, 4), norm_num_groups=2, latent_channels=2, layers_per_block=1)


def encoder(rules=RULES, seed=0, batch=1, versions=None, **options):
    """It behind the face that a preparation sees."""
    vae = autoencoder(seed)
    header = Header(
        autoencoder=Model(id="tiny", sha256=weights_digest(vae)),
        versions=versions or {"preparation": "1"},
        options={"rules": rules.model_dump(mode="json"), **options},
    )
    return Encoder(Models(Autoencoder(vae), header.autoencoder, torch.device("cpu")), header, batch)


def prepared(items, output, rules=RULES, workers=2, made_with=None, inspect=work, bar=None, **options):
    """Prepare with workers that need no media; returns the summary."""
    limits = Limits(workers=workers, seconds=20)
    return prepare(
        iter(items), output, rules, made_with or encoder(rules), Options(limits, **options), bar=bar, work=inspect
    )


def published(output):
    """Digest of every published file that must not depend on how the work went."""
    names = sorted(path.name for path in output.iterdir() if path.is_file() and path.name != ".lock")
    return {name: hashlib.sha256((output / name).read_bytes()).hexdigest() for name in names}


class Counting:
    """A worker that notes in a file which items it is given."""

    def __init__(self, log, inspect=work):
        self._log, self._inspect = log, inspect

    def __call__(self, item):
        with self._log.open("a") as file:
            file.write(f"{item.id}\n")
        return self._inspect(item)

    def seen(self):
        """Ids of the items since the last call."""
        found = self._log.read_text().split() if self._log.exists() else []
        self._log.unlink(missing_ok=True)
        return sorted(found)
