"""What a visitor or a program does, step by step. Every step takes the visitor's own state and gives it back.

Nothing of a visitor outlives the session: what a visitor does lies in `gr.State`, and no module keeps any of it.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import view
from fused import VIEWS, Fused
from shoppers import PER_SPLIT, Shoppers

CONFIG = json.loads(
    Path(os.environ.get("REGEN_DEMO_CONFIG", Path(__file__).parent / "config.json")).read_text(encoding="utf-8")
)
MAX_PURCHASES = 50
MAX_REVIEW = 500
MAX_FIELD = 10_000
MAX_NUMBER = 10**15
N_NEXT = 6
PAGE = 6
NOTHING_TOLD = "Press <b>Tell me</b>: the answer appears here, word by word, and the history shows what it comes from."
NOTHING_COMPARED = "Press <b>Compare</b> to see what each half of the history is worth."
NOTHING_NEXT = "Press <b>What next?</b> to see what shoppers like this one buy."

shoppers = Shoppers(CONFIG)
# In this order: `datasets` looks into transformers and must not find it half imported by the thread of the model.
fused = Fused(CONFIG["model"], CONFIG["model_revision"], **CONFIG.get("limits", {}))
Shop = dict[str, Any]
"""What a visitor has made: the purchases, and the number of the test shopper that they are, None once changed."""


def told(sentence: str) -> gr.Error:
    """What a visitor is told; it is no fault of the page, and so not for the log."""
    return gr.Error(sentence, print_exception=False)


def in_words(function: Callable[..., Any]) -> Any:
    """Run a step of the model; what goes wrong is told to the visitor as a sentence."""
    try:
        return function()
    except (TimeoutError, RuntimeError, ValueError) as error:
        raise told(str(error)) from error


def each_in_words(steps: Iterator[Any]) -> Iterator[Any]:
    """As `in_words`, for steps that come one by one."""
    try:
        yield from steps
    except (TimeoutError, RuntimeError, ValueError) as error:
        raise told(str(error)) from error


# What a program can call.


def checked(history: list[dict]) -> list[dict]:
    """A history that came from elsewhere, short enough to be read.

    Raises:
        gr.Error: it is too long, in a sentence.
    """
    if not isinstance(history, list) or not all(isinstance(each, dict) for each in history):
        raise told('A history is a list of purchases, each {"item": {…}, "review": {…}}, oldest first.')
    if len(history) > MAX_PURCHASES:
        raise told(f"A history may have {MAX_PURCHASES} purchases here, this one has {len(history)}.")
    for purchase in history:
        for part in (purchase.get("item"), purchase.get("review")):
            for field, value in part.items() if isinstance(part, dict) else ():
                if isinstance(value, str) and len(value) > MAX_FIELD:
                    raise told(f'"{field}" may have {MAX_FIELD:,} characters here, this one has {len(value):,}.')
                if isinstance(value, dict | list):
                    raise told(f'"{view.cut(field, 40)}" is a {type(value).__name__}, expected a text or a number.')
                if isinstance(value, int | float) and abs(value) >= MAX_NUMBER:
                    raise told(f'"{view.cut(field, 40)}" is too large a number.')
    return history


def known(task: str) -> str:
    """The task, if it is one.

    Raises:
        gr.Error: it is none.
    """
    if not isinstance(task, str) or task not in view.QUESTIONS:
        raise told(f"Unknown task {view.cut(str(task), 40)!r}. Tasks: {', '.join(view.QUESTIONS)}.")
    return task


def narrate(history: list[dict], task: str) -> Iterator[str]:
    """What the model says of a history, as it is written; `task` is one of REGEN's narratives."""
    history, task = checked(history), known(task)
    for text, _ in each_in_words(fused.narrate(history, task)):
        yield text


def explain(history: list[dict], task: str) -> dict:
    """A narrative, and for each purchase how much the narrative needed it and what its soft token is made of."""
    history, task = checked(history), known(task)
    *_, (text, tokens) = each_in_words(fused.narrate(history, task))
    return {"narrative": text, "purchases": in_words(lambda: fused.attribution(history, task, tokens))}


