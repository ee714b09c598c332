"""Automatic checks of narratives: pure functions of the texts and of the user's record.

`check` measures the narratives of a user for the column `checks` of schema.NARRATIVES, and lists the failed checks as
`<text>.<kind>`, such as `profile.words`. `KINDS` holds every kind. An error makes the text unreliable; a warning
(schema.WARNINGS) may be a false alarm.

Words are split at spaces. In scripts without spaces, such as Japanese, `words` is not checked, and the kinds that
compare runs of words have almost no effect.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...llm.loops import UNSPACED
from ...schema import WARNINGS, Narrative, written_narratives
from . import critique_faults, text_faults
from .names import NO_NAMES, Names, capitals, is_about_another
from .shared_words import bigrams, joined, shared_run, shared_runs, shares, words

MOST_VERBATIM = 6
"""Words in a row that a narrative may share with a review; in English, runs of six still happen by chance."""
LEAST_WORDS = 8
EXAMPLE_RUN = 6
"""Words in a row that an answer may not share with a few-shot example."""
COPIED_RUN, COPIED_RUN_OF_PITCH = 12, 30
"""Words in a row that a text, or an endorsement, may share with a description. An endorsement may quote a sentence, as
its prompt asks for what the description says."""
REPEATED_INSTRUCTIONS = 0.8
"""Share of the words of a text, in runs from the instructions, from which the text repeats them."""
MOST_COPIED, MOST_COPIED_OF_PITCH = 0.5, 0.75
"""Share of the words of a text, or of an endorsement, that may be runs from descriptions. Names do not count."""

# A narrative is about the customer or addresses them; "I" in one of these phrases is the language model.
REFUSAL = re.compile(
    r"\b(?:I(?:['’]m| am) (?:sorry|unable|not able|afraid)|I (?:can(?:['’]?t|not)|won['’]t|will not|must decline|"
    r"do not feel comfortable)\b|as an? (?:AI|artificial|(?:large )?language model)|my (?:guidelines|programming))",
    re.IGNORECASE,
)
# In a critique, "I" is the customer: "I can't wear black."
REFUSAL_OF_CRITIQUE = re.compile(
    r"\bI (?:can(?:['’]?t|not)|won['’]t|will not|am (?:unable|not able) to) (?:answer|assist|comply|create|fulfill?|"
    r"generate|help|provide|write)\b|\bas an? (?:AI|artificial|(?:large )?language model)|"
    r"\bmy (?:guidelines|programming)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Kind:
    """A kind of check."""

    about: str
    """What it finds."""
    request: str
    """What the repeated request says to the language model. It repeats no text of reviews or of an answer: they stay
    inside their markers."""


KINDS = {
    "empty": Kind("the text is missing", "must not be empty"),
    "words": Kind("the profile does not have 4 to 6 words", "must have {least} to {most} words"),
    "verbatim": Kind(
        f"more than {MOST_VERBATIM} words in a row are those of a review",
        f"shares more than {MOST_VERBATIM} words in a row with a review; say it in words of your own",
    ),
    "language": Kind("it is in another language", "must be written in the language {language!r}"),
    "refusal": Kind(
        "it is a refusal of a language model", "must be the text itself, and not say that it cannot be written"
    ),
    "cut": Kind("it ends inside a sentence", "ends inside a sentence; be brief, and finish the last sentence"),
    "markup": Kind(
        "it contains code fences, marker lines, remains of JSON or control tokens",
        "must be plain text without code fences, marker lines, names of fields or JSON in it",
    ),
    "wordless": Kind(
        "it has no words, as in 5 of 5, or only the name of a product",
        "must contain more than the name of a product",
    ),
    "damaged": Kind("it contains U+FFFD or control characters", "must not contain unreadable characters"),
    "repetition": Kind("it repeats the same words or sentences", "repeats itself; say each thing once"),
    "same": Kind("it equals another text of the row, or almost", "must not be the same text as another field"),
    "instructions": Kind(
        "it repeats the instructions of the prompt", "repeats the instructions; write about this customer"
    ),
    "example": Kind(
        "it names items or brands of a few-shot example, or repeats its words",
        "takes names or words from an example; write only about the customer of the last message",
    ),
    "copied": Kind(
        "most of it, or a long part, is the description of an item",
        "copies the description of an item; say it in words of your own",
    ),
    "product": Kind(
        "it endorses another product than the final item", "must recommend the final item and not an earlier one"
    ),
    "another_item": Kind(
        "it is a reason that names an earlier item and not the final one", "must be about the final item"
    ),
    "names": Kind(
        "it names items or brands of the catalogue that the history does not contain",
        "names items or brands that are not in the data of this customer; name only those that are",
    ),
    "unknown_names": Kind(
        "it contains a word with a capital that is not in the history (English)",
        "contains names that are not in the data of this customer; name only those that are",
    ),
    "sentence": Kind("it is a critique of more than one sentence", "must be one sentence"),
    "leak": Kind(
        "it is a critique with the brand, the model, a number or two words of the title of the final item",
        "gives the final item away; use none of its brand, model and numbers, and no two words in a row of its title",
    ),
    "unmet": Kind(
        "it is a critique that asks for a colour, price or brand that the final item does not have (English)",
        "asks for something that the final item is not; ask only for what the final item meets",
    ),
}
"""Every kind of check, by name."""


@dataclass(frozen=True)
class Shown:
    """What a language model was shown beside the data of the user: the same for all users of a run."""

    instructions: str = ""
    """The words of the prompts, `joined`."""
    examples: str = ""
    """The words of the few-shot examples, `joined`."""
    example_names: Names = NO_NAMES
    catalogue: Names = NO_NAMES
    """Names of the catalogue; a model knows some of them without having been shown them."""


class Record:
    """The texts of a purchase history, in the forms that the checks need; each is computed when it is first used."""

    def __init__(self, history: Sequence[dict[str, Any]]) -> None:
        self.history = history
        items = [purchase["item"] or {} for purchase in history]
        self.titles = [item.get("title") or "" for item in items]
        self.others = [item.get(name) or "" for item in items for name in ("category", "asin")]
        self.descriptions = list(dict.fromkeys(item.get("description") or "" for item in items))
        reviews = [purchase["review"] or {} for purchase in history]
        self.reviews = [review.get(name) or "" for review in reviews for name in ("summary", "text")]

    @functools.cached_property
    def raw(self) -> str:
        """All texts."""
        return "\n".join([*self.titles, *self.others, *self.descriptions, *self.reviews])

    @functools.cached_property
    def words(self) -> str:
        """The words of all texts, also without the ending 's, `joined`."""
        texts = [*self.titles, *self.others, *self.descriptions, *self.reviews]
        plain = [words(text) for text in texts]
        stems = [[word.removesuffix("'s") for word in text if word.endswith("'s")] for text in plain]
        return joined([*plain, *stems])

    @functools.cached_property
    def review_words(self) -> str:
        """The words of the reviews, `joined`."""
        return joined(map(words, self.reviews))

    @functools.cached_property
    def description_words(self) -> str:
        """The words of the descriptions, `joined`."""
        return joined(map(words, self.descriptions))

    @functools.cached_property
    def names(self) -> frozenset[tuple[str, str]]:
        """Pairs of neighbouring words in the titles."""
        return bigrams(map(words, self.titles))


