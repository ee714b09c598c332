"""The steps of visitors. A step gets the state of the visitor and returns the new state.

The state of a visitor is in `gr.State` and the address of the page only; the former is deleted with the session.
"""

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import view
from fused import VIEWS
from programs import TASKS, fused, offers, recommend, search, shoppers, user_errors
from shoppers import PER_SPLIT
from start import user_error
from visits import MAX_PURCHASES, MAX_REVIEW, LinkError, Visit, changed, from_link, row, to_link, visit

N_NEXT = 6
PAGE = 6
DEFAULT_TASK = "long_user_summary" if "long_user_summary" in TASKS else next(iter(TASKS))
PARTS = {"train": "training", "validation": "tuning", "test": "testing"}
TABS = ["ask", "compare", "recommend", "shoppers", "about"]
NO_ANSWER = "Press <b>Tell me</b>. The answer appears here word by word, with the purchases that it rests on."
CHANGED = "The purchases have changed. Press <b>Tell me</b> to see how the answer changes."
NO_COMPARISON = "Press <b>Compare</b> to see what the answer would be from parts of the purchases."
NO_ITEMS = "Press <b>Recommend items</b> to see what this shopper may buy next."
TOO_LONG = "Your changes are too long for the address: they are lost when the page is reloaded."
EMPTY_TEXT = "(The model returned no text.)"
EMPTY_HISTORY = "There are no purchases yet. Choose a shopper above, or add a purchase in the first tab."
KEPT_ANSWERS = 256
MAX_CRITIQUE = 200

Answer = tuple[str, list[dict[str, float]]]
_answers: dict[tuple[str, str], Answer] = {}
"""Answers about unchanged shoppers, by shopper and task; the latest ones are kept."""


def label(number: int) -> str:
    """A shopper in the list to choose from."""
    return f"Shopper {number + 1}: {view.teaser(shoppers.rows(shoppers.split)[number]['purchase_history'])}"


def named(shopper: str) -> str:
    """A shopper of any part of the dataset, such as "test-0", for people."""
    split, _, number = shopper.rpartition("-")
    return f"Shopper {int(number) + 1} ({PARTS.get(split, split)} part)"


def buyers(words: str | None) -> Any:
    """The shoppers to choose from: those who bought items with the words."""
    numbers = shoppers.buyers((words or "")[:200])
    return gr.Radio(choices=[(label(number), number) for number in numbers], value=None, visible=bool(numbers))


def shown(shop: Visit, hint: str = NO_ANSWER, ask: bool = False) -> list[Any]:
    """The values of all components that depend on the history; with `ask`, the page requests the answer."""
    shopper, edited = shop["shopper"], changed(shoppers, shop)
    who = named(shopper) if shopper else None
    purchases = to_link(shop["entries"]) if edited else ""
    return [
        shop,
        view.person(shop["history"], who, edited) + view.line(TOO_LONG if purchases is None else ""),
        view.answer(empty=hint if shop["history"] else EMPTY_HISTORY),
        view.history(shop["history"]),
        "",
        view.answer(empty=NO_COMPARISON),
        *no_items(),
        view.link(shopper, purchases or "", str(time.monotonic_ns()) if ask else ""),
        None,
        gr.Button("Add this purchase"),
    ]


def no_items() -> list[Any]:
    """The tab of recommendations without any."""
    return [[], view.answer(empty=NO_ITEMS), [], ""]


def opened(shop: Visit, task: str) -> list[Any]:
    """The page of a history: with its answer if it is known, otherwise the answer is requested."""
    answer = None if changed(shoppers, shop) else _answers.get((shop["shopper"], task))
    values = [*shown(shop, ask=bool(shop["history"]) and not answer), None]
    if answer:
        values[2:5] = finished(shop, task, answer)
        values[-1] = {"text": answer[0], "task": task} | place(shop)
    return values


def open_link(request: gr.Request) -> list[Any]:
    """The page that its address names."""
    query = request.query_params
    task = query.get("question") if query.get("question") in TASKS else DEFAULT_TASK
    tab = query.get("tab") if query.get("tab") in TABS else TABS[0]
    try:
        values = opened(from_link(shoppers, query.get("shopper"), query.get("purchases")), task)
    except LinkError as error:
        values = opened(visit(shoppers, f"{shoppers.split}-0"), task)
        values[1] = view.line(f"This address cannot be read: {error}. Here is the first shopper.", bad=True) + values[1]
    return [*values, task, gr.Tabs(selected=tab)]


