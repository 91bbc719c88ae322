"""The order of samples: a pure function that covers every sample in every epoch, whoever asks and however often.

The figure of row B1 (10,000 random configurations, 0 mismatches): `python -m pytest -m slow tests/data/test_order.py`.
"""

import itertools
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nova.data.order import Batch, BatchOrder, permuted
from nova.errors import UsageError

CONFIGURATIONS = st.fixed_dictionaries(
    {
        "counts": st.lists(st.integers(1, 40), min_size=1, max_size=4).map(tuple),
        "ranks": st.integers(1, 4),
        "micro_batches": st.integers(1, 3),
        "samples": st.integers(1, 4),  # of a rank's micro-batch
        "workers": st.integers(1, 4),
        "seed": st.integers(0, 2**63),
        "stops": st.lists(st.integers(0, 30), min_size=1, max_size=3),
    }
)


def replayed(counts, batch_size, seed):
    """The same order the slow way: permutations held, epochs cut into batches one after the other."""
    for epoch in itertools.count():
        batches = []
        for bucket, count in enumerate(counts):
            ids = permuted(np.arange(count), count, seed, "samples", epoch, bucket).tolist()
            for first in range(0, count, batch_size):
                filled = itertools.islice(itertools.cycle(ids), first, first + batch_size)
                batches.append(Batch(bucket, epoch, tuple(filled)))
        for index in permuted(np.arange(len(batches)), len(batches), seed, "batches", epoch):
            yield batches[index]


def read_by_workers(order, first, last, ranks, micro_batches, samples, workers):
    """Batches [first, last) as a job reads them: workers take steps in turn, ranks and micro-batches take slices."""
    made = {}
    for rank, worker in itertools.product(range(ranks), range(workers)):
        for step in range(first + worker, last, workers):
            ids = order.batch(step).ids
            for micro in range(micro_batches):
                start = (rank * micro_batches + micro) * samples
                made[step, rank, micro] = ids[start : start + samples]
    parts = list(itertools.product(range(ranks), range(micro_batches)))
    return [sum((made[step, *part] for part in parts), ()) for step in range(first, last)]


def check_resuming(counts, ranks, micro_batches, samples, workers, seed, stops):
    """A job that stops at every one of `stops` and goes on with other ranks and workers reads what one run reads."""
    batch_size = ranks * micro_batches * samples
    read, step = [], 0
    for number, more in enumerate(stops):
        order = BatchOrder(counts, batch_size, seed)
        split = (1, 1, batch_size) if number % 2 else (ranks, micro_batches, samples)
        read += read_by_workers(order, step, step + more, *split, workers=1 + (workers + number) % 4)
        step += more
    expected = [batch.ids for batch in itertools.islice(replayed(counts, batch_size, seed), step)]
    assert read == expected


@settings(max_examples=60)
@given(CONFIGURATIONS)
def test_a_resumed_run_reads_what_one_run_reads(configuration):
    check_resuming(**configuration)


@pytest.mark.slow
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck))
@given(CONFIGURATIONS)
def test_a_resumed_run_reads_what_one_run_reads_in_ten_thousand_configurations(configuration):
    check_resuming(**configuration)


@settings(max_examples=60)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4).map(tuple),
    batch_size=st.integers(1, 20),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 3),
)
def test_an_epoch_shows_every_sample_and_repeats_only_to_fill_the_last_batch(counts, batch_size, seed, epoch):
    order = BatchOrder(counts, batch_size, seed)
    size = order.batches_per_epoch
    batches = [order.batch(step) for step in range(epoch * size, (epoch + 1) * size)]
    assert {batch.epoch for batch in batches} == {epoch}
    for bucket, count in enumerate(counts):
        own = [batch.ids for batch in batches if batch.bucket == bucket]
        assert len(own) == -(-count // batch_size)
        assert all(len(ids) == batch_size for ids in own)
        seen = Counter(itertools.chain(*own))
        assert set(seen) == set(range(count)), "a small bucket is repeated, never dropped"
        assert max(seen.values()) - min(seen.values()) <= 1
        assert sum(seen.values()) - count < batch_size


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 15, 16, 17, 1000, 4097])
def test_a_permutation_reaches_every_place_once(count):
    for key in range(5):
        assert sorted(permuted(np.arange(count), count, key).tolist()) == list(range(count))


def test_all_permutations_of_a_small_set_are_as_likely():
    draws = 4800
    seen = Counter(tuple(permuted(np.arange(4), 4, seed).tolist()) for seed in range(draws))
    assert len(seen) == 24
    squares = sum((number - draws / 24) ** 2 / (draws / 24) for number in seen.values())
    assert squares < 49.7, "chi-square of 23 degrees of freedom, one chance in a thousand"


def test_neighbours_of_a_large_set_are_strangers():
    count = 10**9
    ids = permuted(np.arange(20_000), count, "far")
    gaps = np.abs(np.diff(ids)) / count
    assert abs(gaps.mean() - 1 / 3) < 0.01, "the mean distance of two random points is a third"
    assert abs(np.corrcoef(ids[1:], ids[:-1])[0, 1]) < 0.03


def test_epochs_and_seeds_have_orders_of_their_own():
    order, other = BatchOrder((500, 500), 4, 0), BatchOrder((500, 500), 4, 1)
    size = order.batches_per_epoch
    first = [order.batch(step) for step in range(size)]
    assert [batch.ids for batch in first] != [order.batch(size + step).ids for step in range(size)]
    assert [batch.bucket for batch in first] != [order.batch(size + step).bucket for step in range(size)]
    assert first != [other.batch(step) for step in range(size)]
    assert len({batch.bucket for batch in first[:20]}) == 2, "the batches of the buckets are mixed"


def test_a_step_far_into_a_vast_set_needs_no_memory():
    tracemalloc.start()
    try:
        batch = BatchOrder((10**8, 10**7), 256, 0).batch(10**6)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(set(batch.ids)) == 256
    assert peak < 1 << 20


def test_the_order_of_this_version_is_the_order_of_the_last():
    """A change here would break the resuming of runs started before it."""
    order = BatchOrder((5, 2), 2, seed=7)
    assert [order.batch(step) for step in (0, 1, 2, 3, 4, 10**12)] == [
        Batch(0, 0, (0, 4)),
        Batch(0, 0, (3, 1)),
        Batch(1, 0, (1, 0)),
        Batch(0, 0, (4, 2)),
        Batch(0, 1, (2, 1)),
        Batch(0, 250_000_000_000, (2, 3)),
    ]


def test_wrong_arguments_are_refused():
    for counts, batch_size in (((), 1), ((3, 0), 1), ((3,), 0)):
        with pytest.raises(UsageError, match="expected"):
            BatchOrder(counts, batch_size, 0)
    with pytest.raises(UsageError, match="step: found -1"):
        BatchOrder((1,), 1, 0).batch(-1)
