"""The parts of the page as HTML. All text of shoppers, visitors and the model goes through `esc`."""

import base64
import difflib
import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

Purchase = Mapping[str, Any]
Task = Mapping[str, Any]
"""An entry of `tasks` in config.json: `name`, `question`, `field` (path of the reference in a row), `rated_in`."""
REVIEW_LENGTH = 220

FULL_BAR = 20.0
"""Influence, in nats, of a full bar: the same for every answer, so that bars of two answers can be compared."""
STRENGTHS = {10.0: "decides", 3.0: "strong", 1.0: "some"}
"""Names of an influence of at least so many nats; below the last one, a purchase hardly matters."""
SHARE = 0.25
"""A second purchase is named only if it has this share of the influence of the first."""


def esc(text: Any) -> str:
    """Text escaped for HTML and for the templates of gr.HTML, isolated in its own direction.

    >>> esc("<b>${1}{{x}}")
    '<bdi>&lt;b&gt;&#36;&#123;1&#125;&#123;&#123;x&#125;&#125;</bdi>'
    """
    escaped = html.escape(str(text))
    for character in "${}`":
        escaped = escaped.replace(character, f"&#{ord(character)};")
    return f"<bdi>{escaped}</bdi>"


def attribute(text: Any) -> str:
    """Text escaped for the quotes of an attribute."""
    return esc(text).removeprefix("<bdi>").removesuffix("</bdi>")


def name(purchase: Purchase) -> str:
    """The title of the item, or its asin."""
    return purchase["item"].get("title") or purchase["item"].get("asin") or "(no title)"


def cut(text: str, length: int = REVIEW_LENGTH) -> str:
    """At most `length` characters, cut after a word."""
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0] + " …"


def stars(rating: Any) -> str:
    """A rating as stars, empty without one."""
    if not rating:
        return ""
    full = max(0, min(5, round(rating)))
    return f'<span class="stars" role="img" aria-label="{full} of 5 stars">{"★" * full}{"☆" * (5 - full)}</span>'


def review(purchase: Purchase) -> str:
    """The text of a review, cut."""
    given = purchase.get("review") or {}
    return cut(given.get("text") or given.get("summary") or "")


def strength(effect: float) -> str:
    """The influence of a purchase in a word."""
    if effect <= -min(STRENGTHS):
        return "against"
    return next((word for least, word in STRENGTHS.items() if effect >= least), "hardly any")


def history(purchases: Sequence[Purchase], measures: Sequence[Mapping[str, float]] | None = None) -> str:
    """The purchases, latest first, with the influence of each on the text if `measures` are given."""
    if not purchases:
        return answer(empty="No purchases yet. Choose a shopper above, or add a purchase.")
    most = max((each["effect"] for each in measures or []), default=0.0)
    cards = []
    for index in reversed(range(len(purchases))):
        purchase, measured = purchases[index], measures[index] if measures else None
        latest = index == len(purchases) - 1
        strongest = measured is not None and measured["effect"] == most >= min(STRENGTHS)
        cards.append(
            f'<li class="card{" last" if latest else ""}{" top" if strongest else ""}" data-purchase="{index}">'
            + ('<div class="badge">last purchase</div>' if latest else "")
            + f'<div class="head"><span class="title">{esc(cut(name(purchase), 120))}</span>'
            + _tools(purchases, index)
            + "</div>"
            + stars((purchase.get("review") or {}).get("rating"))
            + (f'<p class="text">{esc(review(purchase))}</p>' if review(purchase) else "")
            + (_measures(measured) if measured else "")
            + "</li>"
        )
    return (KEY if measures else "") + (
        f'<ol class="history{" measured" if measures else ""}" tabindex="0" reversed '
        f'aria-label="Purchases, latest first">{"".join(cards)}</ol>'
    )


KEY = (
    '<div class="key"><span><i class="for"></i>supports the text</span>'
    '<span><i class="against"></i>speaks against it</span>'
    '<span><i class="cf"></i>who else bought it</span>'
    '<span><i class="content"></i>its description and review</span></div>'
)


def _tools(purchases: Sequence[Purchase], index: int) -> str:
    title = attribute(cut(name(purchases[index]), 80))
    buttons = [
        ("later", "▲", "Make it more recent", index == len(purchases) - 1),
        ("earlier", "▼", "Make it less recent", index == 0),
        ("review", "✎", "What if they had written another review?", False),
        ("remove", "✕", "Remove", False),
    ]
    return (
        '<span class="tools">'
        + "".join(
            f'<button type="button" data-act="{act}" data-at="{index}" title="{hint}" aria-label="{hint}: {title}"'
            f"{' data-event=select' if act == 'review' else ''}{' disabled' if off else ''}>{sign}</button>"
            for act, sign, hint, off in buttons
        )
        + "</span>"
    )