def compare(history: list[dict], task: str) -> dict:
    """What the model says when it is shown everything, texts only, co-purchases only, or no history."""
    history, task = checked(history), known(task)
    return in_words(lambda: fused.compare(history, task))


def recommend(history: list[dict], n: int) -> list[dict]:
    """The next items, by one step of ALS."""
    history = checked(history)
    if not isinstance(n, int | float):
        raise told("n is how many items to give, from 1 to 50.")
    found = in_words(lambda: fused.recommend(history, max(1, min(int(n), 50))))
    return [{"item": shoppers.item(asin), "score": score} for asin, score in found]


def search(words: str) -> list[dict]:
    """Items of the catalogue."""
    if not isinstance(words, str):
        raise told("The words to search for are a text.")
    return shoppers.search(words[:200])


# What a visitor does.


def label(number: int) -> str:
    """How a shopper stands in the list."""
    row = shoppers.rows(shoppers.split)[number]
    return f"Shopper {number + 1} · {len(row['purchase_history'])} purchases"


def shown(shop: Shop) -> list[Any]:
    """Everything that a change of the history changes on the page."""
    history = shop["history"]
    latest = f", the latest: <b>{view.esc(view.cut(view.name(history[-1]), 90))}</b>" if history else ""
    about = f'<p class="note">The history has {len(history)} purchases{latest}. Change it in the first tab.</p>'
    return [
        shop,
        shop["shopper"],
        view.history(history),
        view.said(empty=NOTHING_TOLD),
        "",
        about,
        view.said(empty=NOTHING_COMPARED),
        about,
        [],
        view.said(empty=NOTHING_NEXT),
    ]


def start_from(number: int | None) -> list[Any]:
    """The history of a test shopper, or none."""
    if number is None:
        return shown({"history": [], "shopper": None})
    return shown({"history": shoppers.rows(shoppers.split)[number]["purchase_history"], "shopper": number})


def find(words: str) -> tuple[Any, str]:
    """Items to choose from."""
    if not words.strip():
        return gr.Radio(choices=[], value=None, visible=False), ""
    hits = shoppers.search(words[:200])
    if not hits:
        return gr.Radio(choices=[], value=None, visible=False), "Nothing in the catalogue holds all of these words."
    choices = [(view.cut(item["title"] or item["asin"], 100), item["asin"]) for item in hits]
    return gr.Radio(choices=choices, value=choices[0][1], visible=True), ""


def add_purchase(shop: Shop, asin: str | None, rating: int, words: str) -> list[Any]:
    """The history with one more purchase, the latest."""
    words = words.strip()
    if asin is None:
        raise told("Search the catalogue and choose an item first.")
    if len(words) > MAX_REVIEW:
        raise told(f"A review may have {MAX_REVIEW} characters here, this one has {len(words):,}.")
    if len(shop["history"]) >= MAX_PURCHASES:
        raise told(f"A history may have {MAX_PURCHASES} purchases here. Remove one first.")
    review = {"summary": None, "rating": int(rating), "text": words or None, "unix_time": None}
    purchase = {"item": shoppers.item(asin), "review": review}
    return [*shown({"history": [*shop["history"], purchase], "shopper": None}), ""]


def edit(shop: Shop, event: gr.EventData) -> list[Any]:
    """The history with one purchase moved or removed."""
    history, act, at = list(shop["history"]), event.act, int(event.at)
    if at < len(history):
        purchase = history.pop(at)
        if act != "remove":
            history.insert(max(0, at + (1 if act == "later" else -1)), purchase)
    return shown({"history": history, "shopper": None})


def said_by_the_dataset(shop: Shop, task: str) -> str | None:
    """The narrative of the shopper that the history belongs to, None for a history of the visitor's own."""
    if shop["shopper"] is None:
        return None
    part, field = view.QUESTIONS[task][1]
    return (shoppers.rows(shoppers.split)[shop["shopper"]][part] or {}).get(field)


