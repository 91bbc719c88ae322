"""The commands on real, tiny models: generate and make again, info, convert."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nova import NovaPipeline, cli
from nova.cli.info import describe
from nova.errors import CheckpointError
from nova.media import read_image, read_video, write_image, write_video
from tests import tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A text-to-video, a class-to-video, a text-to-image model, and one whose shape the published layout can say."""
    folder = tmp_path_factory.mktemp("models")
    tiny.pipeline().save_pretrained(folder / "video")
    tiny.pipeline(text_dim=None, classes=10, scale_shift=True).save_pretrained(folder / "classes")
    tiny.pipeline("image", latent_frames=1).save_pretrained(folder / "image")
    tiny.pipeline(width=64, heads=1, spatial_encoder_layers=2).save_pretrained(folder / "plain")
    return folder


@pytest.fixture
def nova(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return cli.main([str(argument) for argument in arguments]), *capsys.readouterr()

    return run


FEW = ("--steps", 2, "--diffusion-steps", 2)


def test_a_prompt_becomes_a_video_that_can_be_made_again(nova, models):
    model = ("--model", models / "video")
    assert nova("generate", "a red kite rises", *model, *FEW, "-o", "x.mp4", "--sheet", "x.png")[0] == 0
    assert read_video("x.mp4").frames.shape == (9, 32, 32, 3)
    assert nova("generate", "--from", "x.json", "-o", "y.mp4")[0] == 0
    assert Path("x.mp4").read_bytes() == Path("y.mp4").read_bytes()
    assert nova("generate", "a blue sea", *model, *FEW, "-o", "z.mp4")[0] == 0
    assert Path("x.mp4").read_bytes() != Path("z.mp4").read_bytes()


def test_the_file_shows_what_the_pipeline_gives(nova, models):
    assert nova("generate", "a red kite", "--model", models / "video", *FEW, "--seed", 4, "-o", "x.png")[0] == 0
    pipe = NovaPipeline.from_pretrained(models / "video")
    options = {"num_frames": 1, "num_inference_steps": 2, "num_diffusion_steps": 2, "output_type": "np"}
    frames = pipe("a red kite", generator=[4], **options).frames
    assert (read_image("x.png") == frames[0, 0]).all()


def test_image_clip_and_longer_than_trained(nova, models):
    model = ("--model", models / "video", *FEW)
    assert nova("generate", "a kite", *model, "-o", "x.mp4")[0] == 0
    clip = read_video("x.mp4")
    write_image("first.png", clip.frames[0])
    write_video("clip.mp4", clip.frames[:5], clip.fps)
    assert nova("generate", "a kite", *model, "--image", "first.png", "-o", "a.mp4")[0] == 0
    assert nova("generate", "a kite", *model, "--video", "clip.mp4", "--frames", 13, "-o", "b.mp4")[0] == 0
    assert nova("generate", "a kite", *model, "--frames", 17, "--window", 9, "-o", "c.gif")[0] == 0
    assert [len(read_video(name).frames) for name in ("a.mp4", "b.mp4", "c.gif")] == [9, 13, 17]
    assert nova("generate", "--from", "b.json", "-o", "again.mp4")[0] == 0
    assert Path("again.mp4").read_bytes() == Path("b.mp4").read_bytes()


def test_class_labels(nova, models):
    model = ("--model", models / "classes", *FEW)
    assert nova("generate", "--class-label", 3, "--class-label", 7, *model, "-o", "clips")[0] == 0
    assert sorted(path.name for path in Path("clips").glob("*.mp4")) == ["class-3-0.mp4", "class-7-1.mp4"]
    code, _, error = nova("generate", "--class-label", 10, *model, "-o", "clips")
    assert code == 2
    assert "--class-label: 10; use whole numbers from 0 to 9" in error
    assert nova("generate", "a kite", *model, "-o", "clips")[0] == 2


def test_image_models_make_images(nova, models):
    model = ("--model", models / "image", *FEW)
    assert nova("generate", "a kite", *model)[1] == "outputs/a-kite-0.png\n"
    code, _, error = nova("generate", "a kite", *model, "-o", "x.mp4")
    assert code == 2
    assert "the model makes images" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--frames", 6), "--frames: 6 is not 4k + 1; the nearest valid ones are 5 and 9"),
        (("--size", "30x32"), "--size: 30 is not a multiple of 32; the nearest valid ones are 32 and 64"),
    ],
)
def test_what_a_model_cannot_make_is_named_with_what_it_can(nova, models, words, said):
    code, _, error = nova("generate", "a kite", "--model", models / "video", *words, *FEW, "-o", "x.mp4")
    assert (code, error.count("\n")) == (2, 1)
    assert said in error
    assert not Path("x.mp4").exists()