def start_from(number: int | None, task: str) -> list[Any]:
    """The history of a shopper, or an empty one; the list to choose from is closed."""
    shopper = None if number is None else f"{shoppers.split}-{number}"
    return [*opened(visit(shoppers, shopper), task), gr.Accordion(open=False)]


def take(task: str, event: gr.EventData) -> list[Any]:
    """The history of a shopper of any split, in the first tab."""
    try:
        return [*opened(visit(shoppers, f"{event.act}-{event.at}"), task), gr.Tabs(selected=TABS[0])]
    except (LinkError, AttributeError, TypeError) as error:
        raise user_error(f"There is no such shopper ({error}).") from error


def find(words: str | None) -> tuple[Any, str]:
    """The matching items of the catalogue, to choose from."""
    words = (words or "").strip()
    hits = search(words) if words else []
    if not hits:
        message = "No item is similar to these words. Choose a category below." if words else ""
        return gr.Radio(choices=[], value=None, visible=False), view.line(message)
    choices = [(view.cut(item["title"] or item["asin"], 100), item["asin"]) for item in hits]
    message = "" if shoppers.search(words[:200]) else "No item has these words. The most similar ones:"
    return gr.Radio(choices=choices, value=choices[0][1], visible=True), view.line(message)


def category(event: gr.EventData) -> str:
    """The words of a category."""
    return shoppers.categories[clicked(event, len(shoppers.categories))[1]]


def clicked(event: gr.EventData, count: int) -> tuple[str, int]:
    """The action and the index of a button; raises gr.Error for another index."""
    try:
        act, at = str(event.act), int(event.at)
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise user_error("The call names no button of the page.") from error
    if not 0 <= at < count:
        raise user_error("The page has changed meanwhile. Try again.")
    return act, at


def add_purchase(
    shop: Visit, editing: int | None, asin: str | None, rating: int | None, words: str | None
) -> list[Any]:
    """The history with one more purchase at the end, or with another review of the purchase that is edited."""
    words, entries, rating = (words or "").strip(), list(shop["entries"]), rating or 5
    problem = ""
    if editing is None and asin is None:
        problem = "No item is chosen. Search for one above and choose it."
    elif len(words) > MAX_REVIEW:
        problem = f"The review has {len(words):,} characters, expected at most {MAX_REVIEW}."
    elif editing is None and len(entries) >= MAX_PURCHASES:
        problem = f"There are already {MAX_PURCHASES} purchases. Remove one first."
    if problem:
        return [*[gr.skip()] * len(shown(shop)), gr.skip(), view.line(problem, bad=True)]
    if editing is None:
        entries.append([asin, rating, words])
    else:
        entry = entries[editing]
        entries[editing] = [entry[0] if isinstance(entry, list) else entry, rating, words]
    done = "Added." if editing is None else "The review is changed."
    return [*shown(visit(shoppers, shop["shopper"], entries), CHANGED), "", view.line(f"{done} Press Tell me.")]


def edit_review(shop: Visit, event: gr.EventData) -> list[Any]:
    """The form with the review of a purchase."""
    _, at = clicked(event, len(shop["history"]))
    given = shop["history"][at]["review"] or {}
    title = view.cut(view.name(shop["history"][at]), 80)
    return [
        at,
        gr.Accordion(open=True),
        gr.Radio(value=max(1, min(5, round(given.get("rating") or 5)))),
        (given.get("text") or given.get("summary") or "")[:MAX_REVIEW],
        gr.Button("Change the review"),
        view.line(f"Another review of {title}: for example “broke after a week”."),
    ]


def edit(shop: Visit, event: gr.EventData) -> list[Any]:
    """The history with one purchase moved or removed."""
    act, at = clicked(event, len(shop["entries"]))
    entries = list(shop["entries"])
    entry = entries.pop(at)
    if act != "remove":
        entries.insert(max(0, at + (1 if act == "later" else -1)), entry)
    return shown(visit(shoppers, shop["shopper"], entries), CHANGED)


