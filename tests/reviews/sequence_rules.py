"""The rules of docs/own_data.md in plain Python, continued: rows of reviews and items -> histories and accounting."""

import datetime
import hashlib
import itertools
from collections import Counter, defaultdict

from tests.reviews.reading_rules import EPOCH, NS, Refused, item_row, read_files, review_row


def best(records):
    """The most complete record of an item: with a title, then more fields, then more text."""
    names = ("title", "category", "description")

    def rank(row):
        texts = [row[name] for name in names]
        filled = sum(value is not None for value in row.values())
        length = sum(len(text or "") for text in texts)
        return (row["title"] is None, -filled, -length, *(text or "" for text in texts), row["price"] or -1)

    return min(records, key=rank)


def sequences(reviews, items, settings):
    """What the stage writes: histories by user, items, and `accounting.json`."""
    item_rows, items_account, item_files = read_files(items, "items", settings, item_row)
    rows, account, review_files = read_files(
        reviews, "reviews", settings, lambda texts, counts: review_row(texts, settings, counts)
    )
    if not account.read or not items_account.read:
        raise Refused("no record")
    by_asin = defaultdict(list)
    for row in item_rows:
        by_asin[row["asin"]].append(row)
    catalogue = {asin: best(records) for asin, records in by_asin.items()}
    titled = {asin for asin, row in catalogue.items() if row["title"]}
    by_user = defaultdict(set)
    for row in rows:
        by_user[row[0]].add(row)
    account.dropped["duplicate"] += len(rows) - sum(map(len, by_user.values()))
    first, last = (settings.since or "0001-01-01", settings.until or "9999-12-31")

    def lost(row):
        day = (EPOCH + datetime.timedelta(seconds=row[2] // NS)).date().isoformat()
        return (
            (day < first and "before_since")
            or (day > last and "after_until")
            or (row[1] not in catalogue and "unknown_item")
            or (row[1] not in titled and "untitled_item")
        )

    core = k_core([row for user in by_user.values() for row in user if not lost(row)], titled, settings.k_core)
    histories, users, tied = {}, Counter(), 0
    for user, purchases in by_user.items():
        reasons = {row: lost(row) or (row[1] not in core and "k_core") for row in purchases}
        kept = [row for row in purchases if not reasons[row]]
        account.dropped.update(reason for reason in reasons.values() if reason)
        if len(kept) < settings.k_core:
            account.dropped["k_core"] += len(kept)
            reasons |= dict.fromkeys(kept, "k_core")
            kept = []
        kept.sort(key=lambda row: (row[2], tie(row), row[1], row[3] or 0, row[4] or "", row[5] or ""))
        account.dropped["beyond_max_history"] += max(0, len(kept) - settings.max_history)
        kept = kept[-settings.max_history :]
        if len(kept) < settings.min_history:
            account.dropped["short_history"] += len(kept)
            users["k_core" if not kept and "k_core" in reasons.values() else "short_history"] += 1
            continue
        tied += sum(one[2] == other[2] for one, other in itertools.pairwise(kept))
        histories[user] = [
            {
                "item": catalogue[row[1]],
                "review": {"summary": row[4], "rating": row[3], "text": row[5], "unix_time": row[2] // NS},
            }
            for row in kept
        ]
    if not histories:
        raise Refused("No user is left")
    items_account.dropped["duplicate"] += len(item_rows) - len(catalogue)
    items_account.dropped["untitled"] += len(catalogue) - len(titled)
    items_account.dropped["k_core"] += len(titled) - len(core)
    purchases = sum(map(len, histories.values()))
    return {
        "users": histories,
        "items": sorted((catalogue[asin] for asin in core), key=lambda row: row["asin"]),
        "accounting": {
            "reviews": account.entry(),
            "items": items_account.entry(),
            "users": {"kept": len(histories), "dropped": {name: n for name, n in users.items() if n}},
            "times": {"purchases": purchases, "tied": tied},
            "cleaned": {"reviews": dict(+account.cleaned), "items": dict(+items_account.cleaned)},
            "files": {"reviews": review_files, "items": item_files},
        },
    }


def tie(row):
    return hashlib.md5(f"{row[0]}\t{row[1]}".encode()).hexdigest()[:8]


def k_core(purchases, items, k):
    """The items with at least `k` purchases by users with at least `k` purchases of such items."""
    core = set(items)
    while k:
        users = Counter(row[0] for row in purchases if row[1] in core)
        counts = Counter(row[1] for row in purchases if row[1] in core and users[row[0]] >= k)
        kept = {asin for asin in core if counts[asin] >= k}
        if kept == core:
            break
        core = kept
    return core
