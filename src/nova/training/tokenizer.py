"""A tokenizer for a small world: one token a known word, bytes for all else, so that any prompt has tokens.

Text is lower-cased, ASCII punctuation becomes space, digits stand alone. Each word is then cut by byte-pair
merges made by hand: they join a known word from its beginning, letter by letter, and nothing else. An unknown
word becomes the longest beginning it shares with a known one, then single bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from nova.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"


def build_tokenizer(words: Iterable[str]) -> PreTrainedTokenizerFast:
    """The tokenizer that knows `words`: lower case, letters and digits only, a number one digit long.

    Its special token END ends texts and fills batches; no prompt is given it. Raises UsageError for other words.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = sorted(set(words))
    for word in words:
        if not word.isalnum() or word != word.lower() or (len(word) > 1 and any(map(str.isdigit, word))):
            raise UsageError(f"words: {word!r} is not lower-case letters or one digit")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    tokens = [END, *sorted(byte_level.alphabet())]
    merges: list[tuple[str, str]] = []
    for word in words:
        letters = byte_level.pre_tokenize_str(word)[0][0]  # a space in front, as byte-level letters
        for end in range(1, len(letters)):
            if (letters[:end], letters[end]) not in merges:
                merges.append((letters[:end], letters[end]))
                tokens.append(letters[: end + 1])
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(individual_digits=True), byte_level]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, clean_up_tokenization_spaces=False
    )