def own(shop: Visit, items: list[dict], event: gr.EventData) -> list[Any]:
    """The history with a recommended item as its last purchase."""
    item = items[clicked(event, len(items))[1]]["item"]
    try:
        return shown(visit(shoppers, shop["shopper"], [*shop["entries"], [item["asin"], 5, ""]]), CHANGED)
    except LinkError as error:
        raise user_error(f"The item cannot be added: {error}.") from error


def reference(shop: Visit, task: str) -> str | None:
    """The reference of the dataset for the shopper of the history, None for a changed history."""
    if changed(shoppers, shop):
        return None
    return view.reference_text(row(shoppers, shop["shopper"]), TASKS[task])


def finished(shop: Visit, task: str, answer: Answer, before: str | None = None) -> tuple[str, str, str]:
    """The text, the history with the influence of each purchase, and what the text rests on."""
    text, measures = answer
    reasons = view.why(shop["history"], measures) + (view.what_if(text, before) if before else "")
    return (
        view.answer(text, before=before),
        view.history(shop["history"], measures),
        reasons + view.reference(reference(shop, task)),
    )


def answer(shop: Visit, task: str, said: dict[str, Any] | None) -> Iterator[tuple[Any, ...]]:
    """The text of the model as it is written, then the influence of each purchase; and the text, for the next step."""
    history = shop["history"]
    if not history:
        raise user_error(EMPTY_HISTORY)
    yield view.answer(writing=True), view.history(history), "", gr.skip()
    step: tuple[str, Any] = ("", None)
    try:
        with user_errors():
            for step in fused.narrate(history, task):
                yield view.answer(step[0], writing=True), gr.skip(), gr.skip(), gr.skip()
            measures = fused.attribution(history, task, step[1])
    except gr.Error:
        yield view.answer(step[0], empty=NO_ANSWER), gr.skip(), gr.skip(), gr.skip()
        raise
    result = step[0].strip() or EMPTY_TEXT, measures
    if not changed(shoppers, shop):
        keep(shop["shopper"], task, result)
    same = said and said["task"] == task and said["shopper"] == shop["shopper"] and said["entries"] != shop["entries"]
    before = said["text"] if said and same else None
    yield *finished(shop, task, result, before), {"text": result[0], "task": task} | place(shop)


def place(shop: Visit) -> dict[str, Any]:
    """The shopper and the entries of a history."""
    return {"shopper": shop["shopper"], "entries": shop["entries"]}


def keep(shopper: str, task: str, result: Answer) -> None:
    """Remember an answer; the oldest ones are forgotten."""
    _answers.pop((shopper, task), None)
    _answers[shopper, task] = result
    while len(_answers) > KEPT_ANSWERS:
        _answers.pop(next(iter(_answers)), None)


def check() -> None:
    """Answer about the first shopper, which checks the model and is shown to each visitor at once."""
    shop = visit(shoppers, f"{shoppers.split}-0")
    try:
        *_, (text, tokens) = fused.narrate(shop["history"], DEFAULT_TASK)
        measures = fused.attribution(shop["history"], DEFAULT_TASK, tokens)
        keep(shop["shopper"], DEFAULT_TASK, (text.strip() or EMPTY_TEXT, measures))
    except TimeoutError:
        pass  # a slow model; its answers are requested


def compared(shop: Visit, task: str) -> str:
    """The answers of the model from each part of the history, side by side."""
    if not shop["history"]:
        raise user_error(EMPTY_HISTORY)
    with user_errors():
        texts = fused.compare(shop["history"], task)
    titles = {
        "fused": (VIEWS["fused"], "who else bought the items, and their texts"),
        "content": (VIEWS["content"], "descriptions and reviews, not who else bought the items"),
        "cf": (VIEWS["cf"], "who else bought the items, no text"),
        "empty": (VIEWS["empty"], "the same for every shopper"),
    }
    text = reference(shop, task)
    if text is not None:
        titles["reference"] = ("In the dataset", "the text to learn from, not written by this model")
        texts = texts | {"reference": text}
    return view.comparison(texts, titles)


