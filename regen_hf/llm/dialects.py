"""The fields that a server accepts for a model: derived from its errors and its first answers, and stored."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .answers import has_fields
from .connection import stated_window
from .request import FORMS, Reply, Request, without_system

SEEDS = ("seed", "random_seed", "")
"""Names of the seed field: the usual one, Mistral's, and none."""
SYSTEM = re.compile(
    r"system\W{1,3}(role|message|prompt|instruction)|roles?\W{1,3}(of\W+)?system|developer (role|message|instruction)"
    r"|roles must alternate|only user\b.{1,10}\b(assistant|model)",
    re.I,
)
"""Error messages of chat templates without a system role."""
FORM = re.compile(r"response_format|json|schema|grammar|guided|structured|(requested|unsupported) parameters?", re.I)
"""Error messages about the form of the answer."""


@dataclass(frozen=True)
class Dialect:
    """The fields that a server accepts for a model."""

    form: str = FORMS[0]
    max_tokens: str = "max_tokens"
    """Name of the field; newer OpenAI models require max_completion_tokens."""
    seed: str = SEEDS[0]
    """Name of the field, empty where the server accepts none."""
    temperature: bool = True
    """Whether the model accepts the field; many reasoning models reject any value except their default."""
    system: bool = True
    """Whether the chat template has a system role. Otherwise its text becomes the start of the user's message."""

    def body(self, request: Request) -> dict[str, Any]:
        """The JSON body of `request`."""
        body = request.body(self.form)
        if not self.system:
            body["messages"] = without_system(body["messages"])
        body[self.max_tokens] = body.pop("max_tokens")
        seed = body.pop("seed")
        if self.seed:
            body[self.seed] = seed
        if not self.temperature:
            del body["temperature"]
        return body

    def after(self, message: str) -> Dialect | None:
        """The dialect to try after the error `message` of the server; None after the last one."""
        if self.max_tokens == "max_tokens" and "max_completion_tokens" in message:
            return dataclasses.replace(self, max_tokens="max_completion_tokens")
        if self.seed and _names(self.seed, message):
            return dataclasses.replace(self, seed=SEEDS[SEEDS.index(self.seed) + 1])
        if self.temperature and _names("temperature", message):
            return dataclasses.replace(self, temperature=False)
        if self.system and SYSTEM.search(message):
            return dataclasses.replace(self, system=False)
        return self.weaker()

    def weaker(self) -> Dialect | None:
        """The same with the next form of FORMS; None after the last one."""
        if self.form == FORMS[-1]:
            return None
        return dataclasses.replace(self, form=FORMS[FORMS.index(self.form) + 1])


class Dialects:
    """The dialects of the models on one server.

    The dialect of the first answer is accepted, and proven by the first usable answer. Until then, refusals change it.
    A server that ignores the form accepts it too: where unusable answers outnumber the usable ones, the next form is
    accepted. A proven dialect is stored, and final in later runs.
    """

    def __init__(self, known: dict[str, Dialect], remember: Callable[[str, Dialect], None]) -> None:
        self._remember = remember
        self._accepted = known
        self._stored = frozenset(self._accepted)
        self._proven = set(self._accepted)
        self._after_fault: Counter[str] = Counter()
        self._balance: Counter[str] = Counter()
        """Usable answers minus unusable ones."""

    def __contains__(self, model: str) -> bool:
        """Whether the server has answered a request to `model`."""
        return model in self._accepted or model in self._after_fault

    def of(self, model: str) -> Dialect:
        """The dialect for the next request to `model`."""
        return self._accepted.get(model, Dialect())

    def after_refusal(self, model: str, dialect: Dialect, status: int, message: str) -> Dialect | None:
        """The dialect to try after an error; None where the dialect is not the reason."""
        if stated_window(message) is not None:
            return None
        refused = status in (400, 422, 501) or (status not in (0, 401, 402, 403, 429, 503) and names_dialect(message))
        return dialect.after(message) if refused and model not in self._proven else None

    def after_fault(self, model: str, dialect: Dialect, status: int) -> Dialect:
        """The dialect of the retry after an error without a reason; some servers answer an unknown form with a 500."""
        if status != 500 or model in self._accepted:
            return self.of(model)
        return dialect.weaker() or Dialect()

    def accept(self, model: str, dialect: Dialect, after_fault: bool = False) -> None:
        """Learn from an answer.

        Args:
            model: The model of the request.
            dialect: The dialect of the request.
            after_fault: Whether it comes from `after_fault`. The fault may have had another reason, so it takes two
                requests.
        """
        accepted = self._accepted.get(model)
        if accepted is None and after_fault:
            self._after_fault[model] += 1
        if accepted is None:
            if not after_fault or self._after_fault[model] > 1:
                self._accepted[model] = dialect
        elif not (after_fault or model in self._proven) and FORMS.index(dialect.form) >= FORMS.index(accepted.form):
            self._accepted[model] = dialect

    def judge(self, request: Request, reply: Reply, usable: bool) -> bool:
        """Learn from an answer; returns whether the form changes.

        An answer that is unusable for another reason than its form does not count.
        """
        model, dialect = request.model, self._accepted.get(request.model)
        if dialect is None or model in self._stored or reply.form != dialect.form:
            return False
        if not usable and (reply.cut_off or reply.withheld or has_fields(reply.text, request.answer)):
            return False
        self._balance[model] += 1 if usable else -1
        if usable and model not in self._proven:
            self._proven.add(model)
            self._remember(model, dialect)
        elif self._balance[model] < 0 and (weaker := dialect.weaker()):
            self._accepted[model] = weaker
            self._proven.discard(model)
            self._balance[model] = 0
            return True
        return False


def names_dialect(message: str) -> bool:
    """Whether an error message is about the form of the answer or the system role.

    >>> names_dialect("Failed to parse grammar"), names_dialect("System role not supported"), names_dialect("busy")
    (True, True, False)
    """
    return bool(FORM.search(message) or SYSTEM.search(message))


def _names(field: str, message: str) -> bool:
    """Whether an error message names the field `field` of the request, not only the word."""
    return re.search(rf"""['"`.]{field}\b|: {field}\b""", message) is not None
