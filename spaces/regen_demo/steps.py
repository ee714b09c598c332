"""The steps of visitors and programs. A step gets the state of the visitor and returns the new state.

The state of a visitor is in `gr.State` only, which is deleted with the session.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import view
from fused import VIEWS, Fused
from shoppers import PER_SPLIT, Shoppers

CONFIG = json.loads(
    Path(os.environ.get("REGEN_DEMO_CONFIG", Path(__file__).parent / "config.json")).read_text(encoding="utf-8")
)
TASKS: dict[str, view.Task] = {task["name"]: task for task in CONFIG["tasks"]}
MAX_PURCHASES = 50
MAX_REVIEW = 500
MAX_FIELD = 10_000
RANKERS = ["Model", "ALS"] if CONFIG["item_head"] else ["ALS"]
N_NEXT = 6
PAGE = 6
NO_ANSWER = (
    "Press <b>Ask</b>. The answer appears here word by word, and the history shows the influence of each purchase."
)
NO_COMPARISON = "Press <b>Compare</b> to see the answers from each part of the history."
NO_ITEMS = "Press <b>Recommend items</b> to see the next items."
EMPTY_TEXT = "(The model returned no text.)"
EMPTY_HISTORY = "The history is empty. Choose a shopper above, or add purchases in the first tab."

shoppers = Shoppers(CONFIG)
# After the shoppers: `datasets` must not import transformers while the thread of the model does.
fused = Fused(CONFIG["model"], CONFIG["model_revision"], **CONFIG.get("limits", {}))
Shop = dict[str, Any]
"""The state of a visitor: `history`, and `shopper`, the number of the test shopper, None for a changed history."""


def user_error(message: str) -> gr.Error:
    """An error that is shown to the visitor and not logged."""
    return gr.Error(message, print_exception=False)


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Show errors of the model to the visitor."""
    try:
        yield
    except (TimeoutError, RuntimeError, ValueError, FloatingPointError) as error:
        raise user_error(str(error)) from error


# The API for programs.


def checked(history: list[dict]) -> list[dict]:
    """The history of a program; raises gr.Error if it is too large. The processor of the model checks its values."""
    if not isinstance(history, list) or not all(isinstance(each, dict) for each in history):
        raise user_error('The history is not a list of purchases {"item": {…}, "review": {…}}, oldest first.')
    if len(history) > MAX_PURCHASES:
        raise user_error(f"The history has {len(history)} purchases, expected at most {MAX_PURCHASES}.")
    for purchase in history:
        for part in (purchase.get("item"), purchase.get("review")):
            for field, value in part.items() if isinstance(part, dict) else ():
                if isinstance(value, str) and len(value) > MAX_FIELD:
                    name = view.cut(field, 40)
                    raise user_error(f'"{name}" has {len(value):,} characters, expected at most {MAX_FIELD:,}.')
    return history


def known(task: str) -> str:
    """The name of a task; raises gr.Error if it does not exist."""
    if not isinstance(task, str) or task not in TASKS:
        raise user_error(f"Unknown task {view.cut(str(task), 40)!r}. Tasks: {', '.join(TASKS)}.")
    return task


def narrate(history: list[dict], task: str) -> Iterator[str]:
    """The narrative about a history, as the model writes it; `task` is the kind of narrative."""
    history, task = checked(history), known(task)
    with user_errors():
        for text, _ in fused.narrate(history, task):
            yield text


def explain(history: list[dict], task: str) -> dict:
    """A narrative, and the influence and the parts of each purchase."""
    history, task = checked(history), known(task)
    with user_errors():
        *_, (text, tokens) = fused.narrate(history, task)
        return {"narrative": text, "purchases": fused.attribution(history, task, tokens)}


def compare(history: list[dict], task: str) -> dict:
    """The narratives from the full history, texts only, co-purchases only, and no history."""
    history, task = checked(history), known(task)
    with user_errors():
        return fused.compare(history, task)


