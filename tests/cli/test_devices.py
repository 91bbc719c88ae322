"""`--compile` reaches the pipeline, is recorded, and is repeated by `--from`; without it weights are packed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nova import cli
from nova.pipeline import NovaPipeline


def test_compile_is_recorded_and_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[NovaPipeline] = []
    packed: list[NovaPipeline] = []
    monkeypatch.setattr(NovaPipeline, "pack", lambda pipe: packed.append(pipe))
    monkeypatch.setattr(NovaPipeline, "compile", lambda pipe: compiled.append(pipe))

    def made(name: str, *arguments: str) -> bool:
        assert cli.main(["generate", *arguments, "--device", "cpu", "-q", "-o", str(tmp_path / f"{name}.png")]) == 0
        return json.loads((tmp_path / f"{name}.json").read_text())["environment"]["compiled"]

    few = ("a red 3 moves right", "--steps", "1", "--diffusion-steps", "1")
    assert not made("plain", *few)
    assert (len(packed), len(compiled)) == (1, 0)
    assert made("fused", *few, "--compile")
    assert (len(packed), len(compiled)) == (1, 1)
    assert made("again", "--from", str(tmp_path / "fused.json"))
    assert len(compiled) == 2
    assert made("fused from plain", "--from", str(tmp_path / "plain.json"), "--compile")
    assert len(compiled) == 3
