"""Every planted fault is found, with its reason, and nothing else is refused."""

from functools import partial

import pytest

from nova.data.latents import LatentDataset
from nova.preparation.inspect import inspect
from nova.preparation.report import read_report
from nova.preparation.sources import SourceOptions, list_items
from tests.preparation.corpus import FAULTS, RULES, corpus
from tests.preparation.made import prepared


@pytest.mark.parametrize(("items", "faults"), [(70, 27), pytest.param(1000, 137, marks=pytest.mark.slow)])
def test_every_fault_is_found_with_its_reason_and_nothing_else(items, faults, tmp_path):
    assert len(FAULTS) == 27
    truth = corpus(tmp_path / "media", items, faults)
    assert len(truth) == faults
    output = tmp_path / "out"
    summary = prepared(
        list_items(tmp_path / "media", SourceOptions()), output, RULES, inspect=partial(inspect, rules=RULES)
    )
    fates = list(read_report(output))
    assert {fate.id: fate.reason for fate in fates if fate.reason} == truth
    assert summary.total == len(fates) == summary.ok + summary.skipped + summary.failed
    assert sum(summary.reasons.values()) == faults == summary.skipped + summary.failed
    data = LatentDataset(output)
    stored = {data.get(bucket, n).id for bucket, count in enumerate(data.counts) for n in range(count)}
    assert stored == {fate.id for fate in fates if fate.reason is None}
    assert {fate.shard for fate in fates if fate.stored} == set(summary.per_shard)