def recommend(history: list[dict], n: int, by: str = RANKERS[0]) -> list[dict]:
    """The next `n` items (1 to 50): by "Model", where it has an item head, or by "ALS"."""
    history = checked(history)
    if not isinstance(n, int | float):
        raise user_error(f"n was given {view.cut(str(n), 40)}, expected a number from 1 to 50.")
    if by not in RANKERS:
        raise user_error(f"by was given {view.cut(str(by), 40)!r}, expected {' or '.join(RANKERS)}.")
    with user_errors():
        rank = fused.recommend if by == "ALS" else fused.rank
        return offers(rank(history, max(1, min(int(n), 50))))


def offers(ranked: list[dict]) -> list[dict]:
    """Ranked items with the fields of the catalogue; an item that was added to the model's has only its title."""
    return [
        {
            "item": {"asin": each["asin"], "title": each.get("title")} | shoppers.item(each["asin"]),
            "score": each["score"],
            "cold": each.get("cold", False),
        }
        for each in ranked
    ]


def search(words: str) -> list[dict]:
    """Items of the catalogue whose title or category contains all words."""
    if not isinstance(words, str):
        raise user_error(f"words is a {type(words).__name__}, expected a text.")
    return shoppers.search(words[:200])


# The steps of a visitor.


def label(number: int) -> str:
    """The name of a shopper in the list."""
    row = shoppers.rows(shoppers.split)[number]
    return f"Shopper {number + 1} · {len(row['purchase_history'])} purchases"


def shown(shop: Shop) -> list[Any]:
    """The values of all components that depend on the history."""
    history = shop["history"]
    latest = f", the latest: <b>{view.esc(view.cut(view.name(history[-1]), 90))}</b>" if history else ""
    summary = f'<p class="note">The history has {len(history)} purchases{latest}. Edit it in the first tab.</p>'
    return [
        shop,
        shop["shopper"],
        view.history(history),
        view.answer(empty=NO_ANSWER),
        "",
        summary,
        view.answer(empty=NO_COMPARISON),
        summary,
        [],
        view.answer(empty=NO_ITEMS),
    ]


def start_from(number: int | None) -> list[Any]:
    """The history of a test shopper, or an empty one."""
    if number is None:
        return shown({"history": [], "shopper": None})
    return shown({"history": shoppers.rows(shoppers.split)[number]["purchase_history"], "shopper": number})


def find(words: str) -> tuple[Any, str]:
    """The matching items of the catalogue, to choose from."""
    hits = shoppers.search(words[:200]) if words.strip() else []
    if not hits:
        message = "No item of the catalogue contains all of these words." if words.strip() else ""
        return gr.Radio(choices=[], value=None, visible=False), message
    choices = [(view.cut(item["title"] or item["asin"], 100), item["asin"]) for item in hits]
    return gr.Radio(choices=choices, value=choices[0][1], visible=True), ""


def add_purchase(shop: Shop, asin: str | None, rating: int, words: str) -> list[Any]:
    """The history with one more purchase at the end."""
    words = words.strip()
    if asin is None:
        raise user_error("No item is chosen. Search the catalogue and choose one.")
    if len(words) > MAX_REVIEW:
        raise user_error(f"The review has {len(words):,} characters, expected at most {MAX_REVIEW}.")
    if len(shop["history"]) >= MAX_PURCHASES:
        raise user_error(f"The history already has {MAX_PURCHASES} purchases. Remove one first.")
    review = {"summary": None, "rating": int(rating), "text": words or None, "unix_time": None}
    purchase = {"item": shoppers.item(asin), "review": review}
    return [*shown({"history": [*shop["history"], purchase], "shopper": None}), ""]


def edit(shop: Shop, event: gr.EventData) -> list[Any]:
    """The history with one purchase moved or removed."""
    history, act, at = list(shop["history"]), event.act, int(event.at)
    if at < len(history):
        purchase = history.pop(at)
        if act != "remove":
            if purchase["review"]:  # the model refuses a time that is not in this order
                purchase = purchase | {"review": purchase["review"] | {"unix_time": None}}
            history.insert(max(0, at + (1 if act == "later" else -1)), purchase)
    return shown({"history": history, "shopper": None})


def reference(shop: Shop, task: str) -> str | None:
    """The reference of the dataset for the shopper of the history, None for a changed history."""
    if shop["shopper"] is None:
        return None
    return view.reference_text(shoppers.rows(shoppers.split)[shop["shopper"]], TASKS[task])


