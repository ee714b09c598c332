"""What the Space shows, as HTML. Everything that a shopper, a visitor or the model wrote goes through `esc`."""

import difflib
import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

QUESTIONS = {  # by task: what a visitor asks, and where the dataset holds an answer
    "user_profile": ("Who is this, in a phrase?", ("user", "profile")),
    "brief_user_summary": ("Who, briefly?", ("user", "brief_summary")),
    "long_user_summary": ("Who, in detail?", ("user", "long_summary")),
    "purchase_reason": ("Why the last purchase?", ("last_purchase", "reason")),
    "purchase_reason_explanation": ("How does it fit the others?", ("last_purchase", "explanation")),
    "product_endorsement": ("How to recommend it? (their review is hidden)", ("last_purchase", "endorsement")),
}
REVIEW_LENGTH = 220

CLICKS = """
element.addEventListener('click', event => {
  const button = event.target.closest('button[data-act]');
  if (button && !button.disabled) {
    trigger('click', { act: button.dataset.act, at: button.dataset.at });
  }
});
watch('value', () => {
  const strongest = element.querySelector('ol.measured li.top');
  if (strongest) {
    strongest.parentElement.scrollTop = strongest.offsetTop - strongest.parentElement.offsetTop;
  }
});
"""
"""Runs where the page is shown: a button tells which one it is, and a history is scrolled to its strongest purchase."""


def esc(text: Any) -> str:
    """Text as HTML that means nothing, also to the templates of gr.HTML, in its own direction.

    >>> esc("<b>${1}{{x}}")
    '<bdi>&lt;b&gt;&#36;&#123;1&#125;&#123;&#123;x&#125;&#125;</bdi>'
    """
    escaped = html.escape(str(text))
    for character in "${}`":
        escaped = escaped.replace(character, f"&#{ord(character)};")
    return f"<bdi>{escaped}</bdi>"


def attribute(text: Any) -> str:
    """As `esc`, inside the quotes of an attribute."""
    return esc(text).removeprefix("<bdi>").removesuffix("</bdi>")


def name(purchase: Mapping[str, Any]) -> str:
    """What an item is called."""
    return purchase["item"].get("title") or purchase["item"].get("asin") or "(no name)"


def cut(text: str, length: int = REVIEW_LENGTH) -> str:
    """At most `length` characters, ending at a word."""
    return text if len(text) <= length else text[:length].rsplit(" ", 1)[0] + " …"


def stars(rating: Any) -> str:
    """A rating as stars, nothing where there is none."""
    if not rating:
        return ""
    full = max(0, min(5, round(rating)))
    return f'<span class="stars" role="img" aria-label="{full} of 5 stars">{"★" * full}{"☆" * (5 - full)}</span>'


def review(purchase: Mapping[str, Any]) -> str:
    """The words of a review, cut."""
    given = purchase.get("review") or {}
    return cut(given.get("text") or given.get("summary") or "")


def history(purchases: Sequence[Mapping[str, Any]], measures: Sequence[Mapping[str, float]] | None = None) -> str:
    """The purchases, the latest first, with what each one did to the text where that is known."""
    if not purchases:
        return (
            '<div class="said empty">No purchases yet. Choose a shopper above, or search the catalogue and add what '
            "you would buy.</div>"
        )
    most = max((abs(each["effect"]) for each in measures or []), default=0.0)
    cards = []
    for place in reversed(range(len(purchases))):
        purchase, measured = purchases[place], measures[place] if measures else None
        latest = place == len(purchases) - 1
        strongest = measured is not None and most > 0 and measured["effect"] == most
        cards.append(
            f'<li class="card{" last" if latest else ""}{" top" if strongest else ""}">'
            + ('<div class="badge">last purchase</div>' if latest else "")
            + f'<div class="head"><span class="title">{esc(cut(name(purchase), 120))}</span>'
            + _tools(purchases, place)
            + "</div>"
            + stars((purchase.get("review") or {}).get("rating"))
            + (f'<p class="text">{esc(review(purchase))}</p>' if review(purchase) else "")
            + (_measures(measured, most) if measured else "")
            + "</li>"
        )
    return (KEY if measures else "") + (
        f'<ol class="history{" measured" if measures else ""}" tabindex="0" reversed '
        f'aria-label="Purchases, the latest first">{"".join(cards)}</ol>'
    )


