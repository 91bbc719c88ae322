"""Which outputs are made together, by whom, and what is encoded for them."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nova.cli.batches import MOST, batches, filling
from nova.cli.executors import Here
from nova.cli.make import Item, Texts
from nova.cli.progress import JobProgress
from nova.cli.ranks import Share
from nova.cli.request import Sample
from nova.errors import UsageError

COUNTS = st.integers(0, 60)


@given(COUNTS, st.integers(1, 9), st.sets(st.integers(0, 60)), st.booleans(), st.integers(1, 5))
def test_everything_missing_is_made_once_and_nothing_else_is_written(count, size, done, whole, ranks):
    shares = [Share(rank, ranks, rank).numbers(count) for rank in range(ranks)]
    written = []
    for numbers in shares:
        for batch in batches(numbers, size, done, whole):
            assert 0 < len(batch.missing) <= len(batch.numbers) <= size
            assert set(batch.missing) <= set(batch.numbers) <= set(numbers)
            assert whole or batch.missing == batch.numbers
            written += batch.missing
    assert sorted(written) == [number for number in range(count) if number not in done]


@given(COUNTS, st.integers(1, 9), st.sets(st.integers(0, 60)))
def test_whole_batches_are_those_of_a_job_from_its_start(count, size, done):
    undisturbed = [batch.numbers for batch in batches(range(count), size, (), whole=True)]
    again = [batch.numbers for batch in batches(range(count), size, done, whole=True)]
    assert [batch for batch in undisturbed if not done.issuperset(batch)] == again


def test_a_batch_that_fills_the_memory():
    assert filling(one=10 << 30, free=100 << 30) == 8
    assert filling(one=200 << 30, free=100 << 30) == 1
    assert filling(one=1, free=100 << 30) == MOST


def test_the_share_of_a_process():
    assert Share.of({}) == Share(0, 1, 0)
    assert Share.of({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}) == Share(3, 4, 1)
    for wrong in ({"RANK": "x"}, {"RANK": "4", "WORLD_SIZE": "4"}, {"LOCAL_RANK": "-1"}):
        with pytest.raises(UsageError, match="torchrun"):
            Share.of(wrong)


class Encoder:
    """Stands for a pipeline whose prompts are their own features, and counts what it encodes."""

    def __init__(self, monkeypatch):
        self.tokenizer, self.text_encoder = None, object()
        self.transformer = SimpleNamespace(shape=SimpleNamespace(text_tokens=6))
        self.encoded = []

        def encode(_tokenizer, _encoder, prompts, most):
            assert most == 6
            self.encoded += prompts
            return [prompt.upper() for prompt in prompts]

        monkeypatch.setattr("nova.text.encode_text", encode)


def test_a_prompt_is_encoded_once_while_it_is_in_use(monkeypatch):
    encoder = Encoder(monkeypatch)
    texts = Texts(encoder)
    first = [Sample(0, "a"), Sample(1, "a"), Sample(2, "b", "blur")]
    texts.expect(first)
    assert encoder.encoded == ["a", "", "b", "blur"]
    assert texts.conditions(first) == {
        "prompt_embeds": ["A", "A", "B"],
        "negative_prompt_embeds": ["", "", "BLUR"],
    }
    texts.expect([Sample(3, "b"), Sample(4, "c")])
    assert encoder.encoded == ["a", "", "b", "blur", "c"]
    texts.conditions([Sample(5, "d")])  # not expected: encoded all the same
    assert encoder.encoded[-1] == "d"


def test_labels_need_no_text(monkeypatch):
    assert Texts(Encoder(monkeypatch)).conditions([Sample(0, class_label=3)]) == {"class_labels": [3]}


class Small:
    """Stands for a maker whose memory holds so many outputs."""

    def __init__(self, most):
        self.most, self.sizes = most, []

    def ahead(self, items):
        pass

    def make(self, items, missing, tell):
        self.sizes.append(len(items))
        if len(items) > self.most:
            raise torch.OutOfMemoryError("no memory")
        tell()
        yield from (item.number for item in items if item.number in missing)


@pytest.fixture
def here():
    def made(maker, count, size, done=()):
        executor = Here.__new__(Here)
        executor._maker = maker
        items = {number: Item(number, Sample(number, "a"), "") for number in range(count)}
        moved = []
        todo = batches(range(count), size, done, whole=True)
        return list(executor.make(todo, items, moved.append)), moved

    return made


def test_a_batch_too_large_for_memory_is_halved(here):
    maker = Small(most=2)
    assert here(maker, 7, 7)[0] == list(range(7))
    assert maker.sizes == [7, 3, 1, 2, 4, 2, 2]
    with pytest.raises(torch.OutOfMemoryError):
        here(Small(most=0), 3, 3)


def test_progress_counts_what_will_be_written(here):
    made, moved = here(Small(most=9), 8, 4, done={0, 1, 2, 5})
    assert (made, moved) == ([3, 4, 6, 7], [1, 3])


def test_the_bar_counts_sets_and_outputs():
    with JobProgress(outputs=2, sets=5, quiet=True) as progress:
        for _ in range(5):
            progress.moved(1)
        assert progress._bar.tasks[0].completed == 5
        progress.made()
        assert progress._bar.tasks[0].completed == 5
        progress.moved(2)
        assert progress._bar.tasks[0].completed == 7
        assert progress._bar.tasks[0].fields["made"] == 1