def answer(shop: Shop, task: str) -> Iterator[tuple[Any, ...]]:
    """The text of the model as it is written, then the history with the influence of each purchase, and a summary."""
    history = shop["history"]
    yield view.answer(writing=True), view.history(history), ""
    step: tuple[str, Any] = ("", None)
    with user_errors():
        for step in fused.narrate(history, task):
            yield view.answer(step[0], writing=True), gr.skip(), gr.skip()
        text, tokens = step
        measures = fused.attribution(history, task, tokens) if history else None
    empty = "<p class='why'>The history is empty, so the answer is not about any shopper.</p>"
    reasons = view.why(history, measures) if measures else empty
    yield (
        view.answer(text.strip() or EMPTY_TEXT),
        view.history(history, measures),
        reasons + view.reference(reference(shop, task)),
    )


def compared(shop: Shop, task: str) -> str:
    """The answers of the model from each part of the history, side by side."""
    if not shop["history"]:
        raise user_error(EMPTY_HISTORY)
    with user_errors():
        texts = fused.compare(shop["history"], task)
    titles = {
        "fused": (VIEWS["fused"], "CF and content"),
        "content": (VIEWS["content"], "the same model without CF"),
        "cf": (VIEWS["cf"], "the same model without content"),
        "empty": (VIEWS["empty"], "the same for every shopper"),
    }
    text = reference(shop, task)
    if text is None:
        return view.comparison(texts, titles, texts["fused"], "the answer from the full history")
    titles["reference"] = ("Dataset", "the reference, not written by this model")
    return view.comparison(texts | {"reference": text}, titles, text, "the reference of the dataset")


def next_items(shop: Shop, by: str) -> Iterator[tuple[list[dict], str]]:
    """The next items for the history; the model also writes the reason for its first choice, from the same pass."""
    if not shop["history"]:
        raise user_error(EMPTY_HISTORY)
    if by == "Model":
        with user_errors():
            ranked, texts = fused.rank_and_explain(shop["history"], N_NEXT)
        yield from reason(offers(ranked), 0, texts)
    elif items := recommend(shop["history"], N_NEXT, by):
        yield items, view.recommended(items)
    else:
        yield [], view.answer(empty="No shopper of the training data has bought an item of this history.")


def endorse(shop: Shop, items: list[dict], event: gr.EventData) -> Iterator[tuple[list[dict], str]]:
    """The endorsement of one of the next items, as if it were the next purchase."""
    at = int(event.at)
    if at < len(items):
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
    fused.ready.wait()  # loads the other splits after the model; see `fused` above
    matches = shoppers.filter(split, stars, richness)
    pages = max(1, -(-len(matches) // PAGE))
    page = max(1, min(int(page) + step, pages)) if page else 1  # an empty field is None
    if not matches:
        return page, "", view.answer(empty="No shopper matches these filters. Choose other ones.")
    on_page = matches[(page - 1) * PAGE : page * PAGE]
    cards = "".join(view.shopper(shoppers.rows(name)[number], name, number, TASKS) for name, number in on_page)
    note = f"Page {page} of {pages}, {len(matches):,} shoppers (of the first {PER_SPLIT} of each split)."
    return page, f'<p class="note">{note}</p>', cards


def take(event: gr.EventData) -> list[Any]:
    """The history of a shopper of the dataset, in the first tab."""
    split, number = event.act, int(event.at)
    row = shoppers.rows(split)[number]
    return [
        *shown({"history": row["purchase_history"], "shopper": number if split == shoppers.split else None}),
        gr.Tabs(selected="shop"),
    ]


def figures() -> str:
    """The figures of the dataset."""
    paths = shoppers.figures
    gr.set_static_paths(paths)
    return view.figures(paths) if paths else view.answer(empty="The repository of the dataset has no figures.")


def about() -> str:
    """Facts about the model, from its configuration."""
    with user_errors():
        facts = fused.facts
    values = (f"{value:,}" if isinstance(value, int) else view.esc(value) for value in facts.values())
    return "<ul>" + "".join(f"<li>{name}: {value}</li>" for name, value in zip(facts, values, strict=True)) + "</ul>"
