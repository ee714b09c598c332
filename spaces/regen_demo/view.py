"""The parts of the page as HTML. All text of shoppers, visitors and the model goes through `esc`."""

import difflib
import html
from collections.abc import Mapping, Sequence
from typing import Any

Purchase = Mapping[str, Any]
Task = Mapping[str, Any]
"""An entry of `tasks` in config.json: `name`, `question`, `field` (path of the reference in a row), `rated_in`."""
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
"""JavaScript of the page: buttons send their action and index, and a history scrolls to its strongest purchase."""


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


def history(purchases: Sequence[Purchase], measures: Sequence[Mapping[str, float]] | None = None) -> str:
    """The purchases, latest first, with the influence of each on the text if `measures` are given."""
    if not purchases:
        return answer(empty="No purchases yet. Choose a shopper above, or search the catalogue and add purchases.")
    most = max((abs(each["effect"]) for each in measures or []), default=0.0)
    cards = []
    for index in reversed(range(len(purchases))):
        purchase, measured = purchases[index], measures[index] if measures else None
        latest = index == len(purchases) - 1
        strongest = measured is not None and most > 0 and measured["effect"] == most
        cards.append(
            f'<li class="card{" last" if latest else ""}{" top" if strongest else ""}">'
            + ('<div class="badge">last purchase</div>' if latest else "")
            + f'<div class="head"><span class="title">{esc(cut(name(purchase), 120))}</span>'
            + _tools(purchases, index)
            + "</div>"
            + stars((purchase.get("review") or {}).get("rating"))
            + (f'<p class="text">{esc(review(purchase))}</p>' if review(purchase) else "")
            + (_measures(measured, most) if measured else "")
            + "</li>"
        )
    return (KEY if measures else "") + (
        f'<ol class="history{" measured" if measures else ""}" tabindex="0" reversed '
        f'aria-label="Purchases, latest first">{"".join(cards)}</ol>'
    )


KEY = (
    '<div class="key"><span><i class="for"></i>text more likely</span>'
    '<span><i class="against"></i>less likely</span>'
    '<span><i class="cf"></i>co-purchases (CF)</span>'
    '<span><i class="content"></i>text (content)</span></div>'
)


def _tools(purchases: Sequence[Purchase], index: int) -> str:
    title = attribute(cut(name(purchases[index]), 80))
    buttons = [
        ("later", "▲", "Make it more recent", index == len(purchases) - 1),
        ("earlier", "▼", "Make it less recent", index == 0),
        ("remove", "✕", "Remove", False),
    ]
    return (
        '<span class="tools">'
        + "".join(
            f'<button type="button" data-act="{act}" data-at="{index}" title="{hint}" aria-label="{hint}: {title}"'
            f"{' disabled' if off else ''}>{sign}</button>"
            for act, sign, hint, off in buttons
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
        f'<span>parts</span><span class="track" role="img" aria-label="CF {cf:.0f} %, content {content:.0f} %">'
        f'<span class="cf" style="width:{cf:.1f}%"></span><span class="content" style="width:{content:.1f}%"></span>'
        f'</span><span class="n">{cf:.0f} : {content:.0f}</span></div>'
    )


def answer(text: str = "", empty: str = "", writing: bool = False) -> str:
    """The text of the model, or the hint `empty` without one."""
    if not text and not writing:
        return f'<div class="answer empty">{empty}</div>'
    caret = '<span class="caret" aria-hidden="true"></span>' if writing else ""
    return f'<div class="answer" aria-live="polite" aria-busy="{str(writing).lower()}">{esc(text)}{caret}</div>'


def why(purchases: Sequence[Purchase], measures: Sequence[Mapping[str, float]]) -> str:
    """A sentence with the purchases that influenced the text most."""
    ranked = sorted(range(len(purchases)), key=lambda index: -measures[index]["effect"])
    strongest = [index for index in ranked[:2] if measures[index]["effect"] > 0]
    if not strongest:
        return '<p class="why">No purchase makes this text more likely: it would be the same for other shoppers.</p>'
    named = " and ".join(f"<b>{esc(cut(name(purchases[index]), 90))}</b>" for index in strongest)
    cf = sum(each["cf"] for each in measures) / len(measures)
    return (
        f'<p class="why">Most influence: {named}. Without {"it" if len(strongest) == 1 else "either"}, this text would '
        f"be less likely. On average, {100 * cf:.0f} % of the soft token of a purchase comes from co-purchases (CF), "
        f"{100 * (1 - cf):.0f} % from its text (content). The bars in the history show each purchase.</p>"
    )


def reference(text: str | None) -> str:
    """The reference text of the dataset, empty without one."""
    if not text:
        return ""
    return f'<div class="reference"><small>Reference in the dataset:</small><br>{esc(text)}</div>'


def marked(text: str, base: str | None) -> str:
    """The text with marks on the words that differ from `base`."""
    if base is None:
        return esc(text)
    words, others = text.split(), base.split()
    parts = []
    for kind, start, end, _, _ in difflib.SequenceMatcher(None, words, others, autojunk=False).get_opcodes():
        run = " ".join(words[start:end])
        if run:
            parts.append(esc(run) if kind == "equal" else f"<mark>{esc(run)}</mark>")
    return " ".join(parts)


def comparison(texts: Mapping[str, str], titles: Mapping[str, tuple[str, str]], base: str | None, source: str) -> str:
    """Texts side by side; words that are not in `base` are marked, and `source` names the text `base`."""
    cards = [
        f'<div class="card"><h3>{title}</h3><small>{about}</small><p>{marked(texts[view], base) or "(empty)"}</p></div>'
        for view, (title, about) in titles.items()
        if view in texts
    ]
    return f'<p class="note">Marked words are not in {source}.</p><div class="columns">{"".join(cards)}</div>'


def recommended(items: Sequence[Mapping[str, Any]]) -> str:
    """The recommended items, each with its endorsement if it has been requested."""
    best = max((each["score"] for each in items), default=0.0)
    busy = " disabled" if any(each.get("writing") for each in items) else ""  # one text at a time
    cards = []
    for index, each in enumerate(items):
        width = max(0.0, 100 * each["score"] / best) if best > 0 else 0.0
        text, item = each.get("text"), each["item"]
        price = f"${item['price']:.2f}" if item.get("price") else ""
        cards.append(
            f'<li class="card"><div class="head"><span class="title">{index + 1}. {esc(cut(name(each), 120))}</span>'
            f"<span>{price}</span></div>"
            + (f'<p class="text">{esc(item["category"])}</p>' if item.get("category") else "")
            + ('<span class="chip">cold: no purchases, ranked by its text</span>' if each.get("cold") else "")
            + '<div class="measure"><span>score</span><span class="track"><span class="for" '
            f'style="width:{width:.1f}%"></span></span><span class="n">{each["score"]:.2f}</span></div>'
            + (
                answer(text, writing=each.get("writing", False))
                if text is not None
                else f'<button type="button" class="act" data-act="endorse" data-at="{index}"{busy} '
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


def figures(paths: Sequence[Any]) -> str:
    """Figures from static paths of the server."""
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
