"""What can be seen of a narrative without reading it as a person would: pure functions of text.

`check` measures the six narratives of a user for the column `checks` of schema.NARRATIVES and names what failed:

- `words`: the profile has 4 to 6 words (table 5)
- `empty`: a text is there; reason and explanation may be null, where no reason can be inferred
- `verbatim`: no run of more than `MOST_VERBATIM` words stands in a review too
- `language`: it is the one that was asked for, for texts of `LEAST_WORDS` words or more: of fewer none can be told
- `refusal`: it is no refusal of a language model

Words are told by the spaces between them. Scripts that have none, such as the Japanese, are spared the check `words`,
and `verbatim` finds next to nothing in them.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ...schema import LAST_PURCHASE, USER

MOST_VERBATIM = 6
"""Words in a row that a narrative may share with a review; in English, runs of six still happen by chance."""
PROFILE_WORDS = (4, 6)
LEAST_WORDS = 8
ANSWER_FIELDS = {
    "reason": "purchase_reason",
    "explanation": "purchase_reason_explanation",
    "endorsement": "product_endorsement",
    "profile": "user_profile",
    "brief_summary": "brief_user_summary",
    "long_summary": "long_user_summary",
}
"""How the prompts call the narratives (table 5), by their names in the row."""
FIELDS = {"last_purchase": [field.name for field in LAST_PURCHASE], "user": [field.name for field in USER]}

UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""A letter of a script without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
WORD = re.compile(r"\w+(?:['’]\w+)*")
# A narrative speaks of the customer or to them; "I" in one of these phrases is the language model.
REFUSAL = re.compile(
    r"\b(?:I(?:['’]m| am) (?:sorry|unable|not able|afraid)|I (?:can(?:['’]?t|not)|won['’]t|will not|must decline|"
    r"do not feel comfortable)\b|as an? (?:AI|artificial|(?:large )?language model)|my (?:guidelines|programming))",
    re.IGNORECASE,
)


def check(
    narratives: dict[str, Any], history: Sequence[dict[str, Any]], language: str = "en"
) -> dict[str, dict[str, Any] | list[str] | None]:
    """The column `checks` of one user.

    Args:
        narratives: `{"last_purchase": {…}, "user": {…}}`, as in the row.
        history: The purchase history that they are about.
        language: The one that they should be in, as ISO 639-1.
    """
    reviews = joined(words(text) for purchase in history for text in _review_texts(purchase))
    names = bigrams(words((purchase["item"] or {}).get("title") or "") for purchase in history)
    found: dict[str, dict[str, Any] | list[str] | None] = {}
    failed: list[str] = []
    for part, fields in FIELDS.items():
        for name in fields:
            text = (narratives[part] or {}).get(name)
            if not text:
                found[name] = None
                if name not in ("reason", "explanation") and history:
                    failed.append(f"{name}.empty")
                continue
            length, run = len(text.split()), shared_run(words(text), reviews, names)
            spoken, refused = language_of(text), REFUSAL.search(text) is not None
            found[name] = {"words": length, "verbatim": run, "language": spoken, "refusal": refused}
            unspaced = len(UNSPACED.findall(text))
            wrong = {
                "words": name == "profile"
                and unspaced <= length
                and not PROFILE_WORDS[0] <= length <= PROFILE_WORDS[1],
                "verbatim": run > MOST_VERBATIM,
                "language": spoken != language and max(length, unspaced) >= LEAST_WORDS,
                "refusal": refused,
            }
            failed += [f"{name}.{kind}" for kind, true in wrong.items() if true]
    return {**found, "failed": failed}


def reason(failed: str, language: str) -> str:
    """A failed check in words, for the language model that is asked again.

    What the narrative took over is not repeated here: it is a review's, and reviews speak inside their fence only.

    >>> reason("profile.words", "en")
    'the user_profile must have 4 to 6 words'
    """
    name, _, kind = failed.partition(".")
    return (
        f"the {ANSWER_FIELDS[name]} "
        + {
            "words": f"must have {PROFILE_WORDS[0]} to {PROFILE_WORDS[1]} words",
            "empty": "must not be empty",
            "verbatim": f"shares more than {MOST_VERBATIM} words in a row with a review; say it in words of your own",
            "language": f"must be written in the language {language!r}",
            "refusal": "must be the text itself, and not say that it cannot be written",
        }[kind]
    )


def words(text: str) -> list[str]:
    """The words of a text in lower case, without marks.

    >>> words("Don't buy: it's a RED pen!")
    ["don't", 'buy', "it's", 'a', 'red', 'pen']
    """
    return WORD.findall(text.lower().replace("’", "'"))


def joined(texts: Iterable[list[str]]) -> str:
    """Texts as one string of words to search in; no run of words goes from one text into the next.

    >>> joined([["a", "red", "pen"], ["fine"]])
    ' a red pen § fine § '
    """
    return " " + "".join(f"{' '.join(spoken)} § " for spoken in texts)


def bigrams(texts: Iterable[list[str]]) -> frozenset[tuple[str, str]]:
    """All pairs of neighbouring words."""
    return frozenset(pair for spoken in texts for pair in itertools.pairwise(spoken))


def shared_run(spoken: Sequence[str], reviews: str, names: frozenset[tuple[str, str]] = frozenset()) -> int:
    """The longest run of words that a narrative shares with a review.

    Words of product names do not count: both name the same products.

    Args:
        spoken: The words of the narrative.
        reviews: Those of the reviews, `joined`.
        names: Pairs of neighbouring words in the names of the products.

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
    counted = [1] * len(spoken)
    for place, pair in enumerate(itertools.pairwise(spoken)):
        if pair in names:
            counted[place] = counted[place + 1] = 0
    longest = end = 0
    for start in range(len(spoken)):
        # What follows a shared run's first word is shared too, so `end` never goes back.
        end = max(end, start)
        while end < len(spoken) and f" {' '.join(spoken[start : end + 1])} " in reviews:
            end += 1
        longest = max(longest, sum(counted[start:end]))
    return longest


def language_of(text: str) -> str:
    """The language of a text as ISO 639-1, by an offline classifier; a guess for texts of a few words.

    >>> language_of("Diese Kundin kauft gerne Papier und Tinte.")
    'de'
    """
    return _classify()(text)


@functools.cache
def _classify() -> Any:
    from py3langid import classify  # loads its model when first imported: a second

    return lambda text: str(classify(text)[0])


def _review_texts(purchase: dict[str, Any]) -> tuple[str, str]:
    review = purchase["review"] or {}
    return review.get("summary") or "", review.get("text") or ""