def check(
    narratives: dict[str, Any],
    history: Sequence[dict[str, Any]],
    language: str = "en",
    tasks: Sequence[Narrative] | None = None,
    shown: Shown = Shown(),
    truncated: Collection[str] = (),
) -> dict[str, Any]:
    """The column `checks` of one user with the columns `narratives` and the purchase history `history`.

    Args:
        narratives: the columns of schema.NARRATIVES with the texts.
        history: the purchase history of the user.
        language: the expected language, as ISO 639-1.
        tasks: the texts to check; by default all that the narratives stage writes.
        shown: what the language model was shown beside the history.
        truncated: the tasks whose answer reached the token limit of the model.
    """
    record = Record(history)
    results: dict[str, Any] = {}
    failed: list[str] = []
    earlier: list[str] = []
    for task in written_narratives() if tasks is None else tasks:
        name, text = str(task.field[-1]), task.text(narratives)
        if not text:
            results[name] = None
            if not task.may_be_null and history:
                failed.append(f"{name}.empty")
            continue
        tokens = words(text)
        unknown = capitals(text, record.words) if language == "en" else []
        results[name] = {
            "words": len(text.split()),
            "verbatim": shared_run(tokens, record.review_words, record.names),
            "language": language_of(text),
            "refusal": (REFUSAL_OF_CRITIQUE if task.steers else REFUSAL).search(text) is not None,
        }
        wrong = {
            **_measured(results[name], text, task, language),
            "cut": text_faults.is_cut(text, language, task.name in truncated and task.words is None),
            "markup": text_faults.has_markup(text, record.raw),
            "wordless": task.words is None
            # A critique may be one word, or reject a product by its name.
            and (
                text_faults.lacks_words(text, 1 if task.steers else 2)
                or (not task.steers and text_faults.is_name(text, record.names))
            ),
            "damaged": text_faults.is_damaged(text),
            "repetition": text_faults.is_repetitive(text),
            "same": text_faults.same_text(text, earlier, record.names),
            "instructions": shares(tokens, shown.instructions, MOST_VERBATIM + 1, record.words)
            or _is_of_instructions(tokens, shown.instructions),
            "example": shares(tokens, shown.examples, EXAMPLE_RUN, record.words)
            or bool(shown.example_names.in_text(text, record.words))
            or shown.example_names.begin_with(unknown),
            "copied": _is_copied(tokens, record, is_pitch=task.metadata_only),
            "product": task.metadata_only and not task.steers and is_about_another(text, history),
            "another_item": task.states_reason and is_about_another(text, history),
            "names": bool(shown.catalogue.in_text(text, record.words)),
            "unknown_names": bool(unknown),
            **(_steering(text, history, language, shown.catalogue) if task.steers and history else {}),
        }
        failed += [f"{name}.{kind}" for kind, fails in wrong.items() if fails]
        earlier.append(text)
    return {
        **results,
        "failed": [one for one in failed if severity(one) == "error"],
        "warnings": [one for one in failed if severity(one) == "warning"],
    }


