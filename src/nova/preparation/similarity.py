"""Scores that a CLIP model gives: how well captions fit a clip, and LAION's aesthetic score of its frames.

Both are means over a few frames. The model is one that the user names: a folder in the layout of transformers, or a
hub id. The aesthetic head is a file of safetensors with linear layers, as LAION's predictors have: one layer, or
several with nothing between them; they take embeddings of length 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import init_empty_weights
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from nova.checkpoints.folder import read_json
from nova.errors import CheckpointError
from nova.text import load_tokenizer
from nova.weights import load_into, read_weights

FRAMES = 4
"""How many frames of a clip are looked at, at even distances."""

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of OpenAI's CLIP


@dataclass(frozen=True, eq=False)
class Scorer:
    """A frozen CLIP model with its tokenizer, and the aesthetic head if there is one.

    side: pixels of the squares it sees, with `mean` and `std` of each channel.  tokens: the most of a caption.
    """

    model: CLIPModel
    tokenizer: PreTrainedTokenizerFast
    head: nn.Sequential | None
    side: int
    tokens: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @torch.inference_mode()
    def scores(
        self, clips: Sequence[UInt8[np.ndarray, "f H W 3"]], captions: Sequence[Sequence[str]]
    ) -> list[dict[str, float]]:
        """For each clip `similarity`, the cosine with the caption that fits worst, and `aesthetic` with a head.

        Clips without captions have no similarity. All frames go through the model as one batch.
        """
        picked = [clip[places(len(clip))] for clip in clips]
        images = self._embedded_images([frame for clip in picked for frame in clip])
        texts = [self._embedded_text(caption) for each in captions for caption in each]
        results, text = [], 0
        for pictures, wanted in zip(images.split([len(clip) for clip in picked]), captions, strict=True):
            score = {}
            if self.head is not None:
                score["aesthetic"] = float(self.head(pictures).mean())
            if wanted:
                own = torch.stack(texts[text : text + len(wanted)])
                score["similarity"] = float((pictures @ own.T).mean(dim=0).min())
                text += len(wanted)
            results.append(score)
        return results

    def _embedded_images(self, frames: Sequence[UInt8[np.ndarray, "H W 3"]]) -> Float[Tensor, "n dim"]:
        pixels = np.stack([_square(frame, self.side) for frame in frames]).astype(np.float32) / 255
        pixels = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        values = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy()).to(self.model.device, self.model.dtype)
        seen = self.model.vision_model(pixel_values=values).pooler_output
        return functional.normalize(self.model.visual_projection(seen).float(), dim=-1)

    def _embedded_text(self, caption: str) -> Float[Tensor, " dim"]:
        ids = self.tokenizer(caption)["input_ids"]
        if len(ids) > self.tokens:
            ids = [*ids[: self.tokens - 1], ids[-1]]  # the last token is where the text's embedding is read
        read = self.model.text_model(input_ids=torch.tensor([ids], device=self.model.device)).pooler_output
        return functional.normalize(self.model.text_projection(read).float()[0], dim=-1)


def load_scorer(
    model: str | Path, head: Path | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Scorer:
    """The CLIP model of a folder or hub id, and the aesthetic head in a safetensors file.

    Raises CheckpointError for what is missing, damaged, a pickle, no CLIP model, or a head for other embeddings.
    """
    folder = _folder(model)
    settings = read_json(folder / "config.json")
    if settings.get("model_type") != "clip":
        found = settings.get("model_type")
        raise CheckpointError(f"{folder / 'config.json'}: found model type {found!r}, expected a CLIP model, 'clip'")
    try:
        with init_empty_weights(include_buffers=False):
            clip = CLIPModel(CLIPConfig(**settings))
    except Exception as error:  # wrong fields: transformers raises many kinds
        line = " ".join(str(error).split())
        raise CheckpointError(f"{folder / 'config.json'}: no CLIP model can be built from it ({line})") from error
    stored = read_weights(folder)  # older files hold positions too, which are not learned
    weights = {name: value for name, value in stored.items() if not name.endswith("position_ids")}
    load_into(clip, weights, folder, dtype).eval().requires_grad_(False).to(device)
    beside = folder / "preprocessor_config.json"
    pixels = read_json(beside) if beside.is_file() else {}
    config: Any = clip.config
    return Scorer(
        model=clip,
        tokenizer=load_tokenizer(folder),
        head=None if head is None else load_head(head, config.projection_dim).to(device),
        side=config.vision_config.image_size,
        tokens=config.text_config.max_position_embeddings,
        mean=tuple(pixels.get("image_mean", _MEAN)),
        std=tuple(pixels.get("image_std", _STD)),
    )


def load_head(path: Path, width: int) -> nn.Sequential:
    """The linear layers of a safetensors file, in the order of their numbers, from `width` numbers to one.

    Raises CheckpointError for another width, other tensors, or a file that is no safetensors.
    """
    weights = _tensors(path)
    names = sorted((name for name in weights if name.endswith("weight")), key=_number)
    layers, wide = [], width
    for name in names:
        weight, bias = weights[name], weights.get(f"{name.removesuffix('weight')}bias")
        if weight.ndim != 2 or bias is None or weight.shape[1] != wide:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(weight.shape)}, expected (…, {wide}) and a bias; "
                f"is it the head of another CLIP model?"
            )
        layer = nn.Linear(wide, len(weight))
        layer.load_state_dict({"weight": weight.float(), "bias": bias.float()})
        layers.append(layer)
        wide = len(weight)
    if not layers or wide != 1:
        raise CheckpointError(f"{path}: ends in {wide} numbers, expected linear layers that end in one")
    return nn.Sequential(*layers).eval().requires_grad_(False)


def places(count: int) -> list[int]:
    """Which of `count` frames are looked at: the middles of FRAMES equal parts, each once."""
    return sorted({int((2 * part + 1) * count / (2 * FRAMES)) for part in range(FRAMES)})


def _folder(model: str | Path) -> Path:
    """Where the model is; only a hub id that is not cached needs the network."""
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    if str(model).count("/") != 1 or str(model)[0] in "./~":
        raise CheckpointError(f"{model}: no such folder; give the folder of a CLIP model, or a hub id such as org/name")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(model), allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:  # of the hub, the network and the disk
        line = " ".join(str(error).split())
        raise CheckpointError(f"{model}: no such folder, and the hub does not give it ({line})") from error


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".safetensors":
        message = f"{path}: only safetensors are loaded, as a pickle can run code; convert the head's weights"
        raise CheckpointError(message)
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        line = " ".join(str(error).split())
        raise CheckpointError(f"{path}: cannot be read as safetensors ({line}); get a whole copy") from error


def _square(frame: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle of `frame`, as CLIP's own preparation takes it: the shorter side to `side`, bicubic."""
    height, width = frame.shape[:2]
    scale = side / min(height, width)
    scaled = max(side, round(width * scale)), max(side, round(height * scale))
    image = Image.fromarray(frame).resize(scaled, Image.Resampling.BICUBIC)
    left, top = (scaled[0] - side) // 2, (scaled[1] - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def _number(name: str) -> int:
    found = re.search(r"(\d+)\.weight$", name)
    return int(found[1]) if found else 0
