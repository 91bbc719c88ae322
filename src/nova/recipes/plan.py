"""What a run would take, and what would stop it, found without training: `nova train RECIPE --dry-run`.

    the models it builds on     their configs; nothing is downloaded
    the data it would read      shapes and counts, and one sample of each shape
    the network                 on torch's meta device; nothing is allocated
    a step                      rehearsed on tensors without numbers, on the largest samples

What would stop the run is collected, not raised, so that one look shows all of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import nn

from nova.autoencoders.adapter import Autoencoder
from nova.checkpoints.folder import read_json, read_transformer_config
from nova.checkpoints.locate import INDEX, SHIPPED
from nova.data.order import BatchOrder
from nova.data.samples import LatentSample
from nova.errors import DataError, NovaError, UsageError
from nova.layers.transformer import Block
from nova.models.config import NovaConfig
from nova.models.flops import training_flops
from nova.models.nova import NovaTransformer
from nova.randomness import generator_for
from nova.recipes.parts import autoencoder_folder, initial_folder, load_inputs, shipped_parts, text_encoder_folder
from nova.recipes.run import AnyRun
from nova.recipes.source import open_source
from nova.training.autoencoder import AutoencoderRun, new_autoencoder
from nova.training.cluster import Cluster
from nova.training.config import RunConfig
from nova.training.draws import draw
from nova.training.heldout import split
from nova.training.language import LanguageRun, new_language_model
from nova.training.rehearsal import rehearse
from nova.training.train import freeze, split_batch
from nova.training.transformer import (
    Inputs,
    LatentBatch,
    LatentData,
    Source,
    TransformerObjective,
    TransformerRun,
    new_transformer,
    scheduler_for,
)

_TEXT_DIM = 2560
"""Of Phi-2, which all published models read; taken where the text encoder is not here."""
_DRAWS = 256


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one process: float32 weights, their gradients, average and moments, and what a step needs beside.

    `step` is None where no step was rehearsed.
    """

    weights: int
    gradients: int
    average: int
    moments: int
    step: int | None = None

    @property
    def total(self) -> int:
        """All that is known."""
        return sum(value or 0 for value in dataclasses.astuple(self))


@dataclasses.dataclass(frozen=True)
class Data:
    """Where samples come from, how many there are of each shape (c t h w) of latents, and batches to see them all."""

    name: str
    counts: Mapping[tuple[int, int, int, int], int]
    epoch: int

    @property
    def largest(self) -> tuple[int, int, int, int]:
        """The shape that needs most memory."""
        return max(self.counts, key=lambda shape: shape[1] * shape[2] * shape[3])


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would be; `name` tells the runs inside a run apart. None is what cannot be known.

    trained: so many of the `parameters` are.  flops: operations of one process in a step.  least: what the function
    needs of them where all of it is trained and nothing is computed twice.  problems: what would stop the run.
    """

    name: str
    config: RunConfig
    processes: int
    problems: tuple[NovaError, ...] = ()
    parameters: int | None = None
    trained: int | None = None
    memory: Memory | None = None
    flops: float | None = None
    least: float | None = None
    data: Data | None = None


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The frozen parts of a transformer: where they are, or the runs that make them; None is the shipped model's."""

    autoencoder: str | AutoencoderRun | None = None
    text_encoder: str | LanguageRun | None = None


def plan(
    config: AnyRun,
    processes: int,
    device: torch.device,
    name: str = "",
    outer: _Parts = _Parts(),
) -> Iterator[Plan]:
    """The plans of the runs inside `config` and of itself, in the order in which they are run.

    Each of the `processes` has a device like `device`. `outer` are the parts of the run that this one is inside of.
    """
    if not isinstance(config, TransformerRun):
        yield _of_part(config, processes, name)
        return
    parts = _Parts(config.autoencoder or outer.autoencoder, config.text_encoder or outer.text_encoder)
    for field in ("autoencoder", "text_encoder", "initial"):
        inner = getattr(config, field)
        if isinstance(inner, AutoencoderRun | LanguageRun | TransformerRun):
            yield from plan(inner, processes, device, f"{name}.{field}".strip("."), parts)
    yield _of_transformer(config, parts, processes, device, name)


def _of_part(config: AutoencoderRun | LanguageRun, processes: int, name: str) -> Plan:
    """The plan of a run whose network is too small to ask what a step needs."""
    with torch.device("meta"):
        model = new_autoencoder(config) if isinstance(config, AutoencoderRun) else new_language_model(config)
    problems: list[NovaError] = []
    with _noted(problems):
        split_batch(config, Cluster(0, processes))
        freeze(model, config.freeze)
    memory = _memory(model, config, processes, None)
    return Plan(name, config, processes, tuple(problems), *_counts(model), memory)