def next_items(
    shop: Visit, by: str, asked: list[dict[str, str]] | None = None
) -> Iterator[tuple[list[dict], str, list[dict[str, str]], str]]:
    """The next items for the history; the model also writes the reason for its first choice, from the same pass.

    `asked` are the items that were recommended before, and what the visitor said about each.
    """
    if not shop["history"]:
        raise user_error(EMPTY_HISTORY)
    asked, items, page = asked or [], [], view.answer(empty="No other shopper has bought any of these items.")
    said = view.dialogue(asked)
    if by == "Model":
        with user_errors():
            ranked, texts = fused.rank_and_explain(shop["history"], N_NEXT, asked)
        for items, page in reason(offers(ranked), 0, texts):
            yield items, page, asked, said
        return
    if items := recommend(shop["history"], N_NEXT, by):
        page = view.recommended(items)
    yield items, page, asked, said


def criticise(
    shop: Visit, items: list[dict], asked: list[dict[str, str]], words: str | None
) -> Iterator[tuple[list[dict], str, list[dict[str, str]], str]]:
    """The next items after what the visitor says about the first one."""
    words = (words or "").strip()
    if not items:
        raise user_error("Nothing is recommended yet. Press Recommend items first.")
    if not 0 < len(words) <= MAX_CRITIQUE:
        raise user_error(f"Say in 1 to {MAX_CRITIQUE} characters what should be different.")
    item = items[0]["item"]
    turn = {"asin": item["asin"], "title": item.get("title") or item["asin"], "critique": words}
    yield from next_items(shop, "Model", [*asked, turn])


def example(event: gr.EventData) -> str:
    """An example of what to say about a recommended item."""
    return shoppers.critiques[clicked(event, len(shoppers.critiques))[1]]


def endorse(shop: Visit, items: list[dict], event: gr.EventData) -> Iterator[tuple[list[dict], str]]:
    """The endorsement of one of the next items, as if it were the next purchase."""
    _, at = clicked(event, len(items))
    history = [*shop["history"], {"item": items[at]["item"], "review": None}][-MAX_PURCHASES:]
    yield from reason(items, at, (text for text, _ in fused.narrate(history, "product_endorsement")))


def reason(items: list[dict], at: int, texts: Iterator[str]) -> Iterator[tuple[list[dict], str]]:
    """The items with the text about one of them, as it is written."""

    def with_text(text: str, writing: bool) -> list[dict]:
        return [*items[:at], items[at] | {"text": text, "writing": writing}, *items[at + 1 :]]

    text = ""
    yield items, view.recommended(with_text("", True))
    try:
        with user_errors():
            for text in texts:
                yield items, view.recommended(with_text(text, True))
    except gr.Error:
        yield items, view.recommended(items)  # without the unfinished text, and the buttons work again
        raise
    done = with_text(text.strip() or EMPTY_TEXT, False)
    yield done, view.recommended(done)


def page_of(split: str, stars: int, richness: int, page: int | None = None, step: int = 0) -> tuple[int, str, str]:
    """The page `step` pages after `page` of the shoppers that match the filters: its number, a note, its shoppers."""
    matches = shoppers.filter(split, stars, richness)
    pages = max(1, -(-len(matches) // PAGE))
    page = max(1, min(int(page) + step, pages)) if page else 1  # an empty field is None
    if not matches:
        return page, "", view.answer(empty="No shopper matches these filters. Choose other ones.")
    on_page = matches[(page - 1) * PAGE : page * PAGE]
    cards = "".join(view.shopper(shoppers.rows(name)[number], name, number, TASKS) for name, number in on_page)
    note = f"Page {page} of {pages}, {len(matches):,} shoppers (of the first {PER_SPLIT} of each part)."
    return page, view.line(note), cards


def figures() -> str:
    """The figures of the dataset."""
    paths = shoppers.figures
    return view.figures(paths) if paths else view.answer(empty="The dataset has no figures.")


def about() -> str:
    """Facts about the model, from its configuration."""
    return "<ul>" + "".join(f"<li>{name}: {view.esc(value)}</li>" for name, value in fused.facts.items()) + "</ul>"