def _measures(measured: Mapping[str, float]) -> str:
    effect = measured["effect"]
    cf, content = (100 * measured[half] for half in ("cf", "content"))
    return (
        '<div class="measure"><span>influence</span><span class="track" role="img" '
        f'aria-label="influence: {strength(effect)} ({effect:+.1f})" title="{effect:+.1f}">'
        f'<span class="{"for" if effect >= 0 else "against"}" style="width:{bar(effect):.1f}%"></span></span>'
        f'<span class="n">{strength(effect)}</span><span>read from</span><span class="track" role="img" '
        f'aria-label="{cf:.0f} % who else bought it, {content:.0f} % its description and review" '
        f'title="{cf:.0f} % who else bought it, {content:.0f} % its description and review">'
        f'<span class="cf" style="width:{cf:.1f}%"></span><span class="content" style="width:{content:.1f}%"></span>'
        "</span></div>"
    )


def bar(effect: float) -> float:
    """Width of the bar of an influence, in percent.

    >>> bar(0.5), bar(51.8)
    (2.5, 100.0)
    """
    return 100 * min(1.0, abs(effect) / FULL_BAR)


def answer(text: str = "", empty: str = "", writing: bool = False, before: str | None = None) -> str:
    """The text of the model, or the hint `empty` without one; words that are not in the text `before` are marked."""
    if not text and not writing:
        return f'<div class="answer empty">{empty}</div>'
    caret = '<span class="caret" aria-hidden="true"></span>' if writing else ""
    return (
        f'<div class="answer" aria-live="polite" aria-busy="{str(writing).lower()}">{marked(text, before)}{caret}</div>'
    )


def what_if(text: str, before: str) -> str:
    """How a text differs from the one before the history was changed."""
    words, total = differing(text, before), len(text.split())
    change = "Your change did not change the text." if not words else f"Your change changed {words} of {total} words."
    return (
        f'<p class="why">{change}</p><div class="reference"><small>Before your change:</small><br>{esc(before)}</div>'
    )


def why(purchases: Sequence[Purchase], measures: Sequence[Mapping[str, float]]) -> str:
    """What the text rests on: a sentence, and the purchases with the most influence."""
    ranked = sorted(range(len(purchases)), key=lambda index: -measures[index]["effect"])
    effects = [measures[index]["effect"] for index in ranked]
    strongest = [
        f"<b>{esc(cut(name(purchases[index]), 90))}</b>"
        for index, effect in zip(ranked[:2], effects, strict=False)
        if effect >= min(STRENGTHS) and effect >= SHARE * effects[0]
    ]
    if strongest:
        sentence = f"Mostly because of {' and '.join(strongest)}."
    else:
        sentence = "No single purchase decides this text: without any one of them it would be about as likely."
    chips = "".join(
        f'<button type="button" class="chip" data-purchase="{index}">{esc(cut(name(purchases[index]), 40))} '
        f"<b>{strength(effect)}</b></button>"
        for index, effect in zip(ranked[:3], effects, strict=False)
        if effect > 0
    )
    return f'<p class="why">{sentence}</p><div class="chips" aria-label="Most influence" role="group">{chips}</div>'


def line(text: str, bad: bool = False) -> str:
    """A message in a line, which screen readers read at once; empty without one."""
    if not text:
        return ""
    return f'<p class="note{" bad" if bad else ""}" role="{"alert" if bad else "status"}">{esc(text)}</p>'


def reference(text: str | None) -> str:
    """The reference text of the dataset, empty without one."""
    if not text:
        return ""
    return f'<div class="reference"><small>Reference in the dataset:</small><br>{esc(text)}</div>'


def _runs(text: str, base: str) -> list[tuple[bool, list[str]]]:
    """The words of the text in runs, each with whether `base` has them too."""
    words, others = text.split(), base.split()
    codes = difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes()
    return [(kind == "equal", words[start:end]) for kind, start, end, _, _ in codes if end > start]


def marked(text: str, base: str | None) -> str:
    """The text with marks on the words that differ from `base`."""
    if base is None or base.split() == text.split():
        return esc(text)
    runs = [(same, esc(" ".join(words))) for same, words in _runs(text, base)]
    return " ".join(run if same else f"<mark>{run}</mark>" for same, run in runs)


