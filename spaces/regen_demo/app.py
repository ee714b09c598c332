"""Demo of a fused recommender language model: answers about a shopper's purchase history, with explanations.

`config.json` names the model and the dataset: repositories on the Hub at a commit, or folders.
"""

from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
import view
from steps import (
    CONFIG,
    MAX_REVIEW,
    NO_ANSWER,
    NO_COMPARISON,
    NO_ITEMS,
    RANKERS,
    TASKS,
    about,
    add_purchase,
    answer,
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
)

SIMULATED = " **The shoppers, their reviews and the shop are simulated.**" if CONFIG["simulated"] else ""
UNSEEN = ", who are not in the training data" if CONFIG["split"] != "train" else ""
ABOUT = f"""
### What is this?
A recommender that explains itself, as in [REGEN](https://arxiv.org/abs/2410.16780): it describes a shopper, explains a
purchase and recommends an item. Each purchase is **one soft token** of the language model, a vector that combines
*co-purchases* (collaborative filtering, CF) with the *text* of the item and its review (content). The model never reads
the history as text.

**Influence** of a purchase: the decrease of the log-likelihood of the answer without that purchase, in nats.
**Parts**: the shares of CF and content in its soft token, by norm.

### What was it trained on?
The train split of `{CONFIG["dataset_config"]}` in `{CONFIG["dataset"]}`. The shoppers on this page are from its
{CONFIG["split"]} split{UNSEEN}.{SIMULATED}
"""
LIMITS = """
### Limits
Answers can be fluent and wrong, and may name items that nobody bought. A small model repeats phrases of its training
data. Customers wrote the reviews; rules or a language model wrote the references. No answer is advice or a statement
about a real person. The page does not store your input.
"""
CODE = f'''from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoProcessor

shopper = load_dataset("{CONFIG["dataset"]}", "{CONFIG["dataset_config"]}", split="{CONFIG["split"]}")[0]
model = AutoModelForCausalLM.from_pretrained("{CONFIG["model"]}", trust_remote_code=True)
processor = AutoProcessor.from_pretrained("{CONFIG["model"]}", trust_remote_code=True)

inputs = processor(history=shopper["purchase_history"], task="long_user_summary")
tokens = model.generate(**inputs, max_new_tokens=256, do_sample=False)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(tokens, skip_special_tokens=True)[0])
print(model.leave_one_out(tokens, **inputs))  # the influence of each purchase
print({"model.pipeline(processor)" if "Model" in RANKERS else "processor"}.recommend(shopper["purchase_history"], n=5))
'''
CALL = """from gradio_client import Client

client = Client("URL of this page")
history = [{"item": {"title": "Gel pen"}, "review": {"rating": 5, "text": "Writes well."}}]
print(client.predict(history, "user_profile", api_name="/narrate"))
"""
BY_ALS = (
    "The next items by collaborative filtering (ALS, folded in for this history). The model writes an endorsement on "
    "request."
)
BY_MODEL = (
    "The model ranks the catalogue after the history, and writes the reason for its first choice from the same pass. "
    "It endorses other items on request. **ALS** ranks by collaborative filtering only, folded in for this history."
)
DEFAULT_TASK = "long_user_summary"
QUESTIONS = [(task["question"], name) for name, task in TASKS.items()]
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
SESSION: dict[str, Any] = {"api_visibility": "undocumented"}  # a step with the state of its session
MODEL: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "model"}
RANKING = MODEL if "Model" in RANKERS else {}

