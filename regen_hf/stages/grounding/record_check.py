"""The verdict of the record on single sentences, for texts that were written outside a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...model.histories import read_histories
from ...outputs import is_run
from .build import Claim, catalogue_vocabulary
from .facts import ENTITIES, Record, claims, facts
from .vocabulary import Vocabulary

SUPPORTED, CONTRADICTED, NOT_IN_THE_RECORD = "supported", "contradicted", "not in the record"
Verdict = dict[str, Any]


def record_check(
    catalogue: str | Path | Iterable[Mapping[str, Any]], texts: Iterable[str] = ()
) -> Callable[[Sequence[Mapping[str, Any]], Sequence[str]], list[Verdict]]:
    """A function that compares the sentences of a text with a history, by the rules of `regen grounding`.

    >>> check = regen_hf.record_check("runs/office")  # doctest: +SKIP
    >>> regen.narrate(history, task="user_profile", cite=True, check=check)  # doctest: +SKIP

    Args:
        catalogue: a run folder with a dataset, or the items of a shop, each with title, category and description:
            names of things that no history contains are known from them.
        texts: with items, reviews or other prose, in which names have capitals and other words do not.

    Returns:
        `check(history, sentences)`, which returns for each sentence its `verdict`: "supported", "contradicted", "not
        in the record" (it names a thing that was not bought), or None if no rule can check it; and `unsupported`, the
        words of the facts that the record does not support.

    Raises:
        InputError: `catalogue` is a path, but not that of a run.
    """
    if isinstance(catalogue, str | Path):
        if not is_run(Path(catalogue)):
            raise InputError(f"{catalogue} is not a run folder, expected one, or a list of items.")
        vocabulary = catalogue_vocabulary(Path(catalogue))
    else:
        items = [dict.fromkeys(("title", "category", "description")) | dict(item) for item in catalogue]
        vocabulary = Vocabulary.of(items, texts)

    def check(history: Sequence[Mapping[str, Any]], sentences: Sequence[str]) -> list[Verdict]:
        records = [Record.read(purchase) for purchase in read_histories([history])[0][0]]
        verdicts: list[Verdict] = []
        before = ""  # the clause to which "the brand" refers
        for sentence in sentences:
            texts = claims(sentence)
            compared = [
                Claim(text, facts(text, earlier, records, vocabulary))
                for text, earlier in zip(texts, [before, *texts], strict=False)
            ]
            before = texts[-1] if texts else before
            wrong = [fact for claim in compared for fact in claim.facts if not fact.supported]
            denied = [fact for fact in wrong if fact.kind not in ENTITIES or fact.value[0]]
            verdict: str | None = CONTRADICTED if len(denied) == len(wrong) else NOT_IN_THE_RECORD
            if not wrong:
                checked = [claim.supported for claim in compared if claim.facts]
                verdict = SUPPORTED if checked and all(checked) else None
            verdicts.append({"verdict": verdict, "unsupported": [fact.text for fact in wrong]})
        return verdicts

    return check
