"""NOVA: autoregressive image and video generation without vector quantisation (arXiv 2412.14169).

The names below are imported on first use, so that `import nova` and `nova --help` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nova.autoencoders.adapter import Autoencoder
    from nova.autoencoders.video import VideoAutoencoder
    from nova.models.config import NovaConfig
    from nova.models.nova import NovaTransformer
    from nova.pipeline import NovaPipeline

__version__ = "0.1.0"

_HOME = {
    "Autoencoder": "nova.autoencoders.adapter",
    "NovaConfig": "nova.models.config",
    "NovaPipeline": "nova.pipeline",
    "NovaTransformer": "nova.models.nova",
    "VideoAutoencoder": "nova.autoencoders.video",
}

__all__ = ["Autoencoder", "NovaConfig", "NovaPipeline", "NovaTransformer", "VideoAutoencoder", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'nova' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