def tell(shop: Shop, task: str) -> Iterator[tuple[Any, ...]]:
    """What the model says, then which purchases made it say so: the text, the history, and the reasons."""
    history = shop["history"]
    yield view.said(writing=True), view.history(history), ""
    step: tuple[str, Any] = ("", None)
    for step in each_in_words(fused.narrate(history, task)):
        yield view.said(step[0], writing=True), gr.skip(), gr.skip()
    text, tokens = step
    measures = in_words(lambda: fused.attribution(history, task, tokens)) if history else None
    words = view.said(text.strip() or "(The model has nothing to say.)")
    reasons = view.why(history, measures) if history else "<p class='why'>Without a history the model guesses.</p>"
    yield words, view.history(history, measures), reasons + view.reference(said_by_the_dataset(shop, task))


def compared(shop: Shop, task: str) -> str:
    """Four answers of the model, side by side."""
    if not shop["history"]:
        raise told("The history is empty: choose a shopper above, or add purchases in the first tab.")
    texts = in_words(lambda: fused.compare(shop["history"], task))
    theirs = said_by_the_dataset(shop, task)
    titles = {
        "fused": (VIEWS["fused"], "fused: CF and content"),
        "content": (VIEWS["content"], "the same model, CF hidden from it"),
        "cf": (VIEWS["cf"], "the same model, content hidden from it"),
        "empty": (VIEWS["empty"], "what it says to anyone"),
    }
    if theirs is None:
        return view.comparison(texts, titles, texts["fused"], "the answer to everything")
    titles["reference"] = ("The dataset", "reference, not written by the model")
    return view.comparison(texts | {"reference": theirs}, titles, theirs, "the dataset's own words")


def next_items(shop: Shop) -> tuple[list[dict], str]:
    """The next items for this history."""
    if not shop["history"]:
        raise told("The history is empty: choose a shopper above, or add purchases in the first tab.")
    found = recommend(shop["history"], N_NEXT)
    if not found:
        return [], view.said(empty="No item of this history was bought by the shoppers that the model learned from.")
    return found, view.recommended(found)


def endorse(shop: Shop, found: list[dict], event: gr.EventData) -> Iterator[tuple[list[dict], str]]:
    """Write the endorsement of one of the next items, as if it were the next purchase."""
    at = int(event.at)
    if at >= len(found):
        return
    history = [*shop["history"], {"item": found[at]["item"], "review": None}][-MAX_PURCHASES:]

    def with_text(text: str, writing: bool) -> list[dict]:
        return [*found[:at], found[at] | {"text": text, "writing": writing}, *found[at + 1 :]]

    text = ""
    yield found, view.recommended(with_text("", True))
    for text, _ in each_in_words(fused.narrate(history, "product_endorsement")):
        yield found, view.recommended(with_text(text, True))
    done = with_text(text.strip() or "(The model has nothing to say.)", False)
    yield done, view.recommended(done)


def page_of(split: str, stars: int, richness: int, page: int | None) -> tuple[int, str, str]:
    """A page of the dataset: its number, where it stands, and its shoppers."""
    fused.ready.wait()  # the other splits are read now; see the order at the top
    found = shoppers.find(split, stars, richness)
    pages = max(1, -(-len(found) // PAGE))
    page = max(1, min(int(page or 1), pages))  # an emptied field gives None
    if not found:
        return page, "", view.said(empty="No shopper is like that. Loosen the filters.")
    here = found[(page - 1) * PAGE : page * PAGE]
    cards = "".join(view.shopper(shoppers.rows(name)[number], name, number) for name, number in here)
    return (
        page,
        f'<p class="note">Page {page} of {pages}, {len(found):,} shoppers (of the first {PER_SPLIT} of a split).</p>',
        cards,
    )


def take(event: gr.EventData) -> list[Any]:
    """The history of a shopper found in the dataset."""
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
    return view.figures(paths) if paths else view.said(empty="The dataset's repository holds no figures.")


def about() -> str:
    """What the model is, from its configuration."""
    facts = in_words(lambda: fused.facts)
    listed = (f"{value:,}" if isinstance(value, int) else view.esc(value) for value in facts.values())
    return "<ul>" + "".join(f"<li>{name}: {value}</li>" for name, value in zip(facts, listed, strict=True)) + "</ul>"