def _of_transformer(
    config: TransformerRun,
    parts: _Parts,
    processes: int,
    device: torch.device,
    name: str,
) -> Plan:
    problems: list[NovaError] = []
    vae = text_dim = data = initial = model = None
    part = config.micro_batch or max(1, config.batch_size // processes)
    with _noted(problems):
        part = len(split_batch(config, Cluster(0, processes))[0])
    with _noted(problems):
        vae = _autoencoder(parts.autoencoder)
    with _noted(problems):
        text_dim = _text_dim(parts.text_encoder)
    with _noted(problems):
        data = _data(config, vae, text_dim)
    with _noted(problems):
        initial = _initial(config.initial)
    latents = _trained_latents(config, vae) if data is None else data.largest
    if latents is not None:
        with _noted(problems), torch.device("meta"):
            model = new_transformer(config, latents, text_dim or _TEXT_DIM, initial)
            freeze(model, config.freeze)
    if latents is None or model is None:
        return Plan(name, config, processes, tuple(problems), data=data)

    ratio = _mean_ratio(config)
    objective = TransformerObjective(model, scheduler_for(config).training, None, config.first_weight, 1.0)
    batch = _blank_batch(config, model.shape, latents, part, ratio)
    count = max(1, config.batch_size // (processes * part))
    rehearsed = rehearse(objective, batch, count, device, config.precision == "bfloat16", config.recompute)
    largest = _flops(config, model.shape, latents, ratio)
    mean = largest if data is None else _mean_flops(config, model.shape, data, ratio)
    return Plan(
        name,
        config,
        processes,
        tuple(problems),
        *_counts(model),
        _memory(model, config, processes, rehearsed.peak),
        flops=rehearsed.flops * mean / largest,
        least=mean * part * count if config.lora is None else None,
        data=data,
    )


@contextmanager
def _noted(problems: list[NovaError]) -> Iterator[None]:
    """Collect what goes wrong in the block instead of raising it."""
    try:
        yield
    except NovaError as error:
        problems.append(error)


def _autoencoder(given: str | AutoencoderRun | None) -> Autoencoder:
    if isinstance(given, AutoencoderRun):
        with torch.device("meta"):
            return Autoencoder(new_autoencoder(given))
    shipped = shipped_parts()
    folder = shipped.autoencoder if given is None else autoencoder_folder(_here(given, "autoencoder"))
    return load_inputs(dataclasses.replace(shipped, autoencoder=folder), with_text=False).autoencoder


def _text_dim(given: str | LanguageRun | None) -> int:
    if isinstance(given, LanguageRun):
        return given.model.width
    folder = shipped_parts().text_encoder if given is None else text_encoder_folder(_here(given, "text_encoder"))
    fields = read_json(folder / "text_encoder" / "config.json")
    return int(fields.get("hidden_size") or fields["n_embd"])


def _initial(given: str | TransformerRun | None) -> NovaTransformer | None:
    """The model to start from, without its weights; None also where a run makes it first."""
    if given is None or isinstance(given, TransformerRun):
        return None
    shape = read_transformer_config(initial_folder(_here(given, "initial")))
    with torch.device("meta"):
        return NovaTransformer(shape)


def _here(given: str, field: str) -> str:
    """`given`, where it can be opened without a download."""
    if given == SHIPPED or Path(given).expanduser().is_dir():
        return given
    with suppress(HFValidationError):  # not a name that the hub could know
        if isinstance(try_to_load_from_cache(given, INDEX), str):
            return given
    raise UsageError(f"{field}: {given} is not here; train it first, give another folder, or download that model")


def _data(config: TransformerRun, vae: Autoencoder | None, text_dim: int | None) -> Data | None:
    data = config.data
    if isinstance(data, LatentData):
        from nova.data.latents import LatentDataset  # needs pyarrow, which the moving digits don't

        source: Source = LatentDataset(data.folder)
        if vae is not None and vae.module.device.type != "meta":
            source = open_source(config, Inputs(vae.module), Path(), Cluster(), quiet=True).samples
        source = split(source, config.observe.held_out)[0]
        for bucket in range(len(source.counts)):
            _check_sample(source.get(bucket, 0), data.folder, config, text_dim)
        shapes = [(c2 // 2, t, h, w) for c2, t, h, w in source.buckets]
        return Data(data.folder, dict(zip(shapes, source.counts, strict=True)), _epoch(config, source.counts))
    if config.model.classes is not None:
        raise UsageError("model.classes: the moving digits have captions, no labels; leave it out")
    if vae is None:
        return None
    shape = vae.latent_shape(data.frames, data.size, data.size)
    return Data("moving digits", {shape: data.clips}, _epoch(config, (data.clips,)))


def _epoch(config: RunConfig, counts: tuple[int, ...]) -> int:
    return BatchOrder(counts, config.batch_size, config.seed).batches_per_epoch


def _check_sample(sample: LatentSample, folder: str, config: TransformerRun, text_dim: int | None) -> None:
    """Refuse what a step would refuse, or could not take."""
    where, cell = f"{folder}: sample {sample.id}", 2 * config.model.patch
    if sample.moments.shape[2] % cell or sample.moments.shape[3] % cell:
        raise DataError(f"{where}: latents of {tuple(sample.moments.shape)}; the model takes multiples of {cell} cells")
    if config.model.classes is not None:
        if sample.label is None or not 0 <= sample.label < config.model.classes:
            raise DataError(f"{where}: label {sample.label}, expected 0 to {config.model.classes - 1}; fix the data")
    elif not sample.captions:
        raise DataError(f"{where}: no caption; set model.classes to train on labels")
    elif sample.text is not None and sample.text[0].shape[1] != (text_dim or sample.text[0].shape[1]):
        raise DataError(
            f"{where}: text features of {sample.text[0].shape[1]} numbers, the run's text encoder makes {text_dim}; "
            "give the one that the data were prepared with"
        )


def _trained_latents(config: TransformerRun, vae: Autoencoder | None) -> tuple[int, int, int, int] | None:
    """What the recipe says its samples are, for want of data."""
    size = config.model
    if size.latent_frames is None or size.latent_height is None or size.latent_width is None:
        return None
    return 4 if vae is None else vae.channels, size.latent_frames, size.latent_height, size.latent_width


def _mean_ratio(config: TransformerRun) -> float:
    """The share of tokens to predict that a step has on average."""
    generator = generator_for(config.seed, "plan")
    return sum(config.rules.ratio(generator) for _ in range(_DRAWS)) / _DRAWS


def _blank_batch(
    config: TransformerRun, shape: NovaConfig, latents: tuple[int, int, int, int], count: int, ratio: float
) -> LatentBatch:
    """A batch of `count` samples as large as a real one, full of zeros."""
    process = scheduler_for(config).training
    generators = [generator_for(config.seed, "plan", place) for place in range(count)]
    if shape.classes is not None:
        condition = torch.zeros(count, dtype=torch.long)
    else:
        condition = torch.zeros(count, shape.text_tokens, shape.text_dim or 0)
    scalars = torch.ones(count) if shape.is_video else None
    draws = draw(process, config.rules, latents, shape.patch, [ratio] * count, generators)
    return LatentBatch(torch.zeros(count, *latents), condition, (), scalars, scalars, draws)


def _flops(config: TransformerRun, shape: NovaConfig, latents: tuple[int, int, int, int], ratio: float) -> float:
    """Operations of one sample in forward and backward pass, at least."""
    _, frames, height, width = latents
    size = dataclasses.replace(shape, latent_frames=frames, latent_height=height, latent_width=width)
    return 3 * training_flops(size, noises_per_token=config.repeats, mask_ratio=ratio).total


def _mean_flops(config: TransformerRun, shape: NovaConfig, data: Data, ratio: float) -> float:
    samples = sum(data.counts.values())
    return sum(count * _flops(config, shape, latents, ratio) for latents, count in data.counts.items()) / samples


def _counts(model: nn.Module) -> tuple[int, int]:
    """Parameters, and those that are trained."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


def _memory(model: nn.Module, config: RunConfig, processes: int, peak: int | None) -> Memory:
    """Memory of one process, whose step holds `peak` bytes, gradients included, when nothing is shared."""
    count, trained = (4 * numbers for numbers in _counts(model))
    step = None if peak is None else max(0, peak - trained)
    shares = processes if config.sharding == "full" else 1
    if step is not None and shares > 1:
        # At a time two transformer blocks are whole, and what is outside of them always: weights and gradients.
        blocks = [4 * _counts(module)[0] for module in model.modules() if isinstance(module, Block)]
        step += 2 * (count - sum(blocks) + 2 * max(blocks, default=0))
    each, learned = -(-count // shares), -(-trained // shares)
    return Memory(each, learned, learned, 2 * learned, step)
