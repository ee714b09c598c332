"""Demo of a fused recommender language model: a shopper's history in, words about them out.

Loads the model and the dataset named in `config.json` (repositories on the Hub at a commit, or folders) and shows what
the model says about shoppers it was not trained on, beside what the dataset says.
"""

import html
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import gradio as gr
import torch
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoProcessor, TextIteratorStreamer

CONFIG = json.loads(
    Path(os.environ.get("REGEN_DEMO_CONFIG", Path(__file__).parent / "config.json")).read_text(encoding="utf-8")
)
SHOPPERS = 200
MAX_NEW_TOKENS = 256
REVIEW_LENGTH = 280
QUESTIONS = {  # by task: what a visitor asks, and where the dataset holds an answer
    "user_profile": ("Who is this, in a phrase?", ("user", "profile")),
    "brief_user_summary": ("Who is this, briefly?", ("user", "brief_summary")),
    "long_user_summary": ("Who is this, in detail?", ("user", "long_summary")),
    "purchase_reason": ("Why the last purchase?", ("last_purchase", "reason")),
    "purchase_reason_explanation": ("How does it fit what they bought before?", ("last_purchase", "explanation")),
    "product_endorsement": ("Recommend it to them (their review is hidden)", ("last_purchase", "endorsement")),
}
ABOUT = """
Each purchase on the left reaches the language model as **one soft token**: a vector that blends *who else bought the
item* (collaborative filtering) with *what the item and the review say* (text). The model never reads the history as
text. It was trained to write the six narratives of [REGEN](https://arxiv.org/abs/2410.16780).

It can be wrong, and fluent when it is. What it says is not advice.
"""
CSS = """
.history { list-style: none; margin: 0; padding: 0 .3rem 0 0; max-height: 34rem; overflow-y: auto; }
.history li { margin: 0 0 .55rem 0; padding: .65rem .85rem; border: 1px solid var(--border-color-primary);
  border-radius: .6rem; background: var(--background-fill-primary); }
.history li.last { border-color: var(--color-accent); border-width: 2px; }
.history .head { display: flex; gap: .6rem; align-items: baseline; justify-content: space-between; }
.history .title { font-weight: 600; overflow-wrap: anywhere; }
.history .stars { color: #d97706; letter-spacing: .06em; white-space: nowrap; }
.history .review { margin: .25rem 0 0 0; opacity: .75; overflow-wrap: anywhere; }
.history .badge { font-size: .72rem; font-weight: 600; color: var(--color-accent); text-transform: uppercase;
  letter-spacing: .05em; }
@media (max-width: 640px) { .history { max-height: 20rem; } }
#said textarea { font-size: 1.1rem; line-height: 1.55; }
footer { display: none !important; }
"""

device = "cuda" if torch.cuda.is_available() else "cpu"
model = AutoModelForCausalLM.from_pretrained(
    CONFIG["model"], revision=CONFIG["model_revision"], trust_remote_code=True
).eval()
model.to(device)
processor = AutoProcessor.from_pretrained(CONFIG["model"], revision=CONFIG["model_revision"], trust_remote_code=True)
shoppers = list(
    load_dataset(
        CONFIG["dataset"],
        CONFIG["dataset_config"],
        split=CONFIG["split"],
        revision=CONFIG["dataset_revision"],
        streaming=True,
    ).take(SHOPPERS)
)
tasks = [task for task in QUESTIONS if task in processor.task_prompts]
one_at_a_time = Lock()  # tokenizers refuse two threads at once


def label(number: int) -> str:
    """How a shopper stands in the list."""
    return f"Shopper {number + 1} · {len(shoppers[number]['purchase_history'])} purchases"


def history(number: int) -> str:
    """The purchases of a shopper, the latest first, as HTML."""
    items = []
    for place, purchase in enumerate(reversed(shoppers[number]["purchase_history"])):
        item, review = purchase["item"], purchase["review"] or {}
        rating = review.get("rating")
        stars = f'<span class="stars" title="{rating} of 5">{"★" * rating}{"☆" * (5 - rating)}</span>' if rating else ""
        text = review.get("text") or review.get("summary") or ""
        if len(text) > REVIEW_LENGTH:
            text = text[:REVIEW_LENGTH].rsplit(" ", 1)[0] + " …"
        items.append(
            f"<li{' class=last' if place == 0 else ''}>"
            + ('<div class="badge">last purchase</div>' if place == 0 else "")
            + f'<div class="head"><span class="title">{html.escape(item["title"] or item["asin"])}</span>{stars}</div>'
            + (f'<p class="review">{html.escape(text)}</p>' if text else "")
            + "</li>"
        )
    return f'<ol class="history" tabindex="0" aria-label="Purchases, the latest first">{"".join(items)}</ol>'