def _measured(result: Mapping[str, Any], text: str, task: Narrative, language: str) -> dict[str, bool]:
    """The checks that depend on what the column `checks` holds of a text."""
    length, unspaced = result["words"], len(UNSPACED.findall(text))
    return {
        "words": task.words is not None and unspaced <= length and not task.words[0] <= length <= task.words[1],
        "verbatim": result["verbatim"] > MOST_VERBATIM,
        "language": result["language"] != language and max(length, unspaced) >= LEAST_WORDS,
        "refusal": result["refusal"],
    }


def _steering(text: str, history: Sequence[dict[str, Any]], language: str, catalogue: Names) -> dict[str, bool]:
    """The checks of a critique, by the items of the last two purchases."""
    first, last = (purchase["item"] or {} for purchase in (history[0], *history)[-2:])
    return {
        "sentence": critique_faults.is_several_sentences(text),
        "leak": critique_faults.leaks(text, first, last, catalogue.words, language),
        "unmet": language == "en" and critique_faults.is_unmet(text, first, last, catalogue.words),
    }


def _is_of_instructions(tokens: Sequence[str], instructions: str) -> bool:
    """Whether almost all of a text are runs of three or more words of the instructions."""
    runs = [run for run in shared_runs(tokens, instructions) if run >= 3]
    return bool(runs) and sum(runs) >= REPEATED_INSTRUCTIONS * len(tokens)


def _is_copied(tokens: Sequence[str], record: Record, is_pitch: bool) -> bool:
    """Whether runs of six words from descriptions are most of a text, or one of them is too long."""
    longest, most = (COPIED_RUN_OF_PITCH, MOST_COPIED_OF_PITCH) if is_pitch else (COPIED_RUN, MOST_COPIED)
    runs = [run for run in shared_runs(tokens, record.description_words, record.names) if run >= EXAMPLE_RUN]
    own = text_faults.outside_names(record.names, tokens).total()
    return sum(runs) > most * own or max(runs, default=0) > longest


def severity(failed: str) -> str:
    """The severity of a failed check.

    >>> severity("profile.words"), severity("profile.unknown_names")
    ('error', 'warning')
    """
    return "warning" if failed.partition(".")[2] in WARNINGS else "error"


def reason(failed: str, language: str) -> str:
    """A failed check as a sentence for the repeated request to the language model.

    >>> reason("profile.words", "en")
    'the user_profile must have 4 to 6 words'
    """
    name, _, kind = failed.partition(".")
    task = next(task for task in written_narratives() if task.field[-1] == name)
    least, most = task.words or (0, 0)
    return f"the {task.name} " + KINDS[kind].request.format(least=least, most=most, language=language)


def language_of(text: str) -> str:
    """The language of a text as ISO 639-1, by an offline classifier; unreliable for a few words.

    >>> language_of("Diese Kundin kauft gerne Papier und Tinte.")
    'de'
    """
    from py3langid import classify  # the first import loads a model, which takes a second

    return str(classify(text)[0])
