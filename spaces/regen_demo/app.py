"""Demo of a fused recommender language model: a shopper's history in, words about them out.

Shows the model and the dataset that `config.json` names, repositories on the Hub at a commit, or folders.
"""

from pathlib import Path
from typing import Any

import gradio as gr
import view
from steps import (
    CONFIG,
    MAX_REVIEW,
    NOTHING_COMPARED,
    NOTHING_NEXT,
    NOTHING_TOLD,
    about,
    add_purchase,
    compare,
    compared,
    edit,
    endorse,
    explain,
    figures,
    find,
    label,
    narrate,
    next_items,
    page_of,
    recommend,
    search,
    shoppers,
    start_from,
    take,
    tell,
)

SIMULATED = " **The shoppers, their reviews and the shop are simulated.**" if CONFIG["simulated"] else ""
UNSEEN = ", whom it has not seen" if CONFIG["split"] != "train" else ""
ABOUT = f"""
### What is this?
[REGEN](https://arxiv.org/abs/2410.16780) asks a recommender to explain itself: who is this shopper, why did they buy
this, what would one say to recommend it? Each purchase reaches the language model as **one soft token**, a vector that
blends *who else bought the item* (collaborative filtering, CF) with *what the item and the review say* (content). The
model never reads the history as text.

**Influence** of a purchase is by how much the log-likelihood of the text falls when that purchase is left out, in nats.
**Made of** is the share of CF and of content in its soft token, by norm.

### What was it trained on?
On the train split of `{CONFIG["dataset_config"]}` in `{CONFIG["dataset"]}`; the shoppers offered here are of its
{CONFIG["split"]} split{UNSEEN}.{SIMULATED}
"""
LIMITS = """
### Limits
It can be wrong, and fluent when it is: it may name things that nobody bought. A small model repeats the phrases of its
training. Reviews are written by strangers, and the narratives by rules or by a language model. Nothing it says is
advice, or true of a real person. Nothing that you type is kept.
"""
CODE = f'''from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoProcessor

shopper = load_dataset("{CONFIG["dataset"]}", "{CONFIG["dataset_config"]}", split="{CONFIG["split"]}")[0]
model = AutoModelForCausalLM.from_pretrained("{CONFIG["model"]}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{CONFIG["model"]}", trust_remote_code=True)

inputs = processor(history=shopper["purchase_history"], task="long_user_summary")
tokens = model.generate(**inputs, max_new_tokens=256, do_sample=False)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(tokens, skip_special_tokens=True)[0])
print(model.leave_one_out(tokens, **inputs))  # which purchases made it say so
print(processor.recommend(shopper["purchase_history"], n=5))  # what they buy next
'''
CALL = """from gradio_client import Client

client = Client("URL of this page")
history = [{"item": {"title": "Gel pen"}, "review": {"rating": 5, "text": "Writes well."}}]
print(client.predict(history, "user_profile", api_name="/narrate"))
"""
TASKS = [(question, task) for task, (question, _) in view.QUESTIONS.items()]
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
SESSION: dict[str, Any] = {"api_visibility": "undocumented"}  # a step of a page; its state is the session's
MODEL: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "model"}