KEY = (
    '<div class="key"><span><i class="for"></i>made it say so</span>'
    '<span><i class="against"></i>speaks against it</span>'
    '<span><i class="cf"></i>who else bought it (CF)</span>'
    '<span><i class="content"></i>its text (content)</span></div>'
)


def _tools(purchases: Sequence[Mapping[str, Any]], place: int) -> str:
    called = attribute(cut(name(purchases[place]), 80))
    buttons = [
        ("later", "▲", "Make it more recent", place == len(purchases) - 1),
        ("earlier", "▼", "Make it less recent", place == 0),
        ("remove", "✕", "Remove", False),
    ]
    return (
        '<span class="tools">'
        + "".join(
            f'<button type="button" data-act="{act}" data-at="{place}" title="{does}" aria-label="{does}: {called}"'
            f"{' disabled' if off else ''}>{sign}</button>"
            for act, sign, does, off in buttons
        )
        + "</span>"
    )


def _measures(measured: Mapping[str, float], most: float) -> str:
    effect = measured["effect"]
    width = 100 * abs(effect) / most if most else 0
    cf, content = (100 * measured[half] for half in ("cf", "content"))
    return (
        '<div class="measure"><span>influence</span><span class="track" role="img" '
        f'aria-label="influence {effect:+.1f}"><span class="{"for" if effect >= 0 else "against"}" '
        f'style="width:{width:.1f}%"></span></span><span class="n">{effect:+.1f}</span>'
        f'<span>made of</span><span class="track" role="img" aria-label="CF {cf:.0f} %, content {content:.0f} %">'
        f'<span class="cf" style="width:{cf:.1f}%"></span><span class="content" style="width:{content:.1f}%"></span>'
        f'</span><span class="n">{cf:.0f} : {content:.0f}</span></div>'
    )


def said(text: str = "", empty: str = "", writing: bool = False) -> str:
    """The words of the model, or what to do to get some."""
    if not text and not writing:
        return f'<div class="said empty">{empty}</div>'
    caret = '<span class="caret" aria-hidden="true"></span>' if writing else ""
    return f'<div class="said" aria-live="polite" aria-busy="{str(writing).lower()}">{esc(text)}{caret}</div>'


def why(purchases: Sequence[Mapping[str, Any]], measures: Sequence[Mapping[str, float]]) -> str:
    """The purchases that the text needed most, in a sentence."""
    ranked = sorted(range(len(purchases)), key=lambda place: -measures[place]["effect"])
    strongest = [place for place in ranked[:2] if measures[place]["effect"] > 0]
    if not strongest:
        return '<p class="why">No purchase speaks for these words: the model would say them to anyone.</p>'
    named = " and ".join(f"<b>{esc(cut(name(purchases[place]), 90))}</b>" for place in strongest)
    cf = sum(each["cf"] for each in measures) / len(measures)
    return (
        f'<p class="why">Mostly because of {named}: without {"it" if len(strongest) == 1 else "either"}, these words '
        f"would be less likely. On average {100 * cf:.0f} % of a purchase, as the model sees it, comes from who else "
        f"bought the item, {100 * (1 - cf):.0f} % from its text. The bars in the history show each purchase.</p>"
    )


def reference(text: str | None) -> str:
    """What the dataset says, where it says something."""
    if not text:
        return ""
    return f'<div class="reference"><small>The dataset says of this shopper:</small><br>{esc(text)}</div>'


def marked(text: str, base: str | None) -> str:
    """The text with the words marked that `base` does not hold in this order."""
    if base is None:
        return esc(text)
    words, others = text.split(), base.split()
    parts = []
    for kind, start, end, _, _ in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        run = " ".join(words[start:end])
        if run:
            parts.append(esc(run) if kind == "equal" else f"<mark>{esc(run)}</mark>")
    return " ".join(parts)


