"""The API for programs and MCP clients: checked arguments, and the model and the dataset that all steps use.

gradio shows the docstrings of the endpoints to MCP clients. It reads one line per argument, and all lines after
"Returns:".
"""

import contextlib
from collections.abc import Iterator

import view
from fused import Fused
from shoppers import MAX_HITS, Shoppers
from start import config, loading, user_error, without_paths
from visits import MAX_PURCHASES

CONFIG = config()
TASKS: dict[str, view.Task] = {task["name"]: task for task in CONFIG["tasks"]}
MAX_FIELD = 10_000
RANKERS = ["Model", "ALS"] if CONFIG["item_head"] else ["ALS"]

with loading("The dataset", CONFIG["dataset"]):
    shoppers = Shoppers(CONFIG)
fused = Fused(CONFIG["model"], CONFIG["model_revision"], **CONFIG.get("limits", {}))


@contextlib.contextmanager
def user_errors() -> Iterator[None]:
    """Show errors of the model to the visitor."""
    try:
        yield
    except (TimeoutError, RuntimeError, ValueError, FloatingPointError) as error:
        raise user_error(without_paths(str(error))) from error


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
    """Write a narrative about a shopper from a purchase history.

    To explain an item, append it to the history with "review": null, and pass the task "product_endorsement".

    Args:
        history: at most 50 purchases, oldest first: [{"item": {"title": "Pen"}, "review": {"rating": 5, "text": "…"}}].
        task: the kind of narrative, such as "user_profile"; another name returns an error that lists all names.

    Returns:
        The text.
    """
    history, task = checked(history), known(task)
    with user_errors():
        for text, _ in fused.narrate(history, task):
            yield text


def explain(history: list[dict], task: str) -> dict:
    """Write a narrative about a shopper and measure how much each purchase influenced it.

    Args:
        history: at most 50 purchases, oldest first: [{"item": {"title": "Pen"}, "review": {"rating": 5, "text": "…"}}].
        task: the kind of narrative, such as "user_profile"; another name returns an error that lists all names.

    Returns:
        "narrative", and for each of "purchases" its "effect" on the text and its parts "cf" and "content".
    """
    history, task = checked(history), known(task)
    with user_errors():
        *_, (text, tokens) = fused.narrate(history, task)
        return {"narrative": text, "purchases": fused.attribution(history, task, tokens)}


def compare(history: list[dict], task: str) -> dict:
    """Write a narrative four times: from the full history, texts only, co-purchases only, and no history.

    Args:
        history: at most 50 purchases, oldest first: [{"item": {"title": "Pen"}, "review": {"rating": 5, "text": "…"}}].
        task: the kind of narrative, such as "user_profile"; another name returns an error that lists all names.

    Returns:
        A text each for "fused", "content", "cf" and "empty".
    """
    history, task = checked(history), known(task)
    with user_errors():
        return fused.compare(history, task)


def recommend(history: list[dict], n: int, by: str = RANKERS[0]) -> list[dict]:
    """Recommend items that a shopper may buy next.

    Args:
        history: at most 50 purchases, oldest first: [{"item": {"title": "Pen"}, "review": {"rating": 5, "text": "…"}}].
        n: the number of items, from 1 to 50.
        by: "Model", where the model ranks items, or "ALS" for what shoppers with similar purchases bought.

    Returns:
        The best first: each "item" with "asin" and "title", its "score", and "cold" for an item without purchases.
    """
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
    """Search the catalogue: items with all words in their title or category, then those similar in meaning.

    Args:
        words: what to search for; of more than 200 characters the first 200 are read.

    Returns:
        Items with "asin", "title" and the other fields of the catalogue.
    """
    if not isinstance(words, str):
        raise user_error(f"words is a {type(words).__name__}, expected a text.")
    words = words[:200]
    hits = shoppers.search(words)
    chosen = {item["asin"] for item in hits}
    similar = fused.similar(words, MAX_HITS) if words.strip() and len(hits) < MAX_HITS else []
    return (hits + [item for asin in similar if asin not in chosen and (item := shoppers.item(asin))])[:MAX_HITS]