with gr.Blocks(title="REGEN: a recommender that explains itself") as demo:
    shop = gr.State({"history": [], "shopper": None})
    found = gr.State([])
    gr.Markdown(
        "# A recommender that explains itself\nPick a shopper, ask, and a language model answers from their purchases, "
        f"and shows which of them made it say so.{SIMULATED}",
        elem_id="top",
    )
    with gr.Row(elem_classes="bar"):
        shopper = gr.Dropdown(
            [(label(number), number) for number in range(len(shoppers.rows(shoppers.split)))],
            value=0,
            label="Shopper" + (", not seen in training" if CONFIG["split"] != "train" else ""),
            scale=4,
            min_width=220,
        )
        surprise = gr.Button("Another", scale=1, min_width=110)
        nobody = gr.Button("Start empty", scale=1, min_width=110)
    with gr.Tabs() as tabs:
        with gr.Tab("Shop and be told", id="shop"), gr.Row():
            with gr.Column(scale=5, min_width=300):
                gr.Markdown("#### 1 · The history")
                with gr.Accordion("Add a purchase", open=False):
                    words = gr.Textbox(
                        label="Search the catalogue", placeholder="e.g. red lamp", max_lines=1, max_length=200
                    )
                    hits = gr.Radio([], label="Items", visible=False)
                    no_hits = gr.Markdown()
                    stars = gr.Radio([(f"{n} ★", n) for n in range(1, 6)], value=5, label="Your rating")
                    review = gr.Textbox(
                        label="A few words of review",
                        placeholder="What did you like, or not?",
                        lines=2,
                        max_length=MAX_REVIEW,
                    )
                    add = gr.Button("Add to the history", variant="secondary")
                purchases = gr.HTML(js_on_load=view.CLICKS)
            with gr.Column(scale=6, min_width=300):
                gr.Markdown("#### 2 · What do you want to hear about them?")
                question = gr.Radio(TASKS, value="long_user_summary", show_label=False, label="Question")
                ask = gr.Button("Tell me", variant="primary", size="lg")
                said = gr.HTML(view.said(empty=NOTHING_TOLD), elem_id="said")
                reasons = gr.HTML(elem_id="reasons")
        with gr.Tab("Compare", id="compare"):
            gr.Markdown(
                "What does the model know from *texts*, and what from *who else bought the same*? It is asked four "
                "times, each time with a part of the history hidden from it. It is one model, trained on both."
            )
            history_compared = gr.HTML()
            with gr.Row(elem_classes="bar"):
                other_question = gr.Dropdown(TASKS, value="long_user_summary", label="Question", scale=4, min_width=220)
                ask_all = gr.Button("Compare", variant="primary", scale=1, min_width=140)
            answers = gr.HTML(view.said(empty=NOTHING_COMPARED), elem_id="answers")
        with gr.Tab("Recommend", id="recommend"):
            gr.Markdown(
                "What comes next, from the purchases of others (ALS, folded in for this history), and what the "
                "model says to recommend it."
            )
            history_next = gr.HTML()
            ask_next = gr.Button("What next?", variant="primary")
            offers = gr.HTML(view.said(empty=NOTHING_NEXT), elem_id="offers", js_on_load=view.CLICKS)
        with gr.Tab("Explore the dataset", id="explore") as explore:
            with gr.Row(equal_height=True):
                split = gr.Dropdown(["all", *shoppers.splits], value=shoppers.split, label="Split", min_width=120)
                rated = gr.Dropdown(
                    [("any", 0), *((f"{n} ★", n) for n in range(1, 6))], value=0, label="Last purchase", min_width=120
                )
                rich = gr.Slider(0, 7, value=0, step=1, label="Richness of at least (0: any)", min_width=180)
            where = gr.HTML()
            rows = gr.HTML(elem_id="rows", js_on_load=view.CLICKS)
            with gr.Row():
                back = gr.Button("← Previous", min_width=120)
                page = gr.Number(1, label="Page", precision=0, minimum=1, min_width=100)
                on = gr.Button("Next →", min_width=120)
            with gr.Accordion("Figures of the dataset", open=False) as drawn:
                pictures = gr.HTML()
        with gr.Tab("About", id="about") as about_tab:
            gr.Markdown(ABOUT)
            facts = gr.HTML()
            gr.Markdown(LIMITS)
            gr.Markdown("### Load it yourself")
            gr.Code(CODE, language="python", interactive=False, label="Model and dataset")
            gr.Code(CALL, language="python", interactive=False, label="This page from a program")

    changed = [shop, shopper, purchases, said, reasons, history_compared, answers, history_next, found, offers]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}

    told = ask.click(
        tell,
        [shop, question],
        [said, purchases, reasons],
        api_name="tell",
        show_progress="minimal",
        show_progress_on=said,
        **SESSION,
        **MODEL,
    )
    all_told = ask_all.click(compared, [shop, other_question], answers, **PRIVATE, **MODEL)
    ask_next.click(next_items, shop, [found, offers], **PRIVATE)
    endorsed = offers.click(endorse, [shop, found], [found, offers], show_progress="hidden", **PRIVATE, **MODEL)

    # An answer to another question, or about another history, stops and goes. Two steps: a function that cancels would,
    # on the server, also cancel what was asked after it.
    changes = [shopper.input, surprise.click, nobody.click, add.click, purchases.click, rows.click]
    gr.on([*changes, question.input], None, cancels=[told], **PRIVATE)
    gr.on(changes, None, cancels=[all_told, endorsed], **PRIVATE)
    demo.load(lambda: start_from(0), None, changed, **quick, **PRIVATE)
    shopper.input(start_from, shopper, changed, api_name="start_from", **quick, **SESSION)
    surprise.click(lambda: start_from(shoppers.some()), None, changed, **quick, **PRIVATE)
    nobody.click(lambda: start_from(None), None, changed, **quick, **PRIVATE)
    purchases.click(edit, shop, changed, **quick, **PRIVATE)
    gr.on([words.submit, words.change], find, words, [hits, no_hits], api_name="find", trigger_mode="always_last",
          show_progress="hidden", **SESSION)  # fmt: skip
    add.click(
        add_purchase, [shop, hits, stars, review], [*changed, review], api_name="add_purchase", **quick, **SESSION
    )
    question.input(
        lambda mine: (view.said(empty=NOTHING_TOLD), view.history(mine["history"]), ""),
        shop,
        [said, purchases, reasons],
        **quick,
        **PRIVATE,
    )

    filters: list[Any] = [split, rated, rich]
    gr.on([explore.select, page.submit], page_of, [*filters, page], [page, where, rows], **PRIVATE)
    gr.on([each.change for each in filters], lambda *kept: page_of(*kept, 1), filters, [page, where, rows], **PRIVATE)
    back.click(lambda *kept: page_of(*kept[:-1], (kept[-1] or 1) - 1), [*filters, page], [page, where, rows], **PRIVATE)
    on.click(lambda *kept: page_of(*kept[:-1], (kept[-1] or 0) + 1), [*filters, page], [page, where, rows], **PRIVATE)
    rows.click(take, None, [*changed, tabs], **quick, **PRIVATE)
    drawn.expand(figures, None, pictures, **PRIVATE)
    about_tab.select(about, None, facts, **PRIVATE)

    for function, limits in ((narrate, MODEL), (explain, MODEL), (compare, MODEL), (recommend, {}), (search, {})):
        gr.api(function, api_name=function.__name__, **limits)

if __name__ == "__main__":
    demo.queue(max_size=64).launch(
        # Fonts of the visitor's machine: nothing is fetched from elsewhere.
        theme=gr.themes.Default(primary_hue="emerald", font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
            button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700"
        ),
        css_paths=Path(__file__).parent / "style.css",
    )
