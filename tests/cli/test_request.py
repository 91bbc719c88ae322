"""What a request must be before anything is loaded."""

import dataclasses
import json

import pytest

from nova.cli.request import Sample, Settings, parse_size, plan_samples, read_prompts
from nova.errors import DataError, UsageError


def samples(prompts=(), file=None, labels=(), negative=None, seed=0, count=1):
    return plan_samples(prompts, file, labels, negative, seed, count)


def test_sample_i_has_seed_plus_i():
    made = samples(["a", "b"], seed=7, count=2)
    assert [(sample.prompt, sample.seed) for sample in made] == [("a", 7), ("a", 8), ("b", 9), ("b", 10)]


def test_labels_are_samples_too():
    assert samples(labels=[3, 5], seed=1) == [Sample(1, class_label=3), Sample(2, class_label=5)]


def test_prompts_of_both_files(tmp_path):
    text = tmp_path / "prompts.txt"
    text.write_text("a red 3\n\n  two digits \n", encoding="utf-8")
    assert [sample.prompt for sample in samples(["first"], text)] == ["first", "a red 3", "two digits"]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('{"prompt": "a", "seed": 40, "negative_prompt": "b"}\n{"prompt": "c"}\n', encoding="utf-8")
    assert samples(file=lines, negative="d", count=2) == [
        Sample(40, "a", "b"),
        Sample(41, "a", "b"),
        Sample(2, "c", "d"),
        Sample(3, "c", "d"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1: not JSON"),
        ('"text"', "not an object"),
        ('{"promt": "a"}', "did you mean 'prompt'"),
        ('{"prompt": 3}', "prompt is 3; give a value of type str"),
        ('{"prompt": "a", "seed": true}', "seed is True"),
        ('{"seed": 3}', "give either prompt or class_label"),
        ('{"prompt": "a", "class_label": 1}', "give either prompt or class_label"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    file = tmp_path / "prompts.jsonl"
    file.write_text(line, encoding="utf-8")
    with pytest.raises(DataError, match=said):
        read_prompts(file)


def test_files_that_hold_no_prompts(tmp_path):
    empty = tmp_path / "prompts.txt"
    empty.write_text("\n \n")
    with pytest.raises(DataError, match="no prompts in it"):
        read_prompts(empty)
    empty.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="UTF-8"):
        read_prompts(empty)
    with pytest.raises(DataError, match="cannot be read"):
        read_prompts(tmp_path / "missing.txt")
    with pytest.raises(UsageError, match=r"neither \.txt nor \.jsonl"):
        read_prompts(tmp_path / "prompts.csv")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({}, "nothing to generate"),
        ({"prompts": ["a"], "labels": [1]}, "one or the other"),
        ({"labels": [-1]}, "negative"),
        ({"prompts": ["a"], "count": 0}, "--count: 0"),
        ({"prompts": ["a"], "seed": -1}, "--seed: -1"),
        ({"prompts": ["a"], "seed": 2**63 - 1, "count": 2}, "--seed"),
    ],
)
def test_requests_that_are_refused(wanted, said):
    with pytest.raises(UsageError, match=said):
        samples(**wanted)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_frames", 0),
        ("num_inference_steps", 0),
        ("num_inference_steps", 10**9),
        ("num_diffusion_steps", -1),
        ("guidance_scale", float("nan")),
        ("guidance_scale", -1.0),
        ("min_guidance_scale", float("inf")),
        ("guidance_trunc", 1001.0),
        ("guidance_renorm", 1.5),
        ("motion_score", -0.1),
        ("fps", 0.0),
        ("flow_shift", 0.0),
        ("height", 0),
    ],
)
def test_numbers_out_of_range_name_their_flag(field, value):
    with pytest.raises(UsageError, match=r"^--[a-z-]+: "):
        Settings(**{field: value})


def test_every_numeric_setting_has_a_range():
    for field in dataclasses.fields(Settings):
        with pytest.raises(UsageError):
            Settings(**{field.name: float("nan")})


def test_sizes():
    assert parse_size("480x768") == (480, 768)
    for wrong in ("480", "480x", "x768", "480*768", "-1x5", "480x768x3", "1e3x5", ""):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            parse_size(wrong)


def test_jsonl_written_by_json_is_read_back(tmp_path):
    prompts = ["“quoted”", "line\nbreak", "нова", "\u2028 separator"]
    file = tmp_path / "p.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    assert [fields["prompt"] for fields in read_prompts(file)] == prompts
    file.write_text("".join(json.dumps({"prompt": prompt}, ensure_ascii=False) + "\n" for prompt in prompts))
    assert [fields["prompt"] for fields in read_prompts(file)] == prompts
