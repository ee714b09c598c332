"""Automatic checks of narratives: pure functions of text.

`check` measures the narratives of a user for the column `checks` of schema.NARRATIVES and lists the failed checks:

- `words`: the profile has 4 to 6 words (table 5)
- `empty`: the text is missing; reason and explanation may be null, where no reason can be inferred
- `verbatim`: more than `MOST_VERBATIM` words in a row also occur in a review
- `language`: the text has at least `LEAST_WORDS` words, enough for the classifier, and is in another language
- `refusal`: the text is a refusal of a language model

Words are split at spaces. In scripts without spaces, such as Japanese, `words` is not checked and `verbatim` has almost
no effect.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ...schema import Task, written_tasks

MOST_VERBATIM = 6
"""Words in a row that a narrative may share with a review; in English, runs of six still happen by chance."""
LEAST_WORDS = 8

UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""A letter of a script without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
WORD = re.compile(r"\w+(?:['’]\w+)*")
# A narrative is about the customer or addresses them; "I" in one of these phrases is the language model.
REFUSAL = re.compile(
    r"\b(?:I(?:['’]m| am) (?:sorry|unable|not able|afraid)|I (?:can(?:['’]?t|not)|won['’]t|will not|must decline|"
    r"do not feel comfortable)\b|as an? (?:AI|artificial|(?:large )?language model)|my (?:guidelines|programming))",
    re.IGNORECASE,
)


def check(
    narratives: dict[str, Any],
    history: Sequence[dict[str, Any]],
    language: str = "en",
    tasks: Sequence[Task] | None = None,
) -> dict[str, Any]:
    """The column `checks` of one user with the columns `narratives` and the purchase history `history`.

    The expected `language` is in ISO 639-1. By default all `tasks` that the narratives stage writes are checked.
    """
    reviews = joined(words(text) for purchase in history for text in _review_texts(purchase))
    names = bigrams(words((purchase["item"] or {}).get("title") or "") for purchase in history)
    results: dict[str, Any] = {}
    failed: list[str] = []
    for task in written_tasks() if tasks is None else tasks:
        name, text = str(task.field[-1]), task.text(narratives)
        if not text:
            results[name] = None
            if not task.may_be_null and history:
                failed.append(f"{name}.empty")
            continue
        length, run = len(text.split()), shared_run(words(text), reviews, names)
        own_language, refused = language_of(text), REFUSAL.search(text) is not None
        results[name] = {"words": length, "verbatim": run, "language": own_language, "refusal": refused}
        unspaced = len(UNSPACED.findall(text))
        wrong = {
            "words": task.words is not None and unspaced <= length and not task.words[0] <= length <= task.words[1],
            "verbatim": run > MOST_VERBATIM,
            "language": own_language != language and max(length, unspaced) >= LEAST_WORDS,
            "refusal": refused,
        }
        failed += [f"{name}.{kind}" for kind, fails in wrong.items() if fails]
    return {**results, "failed": failed}


def reason(failed: str, language: str) -> str:
    """A failed check as a sentence for the repeated request to the language model.

    It does not repeat the words that a narrative shares with a review: text of reviews stays inside its markers.

    >>> reason("profile.words", "en")
    'the user_profile must have 4 to 6 words'
    """
    name, _, kind = failed.partition(".")
    task = next(task for task in written_tasks() if task.field[-1] == name)
    least, most = task.words or (0, 0)
    return (
        f"the {task.name} "
        + {
            "words": f"must have {least} to {most} words",
            "empty": "must not be empty",
            "verbatim": f"shares more than {MOST_VERBATIM} words in a row with a review; say it in words of your own",
            "language": f"must be written in the language {language!r}",
            "refusal": "must be the text itself, and not say that it cannot be written",
        }[kind]
    )


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation.

    >>> words("Don't buy: it's a RED pen!")
    ["don't", 'buy', "it's", 'a', 'red', 'pen']
    """
    return WORD.findall(text.lower().replace("’", "'"))


def joined(texts: Iterable[list[str]]) -> str:
    """Texts as one string of words to search in; a mark between two texts prevents matches across them.

    >>> joined([["a", "red", "pen"], ["fine"]])
    ' a red pen § fine § '
    """
    return " " + "".join(f"{' '.join(text)} § " for text in texts)


def bigrams(texts: Iterable[list[str]]) -> frozenset[tuple[str, str]]:
    """All pairs of neighbouring words."""
    return frozenset(pair for text in texts for pair in itertools.pairwise(text))


def shared_run(text: Sequence[str], reviews: str, names: frozenset[tuple[str, str]] = frozenset()) -> int:
    """The length of the longest run of words that a narrative shares with a review.

    Words of product names do not count: narrative and review name the same products.

    Args:
        text: the words of the narrative.
        reviews: the words of the reviews, `joined`.
        names: pairs of neighbouring words in the names of the products.

    >>> reviews = joined([words("It writes like a dream, really!"), words("I love the Pilot Precise V7 pen")])
    >>> shared_run(words("They say it writes like a dream."), reviews)
    5
    >>> shared_run(words("They like the Pilot Precise V7 Pen."), reviews)
    5
    >>> shared_run(words("They like the Pilot Precise V7 Pen."), reviews, bigrams([words("Pilot Precise V7 Pen")]))
    1
    >>> shared_run(words("Nothing of it."), reviews), shared_run([], reviews), shared_run(words("A pen."), joined([]))
    (1, 0, 0)
    """
    counted = [1] * len(text)
    for index, pair in enumerate(itertools.pairwise(text)):
        if pair in names:
            counted[index] = counted[index + 1] = 0
    longest = end = 0
    for start in range(len(text)):
        # The rest of a shared run after its first word is shared too, so `end` never decreases.
        end = max(end, start)
        while end < len(text) and f" {' '.join(text[start : end + 1])} " in reviews:
            end += 1
        longest = max(longest, sum(counted[start:end]))
    return longest


def language_of(text: str) -> str:
    """The language of a text as ISO 639-1, by an offline classifier; unreliable for a few words.

    >>> language_of("Diese Kundin kauft gerne Papier und Tinte.")
    'de'
    """
    from py3langid import classify  # the first import loads a model, which takes a second

    return str(classify(text)[0])


def _review_texts(purchase: dict[str, Any]) -> tuple[str, str]:
    review = purchase["review"] or {}
    return review.get("summary") or "", review.get("text") or ""
