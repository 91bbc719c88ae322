"""The set of ids is a set, and small."""

import random

from nova.preparation.sources.seen import Seen


def test_every_text_is_new_once():
    seen, known, numbers = Seen(), set(), random.Random(0)
    for _ in range(5000):
        text = str(numbers.randrange(3000))
        assert (text in seen) == (text in known)
        assert seen.add(text) == (text not in known)
        known.add(text)
    assert len(seen) == len(known)


def test_an_id_takes_at_most_24_bytes():
    seen = Seen()
    for number in range(20_000):
        seen.add(str(number))
    assert seen._slots.itemsize * len(seen._slots) <= 24 * len(seen)


def test_any_string_can_be_in_it():
    seen = Seen()
    assert seen.add("\ud800")
    assert not seen.add("\ud800")
