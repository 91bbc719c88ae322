"""Every recipe by name, and the ways to ask for one: a name, a function in the user's file, a saved config."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from nova.checkpoints.folder import read_json
from nova.errors import CheckpointError, UsageError, nearest
from nova.recipes import digits, paper
from nova.recipes.overrides import validated
from nova.recipes.run import AnyRun
from nova.training.autoencoder import AutoencoderRun
from nova.training.language import LanguageRun
from nova.training.transformer import TransformerRun

RECIPES: dict[str, Callable[[], AnyRun]] = {
    "digits": digits.digits,
    "digits-autoencoder": digits.digits_autoencoder,
    "digits-text-encoder": digits.digits_text_encoder,
    "digits-image": digits.digits_image,
    "digits-video": digits.digits_video,
    "digits-finetune": digits.digits_finetune,
    "digits-clips": digits.digits_clips,
    "digits-lora": digits.digits_lora,
    "digits-tiny": digits.digits_tiny,
    **paper.recipes(),
}

_KINDS: dict[Any, type[AnyRun]] = {
    "autoencoder": AutoencoderRun,
    "language": LanguageRun,
    "transformer": TransformerRun,
}


def summaries() -> dict[str, str]:
    """What each recipe is, in a line: the first of its docstring."""
    documented = {name: recipe.func if isinstance(recipe, partial) else recipe for name, recipe in RECIPES.items()}
    return {name: (recipe.__doc__ or "").partition("\n")[0] for name, recipe in documented.items()}


def find_recipe(name: str) -> AnyRun:
    """The configuration that `name` stands for: a recipe's name, `file.py:function`, or a config.json.

    Raises UsageError for a name that is none of these, with the nearest one, and for a function or file that gives
    no configuration.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith(".json"):
        return _saved(Path(name))
    file, colon, function = name.rpartition(":")
    if colon and file.endswith(".py"):
        return _from_file(Path(file), function)
    raise UsageError(f"recipe {name!r} is unknown{nearest(name, RECIPES)}")


def _saved(file: Path) -> AnyRun:
    try:
        fields = read_json(file)
    except CheckpointError as error:
        raise UsageError(str(error)) from None
    kind = fields.get("kind")
    if kind not in _KINDS:
        raise UsageError(f"{file}: kind is {kind!r}{nearest(str(kind), _KINDS)}")
    return validated(_KINDS[kind], fields)


def _from_file(file: Path, function: str) -> AnyRun:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.exists():
        raise UsageError(f"{file}: there is no such file; give FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    recipe = getattr(module, function, None)
    if not callable(recipe):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise UsageError(f"{file}: there is no function {function!r}{nearest(function, functions)}")
    config = recipe()
    if not isinstance(config, AutoencoderRun | LanguageRun | TransformerRun):
        raise UsageError(f"{file}:{function} returned a {type(config).__name__}; return a run configuration")
    return config
