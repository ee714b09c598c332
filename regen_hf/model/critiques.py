"""Critiques: what a customer says should be different about an item, before the next one (arXiv 2503.11924).

In a prompt a critique is text between the placeholder of the item that it is about and that of the next item. It is
untrusted: in a prompt it is one quoted line without special tokens.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from .histories import encodable, is_list

MAX_CRITIQUE = 500
"""Maximum characters of a critique: it is one sentence."""


def quoted(critique: str, special: Iterable[str]) -> str:
    r"""A critique as it stands in a prompt: one line in quotation marks, without the `special` tokens.

    >>> quoted('In "navy",\n please<|end|>', ["<|end|>"])
    '\nThe customer says: "In \'navy\', please"\n'
    """
    tokens = sorted(filter(None, special), key=len, reverse=True)
    text = encodable(critique)
    if tokens:
        text = re.sub("|".join(map(re.escape, tokens)), " ", text)
    return '\nThe customer says: "' + " ".join(text.split()).replace('"', "'") + '"\n'


def by_position(critiques: Sequence[str | None], n_items: int) -> dict[int, str]:
    """The critiques by the position of the item that each is about, among `n_items`, whose last one is still open.

    They are about the items before the open one, in order. Those of items that were left out are left out too.

    >>> by_position(["cheaper", None, "in navy"], n_items=6), by_position(["cheaper", "in navy"], n_items=2)
    ({2: 'cheaper', 4: 'in navy'}, {0: 'in navy'})
    """
    first = n_items - 1 - len(critiques)
    return {first + turn: text for turn, text in enumerate(critiques) if text and first + turn >= 0}


def read_turns(critique: Any, shown: Any, n_histories: int, single: bool) -> list[tuple[list[str | None], list[Any]]]:
    """For each history the critiques, and the items shown after it; the last critique is about the last item.

    An empty critique is none.

    Args:
        critique: text, or a list with one critique or None for each item shown; one of these per history for several.
        shown: a list of items, oldest first; one list per history for several.
        n_histories: number of histories.
        single: whether there is one history that was not passed in a list.

    Raises:
        ValueError: a value has the wrong type, numbers differ, or a critique is longer than MAX_CRITIQUE.

    >>> read_turns("in navy", None, 1, single=True), read_turns([None, "in navy"], ["B1", "B2"], 1, single=True)
    ([(['in navy'], [])], [([None, 'in navy'], ['B1', 'B2'])])
    >>> read_turns(["in navy", None], None, 2, single=False)
    [(['in navy'], []), ([], [])]
    """
    values = {"critique": critique, "shown": shown}
    for name, value in values.items():
        if value is None or single:
            values[name] = [value] * n_histories
            continue
        values[name] = list(value) if is_list(value) else []
        if len(values[name]) != n_histories:
            raise ValueError(
                f"{name} is {reprlib.repr(value)}, expected a list with one value for each of the {n_histories} "
                "histories."
            )
    return [_turns(*pair) for pair in zip(values["critique"], values["shown"], strict=True)]


def one_list_each(critiques: Any, n_histories: int) -> list[Sequence[str | None]]:
    """The critiques of each history as the processor takes them; none where `critiques` is None.

    Raises:
        ValueError: there is not one list for each history.
    """
    if critiques is None:
        return [()] * n_histories
    rows = list(critiques)
    if len(rows) != n_histories or not all(map(is_list, rows)):
        raise ValueError(
            f"critiques is {critiques!r:.80}, expected a list of texts or None for each of the {n_histories} histories."
        )
    return rows


def _turns(critique: Any, shown: Any) -> tuple[list[str | None], list[Any]]:
    """The critiques and the items of one history."""
    if shown is None:
        items = []
    elif not is_list(shown):
        raise ValueError(f"shown is {reprlib.repr(shown)}, expected a list of items of the catalogue, oldest first.")
    else:
        items = list(shown)
    if critique is None or isinstance(critique, str):
        given = [None] * (len(items) - 1) + [critique]
    else:
        given = list(critique) if is_list(critique) else []
        if len(given) != max(1, len(items)):
            of_items = f"for each of the {len(items)} items in shown" if items else "for the last purchase"
            raise ValueError(
                f"critique is {reprlib.repr(critique)}, expected text, or a list with text or None {of_items}."
            )
    checked = [_checked(text) for text in given]
    return checked if any(checked) else [], items


def _checked(critique: Any) -> str | None:
    if critique is None:
        return None
    if not isinstance(critique, str):
        raise ValueError(f"critique is {reprlib.repr(critique)}, expected text.")
    text = critique.strip()
    if len(text) > MAX_CRITIQUE:
        raise ValueError(
            f"The critique has {len(text):,} characters, expected at most {MAX_CRITIQUE}: say in one sentence what "
            "should be different."
        )
    return text or None


__all__ = ["MAX_CRITIQUE", "by_position", "one_list_each", "quoted", "read_turns"]