def differing(text: str, base: str) -> int:
    """The number of words of the text that are not in `base`, or words of `base` that are missing if that is more."""
    return max(sum(len(words) for same, words in _runs(*pair) if not same) for pair in ((text, base), (base, text)))


def verdict(texts: Mapping[str, str]) -> str:
    """What the parts of the purchases changed in the text, in a sentence each."""
    full = texts["fused"]
    parts = {"content": "Without other shoppers' purchases", "cf": "Without the texts", "empty": "Without any purchase"}
    total, said = max(1, len(full.split())), []
    for part, condition in parts.items():
        words = min(differing(full, texts[part]), total)
        change = "nothing changes: the text is the same" if not words else f"{words} of {total} words change"
        said.append(f"<li>{condition}, <b>{change}</b>.</li>")
    return f'<ul class="verdict">{"".join(said)}</ul>'


def comparison(texts: Mapping[str, str], titles: Mapping[str, tuple[str, str]]) -> str:
    """The verdict, then texts side by side; words that are not in the text from everything are marked."""
    full = texts["fused"]
    same = {view for view, text in texts.items() if text == full and view != "fused"}
    cards = [
        f'<div class="card"><h3>{title}</h3><small>{about}</small>'
        f"<p>{marked(texts[view], None if view == 'reference' else full) or '(empty)'}</p>"
        + ('<p class="note">The same, word for word, as from everything.</p>' if view in same else "")
        + "</div>"
        for view, (title, about) in titles.items()
        if view in texts
    ]
    note = '<p class="note">Marked words are not in the text from everything.</p>'
    return f'{verdict(texts)}{note}<div class="columns">{"".join(cards)}</div>'


def recommended(items: Sequence[Mapping[str, Any]]) -> str:
    """The recommended items, each with its endorsement if it has been requested."""
    best = max((each["score"] for each in items), default=0.0)
    busy = " disabled" if any(each.get("writing") for each in items) else ""  # one text at a time
    cards = []
    for index, each in enumerate(items):
        width = max(0.0, 100 * each["score"] / best) if best > 0 else 0.0
        text, item = each.get("text"), each["item"]
        title, price = attribute(cut(name(each), 80)), f"${item['price']:.2f}" if item.get("price") else ""
        cards.append(
            f'<li class="card"><div class="head"><span class="title">{index + 1}. {esc(cut(name(each), 120))}</span>'
            f"<span>{price}</span></div>"
            + (f'<p class="text">{esc(item["category"])}</p>' if item.get("category") else "")
            + ('<span class="chip">new: nobody bought it, chosen by its description</span>' if each.get("cold") else "")
            + '<div class="measure"><span>fits</span><span class="track" role="img" '
            f'aria-label="fits {width:.0f} % as well as the best" title="compared with the best">'
            f'<span class="for" style="width:{width:.1f}%"></span></span></div>'
            + (
                answer(text, writing=each.get("writing", False))
                if text is not None
                else f'<button type="button" class="act" data-act="endorse" data-at="{index}"{busy} '
                f'aria-label="Why this one? {title}">Why this one?</button>'
            )
            + f'<button type="button" class="act" data-event="select" data-act="own" data-at="{index}" '
            f'aria-label="Add to the purchases: {title}">Add to the purchases</button></li>'
        )
    return f'<ul class="cards">{"".join(cards)}</ul>'


def dialogue(asked: Sequence[Mapping[str, str]]) -> str:
    """The items that were recommended before, and what the visitor said about each."""
    turns = "".join(f"<li><b>{esc(cut(each['title'], 80))}</b><br>You: {esc(each['critique'])}</li>" for each in asked)
    return f'<ol class="dialogue" aria-label="Before">{turns}</ol>' if asked else ""


def buttons(labels: Mapping[Any, str], act: str) -> str:
    """Labels as buttons that send their key."""
    return "".join(
        f'<button type="button" class="chip" data-act="{act}" data-at="{attribute(key)}">{esc(label)}</button>'
        for key, label in labels.items()
    )


def short(category: str) -> str:
    """The last part of the path of a category.

    >>> short("Everyday Goods - Paper & Writing - Pen Cases")
    'Pen Cases'
    """
    return re.split(r"\s+[->|›/:]+\s+", category)[-1]


