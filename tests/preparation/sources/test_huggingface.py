"""Data sets of Hugging Face's library: media as they are stored, and no network but for a name of the hub."""

import io
import sys

import pytest
from PIL import Image

from nova.errors import DataError, UsageError
from nova.preparation.sources import SourceOptions, huggingface, list_items
from nova.preparation.sources.paths import Place
from nova.preparation.sources.records import Listing
from tests.preparation.sources.made import listed

datasets = pytest.importorskip("datasets")


@pytest.fixture
def data():
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    return datasets.Dataset.from_dict({"image": images, "text": ["red", "blue"]}, features=features)


def test_a_saved_set_gives_bytes_and_captions(tmp_path, data):
    data.save_to_disk(tmp_path / "saved")
    items = listed(tmp_path / "saved")
    assert [(item.id, item.captions) for item in items] == [("train:1", ("red",)), ("train:2", ("blue",))]
    assert Image.open(io.BytesIO(items[1].media.data)).getpixel((0, 0)) == (0, 0, 255)


def test_a_split_is_chosen(tmp_path, data):
    datasets.DatasetDict({"train": data, "test": data.select([1])}).save_to_disk(tmp_path / "saved")
    assert [item.captions for item in listed(tmp_path / "saved", split="test")] == [("blue",)]
    with pytest.raises(UsageError, match="choose one of train, test"):
        list_items(tmp_path / "saved", SourceOptions(split="val"))


def test_a_stream_gives_the_same_as_a_copy(tmp_path, data):
    listings = [Listing(Place.of(tmp_path), SourceOptions()) for _ in range(2)]
    copy, stream = (
        list(huggingface._items(each, listing))
        for each, listing in zip((data, data.to_iterable_dataset()), listings, strict=True)
    )
    assert copy == stream


def test_damaged_sets_are_refused(tmp_path, data):
    data.save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(DataError, match="cannot be loaded"):
        list_items(tmp_path / "saved")


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "http://x", "/etc"])
def test_names_of_the_hub_are_never_paths(name):
    with pytest.raises(UsageError, match="data set of the hub"):
        list_items(f"hf:{name}")


def test_a_folder_of_that_name_is_no_data_set_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="leave out hf:"):
        list_items("hf:owner/name")


def test_without_the_library_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"nova-video\[datasets\]"):
        list_items("hf:owner/name")