def test_damaged_models_are_one_line(nova, models, tmp_path):
    assert nova("convert", models / "video", "copy")[0] == 0
    weights = Path("copy/transformer/diffusion_pytorch_model.safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    for command in (("generate", "a", "--model", "copy", "-o", "x.mp4"), ("info", "copy"), ("convert", "copy", "new")):
        code, printed, error = nova(*command)
        assert (code, printed, error.count("\n")) == (4, "", 1)
        assert str(weights) in error
    weights.unlink()
    weights.with_suffix(".bin").write_bytes(b"\x80\x04.")
    code, _, error = nova("generate", "a", "--model", "copy", "-o", "x.mp4")
    assert code == 4
    assert "pickle" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy"]


def test_info_says_what_a_model_can_do(nova, models):
    code, printed, _ = nova("info", models / "classes", "--json")
    found = json.loads(printed)
    assert code == 0
    assert (found["frames"], found["height"], found["width"]) == (9, 32, 32)
    assert (found["condition"], found["makes"]) == ("10 classes", "videos and images")
    assert (found["layout"], found["scale_and_shift"], found["diffusion"]) == ("nova", "vanilla", "flow")
    pipe = NovaPipeline.from_pretrained(models / "classes")
    for name, part in found["parts"].items():
        module = getattr(pipe, name)
        assert part["parameters"] == sum(value.numel() for value in module.state_dict().values())
        assert (part["dtype"], part["bytes"]) == ("F32", 4 * part["parameters"])
    assert "9 frames of 32x32 pixels" in nova("info", models / "classes")[1]


def test_info_reads_no_weights(models, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("safetensors.torch.load_file", refuse)
    monkeypatch.setattr("nova.weights.read_weights", refuse)
    assert describe(models / "video").condition == "text"


@pytest.mark.parametrize(
    ("file", "text", "licence"),
    [
        ("README.md", "---\ntags: [a]\nlicense: apache-2.0\n---\n# Model", "apache-2.0"),
        ("README.md", "# Model without front matter", None),
        ("LICENSE", "\n  MIT License\n\nCopyright", "MIT License"),
    ],
)
def test_info_names_the_licence(nova, models, file, text, licence):
    nova("convert", models / "image", "copy")
    Path("copy", file).write_text(text)
    assert describe(Path("copy")).licence == licence


def test_converting_there_and_back_changes_nothing(nova, models):
    assert nova("convert", models / "plain", "published", "--to", "published")[0] == 0
    assert describe(Path("published")).layout == "published"
    assert nova("convert", "published", "ours")[0] == 0
    before, after = (NovaPipeline.from_pretrained(folder) for folder in (models / "plain", "ours"))
    for part in ("transformer", "vae", "text_encoder"):
        there, back = (getattr(pipe, part).state_dict() for pipe in (before, after))
        assert there.keys() == back.keys()
        assert all(torch.equal(there[key], back[key]) for key in there)
    assert nova("convert", models / "video", "wrong", "--to", "published")[0] == 4  # its heads have no place there
    assert not Path("wrong").exists()


def test_a_published_model_converts_and_generates_the_same(nova, record):
    assert nova("convert", record, "ours")[0] == 0
    assert describe(Path("ours")).layout == "nova"
    suffix = ".png" if record.name.startswith("t2i") else ".mp4"
    for model, name in ((record, "a"), (Path("ours"), "b")):
        assert nova("generate", "a red kite", "--model", model, *FEW, "-o", f"{name}{suffix}")[0] == 0
    assert Path(f"a{suffix}").read_bytes() == Path(f"b{suffix}").read_bytes()
    assert nova("convert", "ours", "back", "--to", "published")[0] == 0
    for part in ("transformer", "vae"):
        weights = f"{part}/diffusion_pytorch_model.safetensors"
        before, after = load_file(record / weights), load_file(Path("back") / weights)
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key].float(), after[key].float()) for key in before)


def test_precision_of_a_converted_model(nova, models):
    assert nova("convert", models / "video", "half", "--dtype", "float16")[0] == 0
    parts = describe(Path("half")).parts
    assert {part.dtype for part in parts.values()} == {"F16"}
    assert nova("convert", "half", "kept")[0] == 0
    assert {part.dtype for part in describe(Path("kept")).parts.values()} == {"F16"}


def test_converting_replaces_nothing_unasked(nova, models, tmp_path):
    Path("mine").mkdir()
    Path("mine/file").touch()
    assert nova("convert", models / "video", "mine")[0] == 2
    assert nova("convert", models / "video", "mine/file")[0] == 2
    assert nova("convert", models / "video", models / "video", "--overwrite")[0] == 2
    assert nova("convert", "nowhere", "new")[0] == 4
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine"]


def test_an_autoencoder_that_nobody_knows(nova, models):
    nova("convert", models / "video", "copy")
    index = Path("copy/model_index.json")
    index.write_text(index.read_text().replace("VideoAutoencoder", "AutoencoderDC"))
    for command in (("info", "copy"), ("generate", "a", "--model", "copy", *FEW)):
        code, _, error = nova(*command)
        assert code == 4
        assert "'AutoencoderDC' is not known" in error


def test_a_folder_that_is_no_model(nova, tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "OtherPipeline"}')
    with pytest.raises(CheckpointError, match="not a NOVA pipeline"):
        describe(tmp_path)
