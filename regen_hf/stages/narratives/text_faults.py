"""Faults of a text that need no other text to see: pure functions of the text.

Words that are lists of letters apply to English; the other rules apply to any script.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from ...llm.loops import UNSPACED, has_loop, units
from ...schema import TASKS
from .shared_words import words

NO_STOPS = re.compile(r"[\u0e00-\u0eff\u1780-\u17ff]")
"""A letter of a script whose sentences end without a mark: Thai, Lao, Khmer."""
STOPS = ".!?…。！？؟۔।॥։።။៕"
CLOSERS = "\"'”’»›)]}」』）*_ \n\t"
LONG_SENTENCE = 20
"""Words of a single sentence above which a missing stop means that the text is cut; shorter ones are phrases."""
# English words that cannot end a sentence.
OPEN_ENDED = frozenset(
    """a an and are as at because but by for from has have her his if in including into is its like my nor of on or
    our such than that the their they this to was were which while who whose will with without your""".split()  # noqa: SIM905
)
MARKUP = re.compile(
    r"```|~~~|(?:BEGIN|END) (?:OF )?DATA\b|=== ?(?:BEGIN|END)"  # fences and the marker lines of the prompt
    r"|</?(?:think|thinking|s|pad|eos|bos|unk|br|p|div|span|b|i)/?>|<\|[^|<>]*\|>|\[/?(?:INST|SYS|PAD|EOS)\]"
    r"|^\s*<\w"  # the brackets of a placeholder
    r"|\\[nt\"]|\\u[0-9a-fA-F]{4}"  # escapes of JSON
    r"|[\"']\w+[\"']\s*:\s*[\"'\[{]|^\s*[{\[]\s*[\"'{\[]|[\"'\]}]\s*[}\]]\s*$"  # remains of JSON
    r"|\b(?:Final item|Review title|Position|Description|Title): "  # lines of the prompt
    rf"|\b(?:{'|'.join(name for name in TASKS if '_' in name)}|critique_\d+)\b"
)
CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ud800-\udfff]")
NAME_OF_WORD = re.compile(r"[^\W\d_]{3,}")
SAME_WORDS = 0.65
"""Share of the words of two texts, each word as often as it occurs, above which the texts are almost equal."""
MOST_REPEATED = 0.4
"""Share of three words in a row that may occur earlier in a text of at least 40 words."""


def is_cut(text: str, language: str = "en", truncated: bool = False) -> bool:
    """Whether a text ends inside a sentence.

    A single short sentence without a stop is a phrase, unless it ends in a comma, a dash, an open bracket or, in
    English, a word such as "and". If the model reached its token limit (`truncated`), any text without a stop is cut.

    >>> [is_cut(text) for text in ("They like pens. They also like", "They like pens and", "They like (blue pens")]
    [True, True, True]
    >>> [is_cut(text) for text in ("They like pens.", "Keen buyer of pens", "文房具が好きな買い手。", "")]
    [False, False, False, False]
    """
    core = text.rstrip(CLOSERS)
    if not core or core[-1] in STOPS or NO_STOPS.match(core[-1]):
        return False
    if core[-1] in ",;:-–—(&/[{،、，" or core.count("(") > text.count(")"):
        return True
    if not core[-1].isalnum():
        return False  # a symbol such as an emoji
    tokens = words(core)
    if language == "en" and tokens and tokens[-1] in OPEN_ENDED:
        return True
    several = len(tokens) > 6 and re.search(rf"[{STOPS}][{re.escape(CLOSERS)}]*\s|[。！？]", core) is not None
    return truncated or several or len(tokens) > LONG_SENTENCE or len(UNSPACED.findall(core)) > 3 * LONG_SENTENCE


def has_markup(text: str, known: str = "") -> bool:
    r"""Whether a text contains code fences, marker lines, remains of JSON or control tokens that `known` lacks.

    >>> [has_markup(text) for text in ('They like pens."}', "```json", "=== END DATA 3f2a", "a user_profile", r"a\nb")]
    [True, True, True, True, True]
    >>> has_markup("<Blue Pen>"), has_markup("<Blue Pen is the pen for you.")
    (True, True)
    >>> has_markup('They call it "the best": a pen.'), has_markup("They like [brackets], {braces} and <3.")
    (False, False)
    """
    return any(match[0] not in known for match in MARKUP.finditer(text))


def lacks_words(text: str, least: int = 2) -> bool:
    """Whether a text has fewer than `least` words of three letters; two letters without spaces count as one word.

    >>> [lacks_words(text) for text in ("5 of 5", "N/A", "Rating: 5/5", "...", "Yes.")]
    [True, True, True, True, True]
    >>> lacks_words("Keen writer of letters"), lacks_words("文房具が好き")
    (False, False)
    """
    return len(NAME_OF_WORD.findall(UNSPACED.sub(" ", text))) + len(UNSPACED.findall(text)) // 2 < least


def is_name(text: str, names: frozenset[tuple[str, str]]) -> bool:
    """Whether a text consists of names of products and at most two other words.

    >>> names = frozenset(pairwise(["elmsgate", "red", "mug"]))
    >>> is_name("Elmsgate Red Mug", names), is_name("The Elmsgate Red Mug.", names)
    (True, True)
    >>> is_name("They like the Elmsgate Red Mug.", names), is_name("Tea lover", names)
    (False, False)
    """
    tokens = words(text)
    others = outside_names(names, tokens).total()
    return others < min(3, len(tokens))


def is_damaged(text: str) -> bool:
    r"""Whether a text contains U+FFFD, half of a surrogate pair or a control character.

    >>> is_damaged("a caf\ufffd"), is_damaged("a\x00b"), is_damaged("a café\n")
    (True, True, False)
    """
    return CONTROL.search(text) is not None


def is_repetitive(text: str) -> bool:
    """Whether a text repeats itself: the same words three times in a row, a sentence twice, or most of its words.

    >>> is_repetitive("They like pens and pens and pens and pens and pens."), is_repetitive("good good good good")
    (True, True)
    >>> is_repetitive("They like very, very good pens."), is_repetitive("Pens (3), paper (2), paper clips (2).")
    (False, False)
    """
    tokens = units(text)
    triples = list(zip(tokens, tokens[1:], tokens[2:], strict=False))
    repeated = len(triples) - len(set(triples))
    if not repeated:
        return False
    if len(tokens) >= 40 and repeated > MOST_REPEATED * len(triples):
        return True
    if has_loop(tokens):
        return True
    sentences = [" ".join(words(sentence)) for sentence in re.split(rf"[{STOPS}]+", text)]
    long = [sentence for sentence in sentences if len(sentence.split()) >= 5 or len(UNSPACED.findall(sentence)) >= 10]
    return len(set(long)) < len(long)


def same_text(text: str, others: Iterable[str], names: frozenset[tuple[str, str]] = frozenset()) -> bool:
    """Whether a text equals one of `others`, or almost.

    Texts of at least eight words are almost equal if one begins with the other, or if they share SAME_WORDS of the
    words of both, without the names of products.

    Args:
        text: the text.
        others: the other texts of the row.
        names: pairs of neighbouring words in the names of the products.

    >>> same_text("A buyer of pens.", ["A buyer of  pens"])
    True
    >>> same_text("A buyer of pens.", ["A buyer of pens who writes letters."])
    False
    >>> same_text("A buyer of blue pens who writes letters.", ["A buyer of blue pens who writes letters. Also ink."])
    True
    >>> same_text("They buy a blue pen and paper for 25 dollars.", ["They bought a blue pen and paper for 25 dollars."])
    True
    """
    own = words(text)
    for other in map(words, others):
        shorter, longer = sorted((own, other), key=len)
        if own == other or (len(shorter) >= 8 and longer[: len(shorter)] == shorter):
            return True
        left, right = outside_names(names, own), outside_names(names, other)
        shared = (left & right).total()
        if min(left.total(), right.total()) >= 8 and shared >= SAME_WORDS * (left.total() + right.total() - shared):
            return True
    return False


def outside_names(names: frozenset[tuple[str, str]], tokens: Sequence[str]) -> Counter[str]:
    """How often each word occurs outside the names."""
    pairs = [pair in names for pair in pairwise(tokens)]
    in_name = [before or after for before, after in zip([False, *pairs], [*pairs, False], strict=True)]
    return Counter(token for token, named in zip(tokens, in_name, strict=False) if not named)  # one more if empty