with gr.Blocks(title="REGEN: a recommender that explains itself") as demo:
    shop = gr.State({"history": [], "shopper": None})
    items = gr.State([])
    gr.Markdown(
        "# A recommender that explains itself\nChoose a shopper and ask a question. A language model answers from the "
        f"purchases, and bars show the influence of each purchase.{SIMULATED}",
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
        random = gr.Button("Random", scale=1, min_width=110)
        empty = gr.Button("Start empty", scale=1, min_width=110)
    with gr.Tabs() as tabs:
        with gr.Tab("Shop and ask", id="shop"), gr.Row():
            with gr.Column(scale=5, min_width=300):
                gr.Markdown("#### 1 · Purchase history")
                with gr.Accordion("Add a purchase", open=False):
                    words = gr.Textbox(
                        label="Search the catalogue", placeholder="e.g. red lamp", max_lines=1, max_length=200
                    )
                    hits = gr.Radio([], label="Items", visible=False)
                    no_hits = gr.Markdown()
                    stars = gr.Radio([(f"{n} ★", n) for n in range(1, 6)], value=5, label="Your rating")
                    review = gr.Textbox(
                        label="Your review",
                        placeholder="What did you like or dislike?",
                        lines=2,
                        max_length=MAX_REVIEW,
                    )
                    add = gr.Button("Add to the history", variant="secondary")
                purchases = gr.HTML(js_on_load=view.CLICKS)
            with gr.Column(scale=6, min_width=300):
                gr.Markdown("#### 2 · Question about the shopper")
                question = gr.Radio(QUESTIONS, value=DEFAULT_TASK, show_label=False, label="Question")
                ask = gr.Button("Ask", variant="primary", size="lg")
                text = gr.HTML(view.answer(empty=NO_ANSWER), elem_id="answer")
                reasons = gr.HTML(elem_id="reasons")
        with gr.Tab("Compare", id="compare"):
            gr.Markdown(
                "The same model answers four times: from the full history, from *texts* only, from *co-purchases* only "
                "(who else bought the items), and without a history."
            )
            history_compared = gr.HTML()
            with gr.Row(elem_classes="bar"):
                other_question = gr.Dropdown(QUESTIONS, value=DEFAULT_TASK, label="Question", scale=4, min_width=220)
                ask_all = gr.Button("Compare", variant="primary", scale=1, min_width=140)
            comparison = gr.HTML(view.answer(empty=NO_COMPARISON), elem_id="comparison")
        with gr.Tab("Recommend", id="recommend"):
            gr.Markdown(BY_MODEL if "Model" in RANKERS else BY_ALS)
            history_next = gr.HTML()
            with gr.Row(elem_classes="bar"):
                ranker = gr.Radio(
                    RANKERS, value=RANKERS[0], label="Ranked by", visible=len(RANKERS) > 1, scale=4, min_width=220
                )
                ask_next = gr.Button("Recommend items", variant="primary", scale=1, min_width=140)
            offers = gr.HTML(view.answer(empty=NO_ITEMS), elem_id="offers", js_on_load=view.CLICKS)
        with gr.Tab("Explore the dataset", id="explore") as explore:
            with gr.Row(equal_height=True):
                split = gr.Dropdown(["all", *shoppers.splits], value=shoppers.split, label="Split", min_width=120)
                rated = gr.Dropdown(
                    [("any", 0), *((f"{n} ★", n) for n in range(1, 6))], value=0, label="Last rating", min_width=120
                )
                rich = gr.Slider(0, 7, value=0, step=1, label="Minimum richness (0: any)", min_width=180)
            note = gr.HTML()
            rows = gr.HTML(elem_id="rows", js_on_load=view.CLICKS)
            with gr.Row():
                back = gr.Button("← Previous", min_width=120)
                page = gr.Number(1, label="Page", precision=0, minimum=1, min_width=100)
                forward = gr.Button("Next →", min_width=120)
            with gr.Accordion("Figures of the dataset", open=False) as figures_opened:
                pictures = gr.HTML()
        with gr.Tab("About", id="about") as about_tab:
            gr.Markdown(ABOUT)
            facts = gr.HTML()
            gr.Markdown(LIMITS)
            gr.Markdown("### Use it in Python")
            gr.Code(CODE, language="python", interactive=False, label="Model and dataset")
            gr.Code(CALL, language="python", interactive=False, label="API of this page")

    changed = [shop, shopper, purchases, text, reasons, history_compared, comparison, history_next, items, offers]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}

    answering = ask.click(
        answer,
        [shop, question],
        [text, purchases, reasons],
        api_name="answer",
        show_progress="minimal",
        show_progress_on=text,
        **SESSION,
        **MODEL,
    )
    comparing = ask_all.click(compared, [shop, other_question], comparison, **PRIVATE, **MODEL)
    offering = ask_next.click(
        next_items,
        [shop, ranker],
        [items, offers],
        show_progress="minimal",
        show_progress_on=offers,
        **PRIVATE,
        **RANKING,
    )
    endorsing = offers.click(endorse, [shop, items], [items, offers], show_progress="hidden", **PRIVATE, **MODEL)

    # A change of the question or the history cancels and clears the answer, in two steps: on the server, a function
    # that cancels would also cancel later requests.
    changes = [shopper.input, random.click, empty.click, add.click, purchases.click, rows.click]
    gr.on([*changes, question.input], None, cancels=[answering], **PRIVATE)
    gr.on(changes, None, cancels=[comparing], **PRIVATE)
    gr.on([*changes, ranker.input], None, cancels=[offering, endorsing], **PRIVATE)
    demo.load(lambda: start_from(0), None, changed, **quick, **PRIVATE)
    shopper.input(start_from, shopper, changed, api_name="start_from", **quick, **SESSION)
    random.click(lambda: start_from(shoppers.random_number()), None, changed, **quick, **PRIVATE)
    empty.click(lambda: start_from(None), None, changed, **quick, **PRIVATE)
    purchases.click(edit, shop, changed, **quick, **PRIVATE)
    gr.on([words.submit, words.change], find, words, [hits, no_hits], api_name="find", trigger_mode="always_last",
          show_progress="hidden", **SESSION)  # fmt: skip
    add.click(
        add_purchase, [shop, hits, stars, review], [*changed, review], api_name="add_purchase", **quick, **SESSION
    )
    question.input(
        lambda state: (view.answer(empty=NO_ANSWER), view.history(state["history"]), ""),
        shop,
        [text, purchases, reasons],
        **quick,
        **PRIVATE,
    )
    ranker.input(lambda: ([], view.answer(empty=NO_ITEMS)), None, [items, offers], **quick, **PRIVATE)

    filters: list[Any] = [split, rated, rich]
    results = [page, note, rows]
    gr.on([explore.select, page.submit], page_of, [*filters, page], results, **PRIVATE)
    gr.on([each.change for each in filters], page_of, filters, results, **PRIVATE)
    back.click(partial(page_of, step=-1), [*filters, page], results, **PRIVATE)
    forward.click(partial(page_of, step=1), [*filters, page], results, **PRIVATE)
    rows.click(take, None, [*changed, tabs], **quick, **PRIVATE)
    figures_opened.expand(figures, None, pictures, **PRIVATE)
    about_tab.select(about, None, facts, **PRIVATE)

    for function, limits in ((narrate, MODEL), (explain, MODEL), (compare, MODEL), (recommend, RANKING), (search, {})):
        gr.api(function, api_name=function.__name__, **limits)

if __name__ == "__main__":
    demo.queue(max_size=64).launch(
        # Fonts of the visitor's machine, so that the page loads nothing from other servers.
        theme=gr.themes.Default(primary_hue="emerald", font=["system-ui", "sans-serif"], font_mono=["monospace"]).set(
            button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700"
        ),
        css_paths=Path(__file__).parent / "style.css",
    )
