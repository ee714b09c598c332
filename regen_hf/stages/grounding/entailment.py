"""Verdicts of a model on the claims that the rules cannot check: does the record entail them?

An NLI cross-encoder reads one purchase (or one narrative) at a time, and the highest probability counts: it cannot add
up or compare purchases. A language model reads the complete history at once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ... import llm, prompts
from ...errors import ConfigError
from ...model.interactions import interaction_text
from .vocabulary import stems

if TYPE_CHECKING:
    from pydantic import BaseModel

    from .settings import GroundingConfig

PREMISES = 6
"""Purchases that a cross-encoder reads for a claim: those that share most words with it; ties go to the latest."""
VERDICTS = ("supported", "contradicted", "not told")


@dataclass(frozen=True)
class Question:
    """Claims of one text, and the record that they are checked against."""

    reviewer_id: str
    about: str
    """Task and model, for `failed.jsonl`."""
    claims: tuple[str, ...]
    history: Sequence[dict[str, Any]] | None
    """The purchases, oldest first; None where `text` is the record."""
    text: str = ""


class CrossEncoderNLI:
    """A sentence-transformers cross-encoder for natural language inference.

    Args:
        name: name on the Hub, or folder.
        threshold: least probability of entailment for a supported claim.

    Raises:
        ConfigError: it cannot be loaded, or has no label for entailment.
    """

    def __init__(self, name: str, threshold: float) -> None:
        self.threshold = threshold
        from sentence_transformers import CrossEncoder

        try:
            self.model = CrossEncoder(name, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"The NLI model {name!r} could not be loaded: {error} Give the name or the folder of a "
                "cross-encoder for natural language inference, such as cross-encoder/nli-deberta-v3-base."
            ) from error
        labels = {int(index): label.lower() for index, label in self.model.model.config.id2label.items()}
        entails = [index for index, label in labels.items() if label.startswith("entail")]
        if len(entails) != 1:
            raise ConfigError(
                f"The model {name!r} has the labels {sorted(labels.values())}, expected one of them to be "
                "'entailment'. Give a cross-encoder for natural language inference, such as "
                "cross-encoder/nli-deberta-v3-base."
            )
        self.entails = entails[0]

    def __call__(self, question: Question) -> list[bool]:
        """Whether each claim is entailed with at least the probability `threshold`."""
        pairs, owners = [], []
        for number, claim in enumerate(question.claims):
            for premise in _premises(question, claim):
                pairs.append((premise, claim))
                owners.append(number)
        best = [0.0] * len(question.claims)
        if pairs:
            scores = self.model.predict(pairs, apply_softmax=True, show_progress_bar=False)
            for owner, score in zip(owners, scores, strict=True):
                best[owner] = max(best[owner], float(score[self.entails]))
        return [score >= self.threshold for score in best]


def _premises(question: Question, claim: str) -> list[str]:
    if question.history is None:
        return [question.text] if question.text.strip() else []
    words = set(stems(claim))
    texts = [interaction_text(purchase["item"] or {}, purchase["review"]) for purchase in question.history]
    order = sorted(range(len(texts)), key=lambda index: (len(words & set(stems(texts[index]))), index), reverse=True)
    return [texts[index] for index in order[:PREMISES]]


@functools.cache
def answer_of(number: int) -> type[BaseModel]:
    """The schema of an answer to `prompts/grounding.jinja` about `number` claims."""
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {f"claim_{index}": (Literal[VERDICTS], ...) for index in range(1, number + 1)}
    answer: type[BaseModel] = create_model("claims_checked", __config__=ConfigDict(extra="forbid"), **fields)
    return answer


def request(question: Question, config: GroundingConfig, window: llm.Window) -> llm.Request:
    """The request to a language model about the claims of one narrative."""
    claims = prompts.fence(
        "\n".join(f"{index}. {' '.join(claim.split())}" for index, claim in enumerate(question.claims, 1))
    )
    number = len(question.claims)

    def messages(record: str, what: str) -> tuple[prompts.Message, ...]:
        user = prompts.user("grounding", what=what, record=prompts.fence(record), claims=claims, number=number)
        return prompts.system("grounding"), user

    def of_history(history: Sequence[dict[str, Any]]) -> tuple[prompts.Message, ...]:
        return messages(prompts.history_lines(history), "everything the customer bought, the oldest first")

    if question.history is None:
        about_text = messages(question.text, "what another text says about this customer")
        return llm.Request.of(config, about_text, answer_of(number), window=window)
    fitted = prompts.fit(question.history, of_history, answer_of(number), window)
    return llm.Request.of(config, fitted.messages, answer_of(number), window=window)


class StoredVerdicts:
    """Verdicts of a language model, read from its stored answers; failed requests are listed in `out`."""

    def __init__(self, store: llm.Store, out: Path, config: GroundingConfig, window: llm.Window) -> None:
        self.store, self.config, self.window = store, config, window
        self.failures = llm.Failures(out, config)

    def __call__(self, question: Question) -> list[bool | None]:
        """Whether each claim is supported; None where the request failed."""
        answer = llm.read(request(question, self.config, self.window), self.store)
        self.failures.total += 1
        if isinstance(answer, llm.Failure):
            self.failures.add(question.reviewer_id, question.about, answer)
        if isinstance(answer, llm.Request | llm.Failure):
            return [None] * len(question.claims)
        verdicts = answer.model_dump()
        return [verdicts[f"claim_{index}"] == "supported" for index in range(1, len(question.claims) + 1)]
