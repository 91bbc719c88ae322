"""`nova generate` in an empty folder, with a pipeline that draws noise."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from nova import cli
from nova.cli import devices
from nova.models.nova import NovaTransformer
from tests import tiny


class Drawing:
    """Stands for a pipeline: frames of noise that follow from the arguments alone."""

    def __init__(self) -> None:
        self.calls: list[dict[str, object]] = []
        self.adapters: list[Path] = []
        self.text_encoder = None
        self.fails_after: int | None = None
        """Calls after which a user presses Ctrl-C; None: never."""

    def set_progress_bar_config(self, **_: object) -> None:
        pass

    def pack(self) -> None:
        pass

    def load_lora(self, adapter: Path) -> None:
        self.adapters.append(adapter)

    def __call__(self, *, generator: list[torch.Generator], **arguments: object) -> SimpleNamespace:
        if len(self.calls) == self.fails_after:
            raise KeyboardInterrupt
        self.calls.append(arguments)
        size = [arguments[name] for name in ("num_frames", "height", "width")]
        drawn = [torch.randint(256, (*size, 3), generator=one) for one in generator]
        return SimpleNamespace(frames=torch.stack(drawn).byte().numpy())


@pytest.fixture
def model(tmp_path):
    """A model folder with configs only; the drawing pipeline needs no more."""
    folder = tmp_path / "model"
    parts = ("transformer", "scheduler", "vae")
    for part in parts:
        (folder / part).mkdir(parents=True)
    classes = ("NovaTransformer", "FlowMatchEulerDiscreteScheduler", "VideoAutoencoder")
    index = {"_class_name": "NovaPipeline"} | {part: ["nova", name] for part, name in zip(parts, classes, strict=True)}
    (folder / "model_index.json").write_text(json.dumps(index))
    config = {"_class_name": NovaTransformer.__name__, **tiny.config().to_dict()}
    (folder / "transformer" / "config.json").write_text(json.dumps(config))
    widths = {"block_out_channels": [8, 8, 8, 8], "layers_per_block": 1, "norm_num_groups": 4}
    (folder / "vae" / "config.json").write_text(json.dumps({"_class_name": "VideoAutoencoder", **widths}))
    return folder


@pytest.fixture
def pipe(monkeypatch):
    drawing = Drawing()
    monkeypatch.setattr(devices, "load_pipeline", lambda *_: drawing)
    return drawing


@pytest.fixture
def generate(model, pipe, tmp_path, monkeypatch, capsys):
    """Run `nova generate` in an empty folder; returns exit code, stdout and stderr."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        model_flag = () if "--from" in arguments or "--model" in arguments else ("--model", model)
        code = cli.main(["generate", *map(str, (*arguments, *model_flag))])
        return code, *capsys.readouterr()

    return run
