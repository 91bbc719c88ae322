"""Near-duplicates are those that comparing with every earlier hash finds."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from nova.preparation.duplicates import Kept
from nova.preparation.fates import Fate
from nova.preparation.items import Reason
from nova.preparation.verdicts import Verdicts

HASHES = st.lists(
    st.builds(lambda base, flips: base ^ sum(1 << bit for bit in flips), st.sampled_from([0, 2**64 - 1, 0x123456789]),
              st.sets(st.integers(0, 63), max_size=6)),
    max_size=30,
)  # fmt: skip


@given(hashes=HASHES, distance=st.integers(0, 16))
def test_bands_find_what_comparing_all_finds(hashes, distance):
    kept, plain = Kept(distance), []
    for one in hashes:
        near = [number for number, other in enumerate(plain) if (one ^ other).bit_count() <= distance]
        assert kept.match(one) == (near[0] if near else None)
        if not near:
            kept.add(one)
            plain.append(one)


@given(hashes=HASHES, more=HASHES, distance=st.integers(0, 8))
def test_what_is_taken_back_was_never_there(hashes, more, distance):
    kept, other = Kept(distance), Kept(distance)
    for one in hashes:
        kept.add(one)
        other.add(one)
    for one in more:
        kept.add(one)
    kept.forget(len(more))
    assert len(kept) == len(hashes)
    assert [kept.match(one) for one in more] == [other.match(one) for one in more]


def test_verdicts_of_an_earlier_run_are_given_anew():
    fate = Fate("b", "b.png", "ok", hash=7)
    verdicts = Verdicts(0)
    verdicts.judge(dataclasses.replace(fate, id="a"))
    refused = verdicts.judge(fate)
    assert (refused.status, refused.reason, refused.detail) == ("skipped", "near_duplicate", "looks like a")
    assert Verdicts(0).judge(refused) == fate
    assert Verdicts(None).judge(refused) == fate


def test_what_is_refused_for_other_reasons_is_nobodys_original():
    verdicts = Verdicts(0)
    black = Fate("a", "a.png", "ok", hash=7).refused(Reason.BLACK, "dark")
    assert verdicts.judge(black) == black
    assert verdicts.judge(Fate("b", "b.png", "ok", hash=7)).status == "ok"
