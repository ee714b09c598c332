"""The history of a visitor: the purchases of a shopper of the dataset with changes, as it stands in the page's address.

A history is a list of entries: the index of a purchase of the shopper; or [index, rating, review] for one with another
review; or [asin, rating, review] for another item of the catalogue.
"""

import json
from typing import Any
from urllib.parse import quote_plus

from shoppers import Shoppers
from start import malformed

MAX_PURCHASES = 50
MAX_REVIEW = 500
MAX_LINK = 6_000
"""Bytes of the purchases in an address. Servers and proxies refuse requests with a line of 8 KB."""
Visit = dict[str, Any]
"""The state of a visitor: `shopper` ("test-0", or None), `entries`, and `history`, the purchases of the entries."""


class LinkError(ValueError):
    """The address of a page names no shopper or purchases of this dataset."""


def visit(shoppers: Shoppers, shopper: str | None, entries: list[Any] | None = None) -> Visit:
    """The history of a shopper, or of entries of it.

    Raises:
        LinkError: there is no such shopper or purchase.
    """
    own = row(shoppers, shopper)["purchase_history"] if shopper else []
    if entries is None:
        entries = list(range(len(own)))
    elif not isinstance(entries, list) or len(entries) > MAX_PURCHASES:
        raise LinkError(f"expected a list of at most {MAX_PURCHASES} purchases")
    history, latest = [], -1
    for entry in entries:
        key, changed = (entry[0], entry[1:]) if isinstance(entry, list) and len(entry) == 3 else (entry, None)
        review = changed and _review(*changed)
        if isinstance(key, int) and 0 <= key < len(own):
            purchase = own[key]
            review = (purchase["review"] or {}) | review if review else purchase["review"]
            if review and key < latest:  # moved: the model refuses a time that is not in this order
                review = review | {"unix_time": None}
            latest = max(latest, key)
            history.append(purchase | {"review": review})
        elif isinstance(key, str) and review and (item := shoppers.item(key)):
            history.append({"item": item, "review": review | {"unix_time": None}})
        else:
            raise LinkError(f"{str(entry)[:40]} is not a purchase of this dataset")
    return {"shopper": shopper, "entries": entries, "history": history}


def row(shoppers: Shoppers, shopper: str) -> dict[str, Any]:
    """The row of the dataset of a shopper, such as "test-0".

    Raises:
        LinkError: there is no such shopper.
    """
    split, _, number = shopper.rpartition("-")
    known = split in shoppers.splits and number.isdecimal() and len(number) < 6
    if not known or int(number) >= len(shoppers.rows(split)):
        raise LinkError(f"{shopper[:40]!r} is not a shopper of this dataset")
    return shoppers.rows(split)[int(number)]


def _review(rating: Any, text: Any) -> dict[str, Any]:
    if rating not in (1, 2, 3, 4, 5) or not isinstance(text, str) or len(text) > MAX_REVIEW:
        raise LinkError(f"a review has a rating from 1 to 5 and at most {MAX_REVIEW} characters")
    return {"summary": None, "rating": int(rating), "text": text or None}


def changed(shoppers: Shoppers, visit: Visit) -> bool:
    """Whether the history is not that of a shopper of the dataset."""
    shopper = visit["shopper"]
    return not shopper or visit["entries"] != list(range(len(row(shoppers, shopper)["purchase_history"])))


def from_link(shoppers: Shoppers, shopper: str | None, purchases: str | None) -> Visit:
    """The history in the address of a page; without one that of the first shopper.

    Raises:
        LinkError: the address names no shopper or purchases of this dataset.
    """
    if shopper is None and purchases is None:
        return visit(shoppers, f"{shoppers.split}-0")
    try:
        entries = None if purchases is None else json.loads(purchases)
        if reason := malformed([shopper, entries]):
            raise LinkError(f"it {reason}")
        return visit(shoppers, shopper or None, entries)
    except LinkError:
        raise
    except (ValueError, RecursionError) as error:
        raise LinkError("the purchases are not a JSON list") from error


def to_link(entries: list[Any]) -> str | None:
    """The entries as they stand in the address of a page, None where they are too long for it."""
    purchases = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    return purchases if len(quote_plus(purchases)) <= MAX_LINK else None
