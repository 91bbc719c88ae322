"""Known words are one token each whatever their dress; everything else still has tokens."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova.data.digit_captions import vocabulary
from nova.errors import UsageError
from nova.training.tokenizer import END, build_tokenizer

TOKENIZER = build_tokenizer(vocabulary())


def tokens(text: str) -> list[str]:
    return [TOKENIZER.decode([i]).strip() for i in TOKENIZER(text)["input_ids"]]


def test_every_known_word_is_one_token():
    for word in vocabulary():
        assert tokens(word) == [word]
        assert tokens(f"a {word} a") == ["a", word, "a"]


@pytest.mark.parametrize(
    "text", ["A RED 3 moves right!", "  a red\n3, moves  right.", '"a red 3" (moves right)', "a red\uff13 moves right"]
)
def test_case_space_and_punctuation_do_not_matter(text):
    assert tokens(text) == ["a", "red", "3", "moves", "right"]


def test_digits_stand_alone_and_unknown_words_keep_their_letters():
    assert tokens("37") == ["3", "7"]
    assert tokens("red3") == ["red", "3"]
    assert "".join(tokens("reddish")) == "reddish"
    assert tokens("reddish")[0] == "red"
    assert len(tokens("größe 🙂")) > 2


@settings(max_examples=200)
@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_has_tokens_and_none_is_the_end(text):
    ids = TOKENIZER(text)["input_ids"]
    if END not in text:
        assert TOKENIZER.eos_token_id not in ids
    assert all(0 <= token < len(TOKENIZER) for token in ids)
    if any(letter.isalnum() for letter in text):
        assert ids


def test_building_is_deterministic_and_survives_a_folder(tmp_path):
    from nova.text import load_tokenizer

    again = build_tokenizer(reversed(vocabulary()))
    assert again.get_vocab() == TOKENIZER.get_vocab()
    TOKENIZER.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    text = "A large red 3, moves — diagonally?"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.eos_token == END


@pytest.mark.parametrize("word", ["Red", "two words", "10", "r3", "it's", ""])
def test_words_it_could_not_keep_whole_are_refused(word):
    with pytest.raises(UsageError, match="words"):
        build_tokenizer([word])