def person(purchases: Sequence[Purchase], shopper: str | None, changed: bool) -> str:
    """A shopper in a line: its name, and some of the items."""
    if not purchases:
        return '<p class="person"><b>Nobody yet:</b> no purchases.</p>'
    who = "Your own list" if shopper is None else shopper + (", changed by you" if changed else "")
    return f'<p class="person"><b>{esc(who)}</b> bought {esc(teaser(purchases))}</p>'


def teaser(purchases: Sequence[Purchase], items: int = 3) -> str:
    """The latest items of a history, and how many more there are."""
    names = [cut(name(purchase), 48) for purchase in reversed(purchases[-items:])]
    more = len(purchases) - len(names)
    return " · ".join(names) + (f" and {more} more" if more else "")


def link(shopper: str | None, purchases: str, ask: str = "") -> str:
    """The state of a visitor, for the address of the page; with `ask`, which differs each time, the page asks."""
    return f'<i data-shopper="{shopper or ""}" data-purchases="{attribute(purchases)}" data-ask="{ask}"></i>'


def scores(rated: Mapping[str, Any] | None) -> str:
    """Scores of 1 to 7 as chips."""
    return "".join(
        f'<span class="chip">{aspect} {value}</span>' for aspect, value in (rated or {}).items() if value is not None
    )


def reference_text(row: Mapping[str, Any], task: Task) -> str | None:
    """The reference text of a task in a row of the dataset, None where the row has none."""
    value: Any = row
    for key in task["field"]:
        if value is None or (isinstance(key, int) and not value):
            return None
        value = value.get(key) if isinstance(key, str) else value[key]
    return value


def shopper(row: Mapping[str, Any], split: str, number: int, tasks: Mapping[str, Task]) -> str:
    """A shopper of the dataset as a card that can be opened."""
    purchases, metadata = row["purchase_history"], row.get("metadata") or {}
    texts = {task: reference_text(row, tasks[task]) for task in tasks}
    narratives = "".join(
        f"<dt>{tasks[task]['question']}</dt><dd>{esc(text)}<br>{scores(metadata.get(tasks[task]['rated_in']))}</dd>"
        for task, text in texts.items()
        if text
    )
    bought = "".join(
        f"<li><b>{esc(cut(name(purchase), 120))}</b> {stars((purchase.get('review') or {}).get('rating'))}"
        f'<p class="text">{esc(review(purchase))}</p></li>'
        for purchase in reversed(purchases)
    )
    profile = cut(texts.get("user_profile") or "(no profile)", 120)
    return (
        f'<details class="card"><summary>{esc(profile)} <span class="chip">{split} {number + 1}</span>'
        f'<span class="chip">{len(purchases)} purchases</span>{scores(metadata.get("example"))}'
        f'</summary><button type="button" class="act" data-act="{split}" data-at="{number}">Open this history in the '
        f"first tab</button><dl class='texts'>{narratives}</dl><details><summary>Purchases, latest first</summary>"
        f'<ol class="cards">{bought}</ol></details></details>'
    )


def code(source: str, label: str) -> str:
    """A program to copy."""
    return (
        f'<h4>{label}</h4><pre class="code" tabindex="0" role="region" aria-label="{label}">{attribute(source)}</pre>'
    )


CAPTIONS = {
    "history_lengths": "How many purchases the shoppers have",
    "item_counts": "How often each item was bought",
    "left_out": "Influence of each purchase on an answer: how much less likely it is without the purchase",
    "loss": "Error of the model while it was trained",
    "norm_shares": "How much the model reads from who else bought an item, and how much from its text",
    "rated": "Ratings of the texts of the dataset, from 1 (bad) to 7 (good)",
    "ratings_over_time": "Stars that shoppers gave, over time",
    "richness": "How much the purchases of a shopper reveal, rated from 1 to 7",
    "scores": "How similar the texts of the model and its rivals are to those of the dataset",
    "soft_token_parts": "The items as the model sees them, by who else bought them and by their text",
    "soft_tokens": "The items as the model sees them: similar items are close",
    "split_sizes": "Shoppers for training and for testing",
}
"""What the figures of a dataset show, by the start of their names."""


def figures(paths: Sequence[Any]) -> str:
    """Figures with their captions, as data in the page: its addresses name no folder of the server."""
    shown = []
    for path in paths:
        known = max((stem for stem in CAPTIONS if path.stem.startswith(stem)), key=len, default=None)
        caption = attribute(CAPTIONS[known] if known else path.stem.replace("_", " "))
        data = base64.b64encode(path.read_bytes()).decode()
        shown.append(
            f'<figure><img src="data:image/png;base64,{data}" alt="{caption}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    return f'<div class="figures">{"".join(shown)}</div>'
