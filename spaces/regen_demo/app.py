"""Demo of a fused recommender language model: a shopper's history in, a narrative about them out.

Loads model and dataset named in `config.json` (Hub ids or folders) and shows what the model says about a test shopper.
"""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import gradio as gr
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoProcessor, TextIteratorStreamer

CONFIG = json.loads(
    Path(os.environ.get("REGEN_DEMO_CONFIG", Path(__file__).parent / "config.json")).read_text(encoding="utf-8")
)
TASKS = {
    "Why did they buy the last item?": "purchase_reason",
    "Explain it from their history": "purchase_reason_explanation",
    "Recommend it to them": "product_endorsement",
    "Who are they, in a phrase?": "user_profile",
    "Who are they, briefly?": "brief_user_summary",
    "Who are they, in detail?": "long_user_summary",
}

model = AutoModelForCausalLM.from_pretrained(CONFIG["model"], trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(CONFIG["model"], trust_remote_code=True)
shoppers = load_dataset(CONFIG["dataset"], split="test")


def history_of(number: int) -> list[dict[str, Any]]:
    """The purchases of a test shopper, oldest first."""
    return shoppers[int(number) % len(shoppers)]["purchase_history"]


def shown(number: int) -> list[list[str]]:
    """The history as rows of a table, the latest purchase first."""
    return [
        [
            "★" * purchase["review"]["rating"] if purchase["review"]["rating"] else "–",
            purchase["item"]["title"],
            purchase["review"]["text"] or "",
        ]
        for purchase in reversed(history_of(number))
    ]


def narrate(number: int, question: str) -> Iterator[str]:
    """Stream the narrative that answers `question` about a test shopper."""
    inputs = processor(history=history_of(number), task=TASKS[question])
    streamer = TextIteratorStreamer(processor.tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=120)
    worker = Thread(target=model.generate, kwargs={**inputs, "streamer": streamer, "max_new_tokens": 256})
    worker.start()
    text = ""
    for piece in streamer:
        text += piece
        yield text
    worker.join()


def another() -> int:
    """The number of some test shopper."""
    return random.randrange(len(shoppers))


with gr.Blocks(title="REGEN: a recommender that explains itself") as demo:
    gr.Markdown(
        "# A recommender that explains itself\n"
        "The model reads a purchase history as soft tokens, one per purchase, and says what it makes of the shopper. "
        "It can be wrong."
    )
    with gr.Row():
        with gr.Column():
            shopper = gr.Number(0, label=f"Test shopper (0 to {len(shoppers) - 1})", precision=0, minimum=0)
            choose = gr.Button("Another shopper")
            table = gr.Dataframe(
                shown(0), headers=["rating", "item", "review"], label="Purchases, latest first", wrap=True
            )
        with gr.Column():
            ask = gr.Radio(list(TASKS), value=next(iter(TASKS)), label="What do you want to hear?")
            go = gr.Button("Tell me", variant="primary")
            said = gr.Textbox(label="The model says", lines=6)
    choose.click(another, outputs=shopper)
    shopper.change(shown, inputs=shopper, outputs=table)
    go.click(narrate, inputs=[shopper, ask], outputs=said)

if __name__ == "__main__":
    demo.queue(default_concurrency_limit=2).launch()