def comparison(texts: Mapping[str, str], titles: Mapping[str, tuple[str, str]], base: str | None, of: str) -> str:
    """Texts side by side; words that `base` does not hold are marked, and `of` tells whose words those are."""
    cards = [
        f'<div class="card"><h3>{title}</h3><small>{told}</small>'
        f"<p>{marked(texts[view], base) or '(nothing)'}</p></div>"
        for view, (title, told) in titles.items()
        if view in texts
    ]
    return f'<p class="note">Marked words are not in {of}.</p><div class="columns">{"".join(cards)}</div>'


def recommended(found: Sequence[Mapping[str, Any]]) -> str:
    """The next items, each with the endorsement that was asked for."""
    best = max((each["score"] for each in found), default=0.0)
    cards = []
    for place, each in enumerate(found):
        width = max(0.0, 100 * each["score"] / best) if best > 0 else 0.0
        text, writing = each.get("text"), each.get("writing", False)
        item = each["item"]
        price = f"${item['price']:.2f}" if item.get("price") else ""
        cards.append(
            f'<li class="card"><div class="head"><span class="title">{place + 1}. {esc(cut(name(each), 120))}</span>'
            f"<span>{price}</span></div>"
            + (f'<p class="text">{esc(item["category"])}</p>' if item.get("category") else "")
            + '<div class="measure"><span>fits</span><span class="track"><span class="for" '
            f'style="width:{width:.1f}%"></span></span><span class="n">{each["score"]:.2f}</span></div>'
            + (
                said(text or "", writing=writing)
                if text is not None
                else f'<button type="button" class="act" data-act="endorse" data-at="{place}" '
                f'aria-label="Why this one? {attribute(cut(name(each), 80))}">Why this one?</button>'
            )
            + "</li>"
        )
    return f'<ul class="cards">{"".join(cards)}</ul>'


def scores(rated: Mapping[str, Any] | None) -> str:
    """Scores of 1 to 7 as chips."""
    return "".join(
        f'<span class="chip">{aspect} {value}</span>' for aspect, value in (rated or {}).items() if value is not None
    )


def narratives(row: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any] | None]]:
    """Question, narrative and scores of each narrative that a row holds."""
    metadata = row.get("metadata") or {}
    for question, (part, field) in QUESTIONS.values():
        text = (row.get(part) or {}).get(field)
        if text:
            yield question, text, metadata.get("endorsement" if field == "endorsement" else part)


def shopper(row: Mapping[str, Any], split: str, number: int) -> str:
    """A shopper of the dataset, to open."""
    purchases = row["purchase_history"]
    profile = (row.get("user") or {}).get("profile") or "(no profile)"
    told = "".join(
        f"<dt>{question}</dt><dd>{esc(text)}<br>{scores(rated)}</dd>" for question, text, rated in narratives(row)
    )
    bought = "".join(
        f"<li><b>{esc(cut(name(purchase), 120))}</b> {stars((purchase.get('review') or {}).get('rating'))}"
        f'<p class="text">{esc(review(purchase))}</p></li>'
        for purchase in reversed(purchases)
    )
    return (
        f'<details class="card"><summary>{esc(cut(profile, 120))} <span class="chip">{split} {number + 1}</span>'
        f'<span class="chip">{len(purchases)} purchases</span>{scores((row.get("metadata") or {}).get("example"))}'
        f'</summary><button type="button" class="act" data-act="{split}" data-at="{number}">Take this history to the '
        f"first tab</button><dl class='told'>{told}</dl><details><summary>What they bought, the latest first</summary>"
        f'<ol class="cards">{bought}</ol></details></details>'
    )


def figures(paths: Sequence[Any]) -> str:
    """Pictures that the server has been told to serve."""
    return (
        '<div class="figures">'
        + "".join(
            f'<figure><img loading="lazy" src="/gradio_api/file={attribute(path)}" alt="{title}">'
            f"<figcaption>{title}</figcaption></figure>"
            for path in paths
            if (title := attribute(path.stem.replace("_", " ")))
        )
        + "</div>"
    )