def narrate(number: int, task: str) -> Iterator[str]:
    """Stream what the model answers about a shopper; `task` is one of REGEN's narratives."""
    with one_at_a_time:
        inputs = processor(history=shoppers[number]["purchase_history"], task=task).to(device)
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
    stop, failures = Event(), []

    def given_up(input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        return torch.full((len(input_ids),), stop.is_set(), device=input_ids.device)

    def write() -> None:
        try:
            model.generate(
                **inputs,
                streamer=streamer,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                stopping_criteria=[given_up],
            )
        except Exception as error:  # it would end with the thread, and the visitor wait for ever
            failures.append(error)
            streamer.end()

    worker = Thread(target=write, daemon=True)
    worker.start()
    text = ""
    try:
        for piece in streamer:
            text += piece
            yield text
    finally:
        stop.set()  # also when the visitor has gone on to another shopper
        worker.join()
    if failures:
        raise gr.Error(f"The model failed: {failures[0]}")
    if not text:
        yield "(The model has nothing to say.)"


def reference(number: int, task: str) -> str:
    """What the dataset says about a shopper."""
    part, field = QUESTIONS[task][1]
    return (shoppers[number][part] or {}).get(field) or "(The dataset says nothing here.)"


def another() -> int:
    """The number of some shopper."""
    return random.randrange(len(shoppers))  # noqa: S311 (no secret)  # noqa: S311 (nothing to guess here)


with gr.Blocks(title="REGEN: a recommender that explains itself") as demo:
    gr.Markdown(
        "# A recommender that explains itself\nPick a shopper, ask a question, and a language model answers from "
        "their purchases and reviews."
        + (" **The shoppers and their reviews are simulated.**" if CONFIG["simulated"] else "")
    )
    with gr.Row():
        with gr.Column(scale=5):
            with gr.Row(equal_height=True):
                shopper = gr.Dropdown(
                    [(label(number), number) for number in range(len(shoppers))],
                    value=0,
                    label="1 · A shopper" + (" the model was not trained on" if CONFIG["split"] != "train" else ""),
                    scale=5,
                    min_width=240,
                )
                surprise = gr.Button("Another", scale=1, min_width=120)
            purchases = gr.HTML(history(0))
        with gr.Column(scale=5):
            question = gr.Radio(
                [(QUESTIONS[task][0], task) for task in tasks], value=tasks[0], label="2 · What do you want to know?"
            )
            ask = gr.Button("Ask the model", variant="primary", size="lg")
            said = gr.Textbox(
                label="The model says",
                placeholder="Its answer appears here, word by word.",
                lines=4,
                interactive=False,
                elem_id="said",
            )
            truth = gr.Textbox(
                label="For comparison, the dataset's own answer",
                placeholder="Shown when the model is done.",
                lines=3,
                interactive=False,
            )
            with gr.Accordion("How does it work?", open=False):
                gr.Markdown(ABOUT)

    answer = ask.click(narrate, [shopper, question], said, api_name="narrate", concurrency_limit=2)
    answer.success(reference, [shopper, question], truth, api_name="reference")
    surprise.click(another, outputs=shopper, api_visibility="private")
    shopper.change(history, shopper, purchases, api_visibility="private", show_progress="hidden")
    # An answer to another question, or about another shopper, stops and goes. Two steps: a function that cancels would,
    # on the server, also cancel what was asked after it.
    changed = [shopper.change, question.change]
    gr.on(changed, None, cancels=[answer], api_visibility="private")
    gr.on(changed, lambda: ("", ""), outputs=[said, truth], queue=False, api_visibility="private")

if __name__ == "__main__":
    demo.queue(max_size=64).launch(
        # Fonts of the visitor's machine: nothing is fetched from elsewhere.
        theme=gr.themes.Default(primary_hue="emerald", font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
            button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700"
        ),
        css=CSS,
    )
