"""The page: its parts, and which step each button takes."""

from functools import partial
from typing import Any

import gradio as gr
import programs
import steps
import view
from programs import CONFIG, RANKERS, TASKS, fused, shoppers
from start import Page, shown_name
from steps import DEFAULT_TASK, NO_ANSWER, NO_COMPARISON, NO_ITEMS, TABS
from visits import MAX_REVIEW

SIMULATED = " **The shoppers and the shop are simulated.**" if CONFIG["simulated"] else ""
UNSEEN = ", not seen in training" if CONFIG["split"] != "train" else ""
OTHERS = " The tab Shoppers opens those of the other parts too." if len(CONFIG["splits"]) > 1 else ""
ABOUT = f"""
### What is this?
A recommender that explains itself, as in [REGEN](https://arxiv.org/abs/2410.16780): it describes a shopper, explains a
purchase and recommends an item. The language model reads each purchase as **one word of its own making**,
computed from *who else bought the item* and from the *text* of the item and its review.

**Influence** of a purchase: how much less likely the same answer is without it. A full bar stands for a purchase
without which the answer is about {round(2.718**view.FULL_BAR, -8):,.0f} times less likely; *hardly any* is less than
2.7 times.
**Read from**: how much of the word for a purchase comes from who else bought it, and how much from its text.

### What was it trained on?
The training part of `{CONFIG["dataset_config"]}` in `{shown_name(CONFIG["dataset"])}`. The list above the tabs has
shoppers of its {steps.PARTS.get(CONFIG["split"], CONFIG["split"])} part{UNSEEN}.{OTHERS}{SIMULATED}
"""
LIMITS = """
### Limits
Answers can be fluent and wrong, and may name items that nobody bought. A small model repeats phrases of its training
data. Customers wrote the reviews; rules or a language model wrote the texts to learn from. No answer is advice or a
statement about a real person. The page does not store your input; its address holds your changes.
"""
CODE = f'''from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoProcessor

dataset, model_name = "{shown_name(CONFIG["dataset"])}", "{shown_name(CONFIG["model"])}"
shopper = load_dataset(dataset, "{CONFIG["dataset_config"]}", split="{CONFIG["split"]}")[0]
model = AutoModelForCausalLM.from_pretrained(model_name, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(model_name, trust_remote_code=True)

inputs = processor(history=shopper["purchase_history"], task="{DEFAULT_TASK}")
tokens = model.generate(**inputs, max_new_tokens=256, do_sample=False)[:, inputs["input_ids"].shape[1] :]
print(processor.batch_decode(tokens, skip_special_tokens=True)[0])
print(model.leave_one_out(tokens, **inputs))  # the influence of each purchase
print({"model.pipeline(processor)" if "Model" in RANKERS else "processor"}.recommend(shopper["purchase_history"], n=5))
'''
CALL = f"""from gradio_client import Client

client = Client("URL of this page")
history = [{{"item": {{"title": "Gel pen"}}, "review": {{"rating": 5, "text": "Writes well."}}}}]
print(client.predict(history, "{DEFAULT_TASK}", api_name="/narrate"))
"""
BY_OTHERS = "The items that shoppers with similar purchases bought. The model writes the reason on request."
BY_MODEL = (
    "The model chooses what this shopper may buy next, and writes the reason for its first choice. On request, it "
    "writes a reason for the others."
)
QUESTIONS = sorted(((task["question"], name) for name, task in TASKS.items()), key=lambda each: each[1] != DEFAULT_TASK)
RANKER_NAMES = [{"Model": ("This model", "Model"), "ALS": ("Similar shoppers", "ALS")}[name] for name in RANKERS]
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
SESSION: dict[str, Any] = {"api_visibility": "undocumented"}  # a step with the state of its session
MODEL: dict[str, Any] = {"concurrency_limit": 2, "concurrency_id": "model"}
RANKING = MODEL if "Model" in RANKERS else {}
CLICKS = "regen.clicks(element, trigger, watch);"

with Page(title="A recommender that explains itself", delete_cache=(3600, 3600)) as demo:
    shop = gr.State({"shopper": None, "entries": [], "history": []})
    items, asked, said, editing = gr.State([]), gr.State([]), gr.State(None), gr.State(None)
    gr.Markdown(
        "# A recommender that explains itself\nA language model reads what a shopper bought, answers questions about "
        f"the shopper, and shows which purchases each answer rests on.{SIMULATED}",
        elem_id="top",
    )
    who = gr.HTML(elem_id="who")
    address = gr.HTML(elem_id="address", js_on_load="regen.linked(element, watch);")
    with gr.Accordion("Choose another shopper", open=False) as choose:
        with gr.Row(elem_classes="bar"):
            buyer_words = gr.Textbox(
                label="Find shoppers by what they bought", placeholder="e.g. lamp", max_lines=1, max_length=200, scale=4
            )
            random = gr.Button("Random shopper", scale=1, min_width=150)
            empty = gr.Button("Start with no purchases", scale=1, min_width=150)
        people = gr.Radio(
            [(steps.label(number), number) for number in shoppers.buyers("")],
            label=f"Shoppers{UNSEEN}",
            elem_classes="stacked",
        )
    with gr.Tabs(overflow_behavior="wrap") as tabs:
        with gr.Tab("Ask", id="ask") as ask_tab, gr.Row(elem_id="columns"):
            with gr.Column(scale=6, min_width=300):
                question = gr.Radio(QUESTIONS, value=DEFAULT_TASK, label="Question", elem_id="question")
                ask = gr.Button("Tell me", variant="primary", size="lg", elem_id="ask")
                text = gr.HTML(view.answer(empty=NO_ANSWER), elem_id="answer")
                reasons = gr.HTML(elem_id="reasons", js_on_load=CLICKS)
                with gr.Row(elem_classes="bar"):
                    copy = gr.Button("Copy as a picture", size="sm", scale=0, min_width=170)
                    copied = gr.Markdown()
            with gr.Column(scale=5, min_width=300):
                with gr.Accordion("Add a purchase", open=False) as form:
                    message = gr.HTML()
                    words = gr.Textbox(
                        label="Search the catalogue", placeholder="e.g. red lamp", max_lines=1, max_length=200
                    )
                    no_hits = gr.HTML()
                    hits = gr.Radio([], label="Items", visible=False, elem_classes="stacked")
                    shelves = {number: view.short(each) for number, each in enumerate(shoppers.categories)}
                    categories = gr.HTML(view.buttons(shelves, "category"), js_on_load=CLICKS)
                    stars = gr.Radio([(f"{n} ★", n) for n in range(1, 6)], value=5, label="Your rating")
                    review = gr.Textbox(
                        label="Your review",
                        placeholder="What did you like or dislike?",
                        lines=2,
                        max_length=MAX_REVIEW,
                        elem_id="review",
                    )
                    add = gr.Button("Add this purchase", variant="secondary")
                purchases = gr.HTML(js_on_load=CLICKS)
        with gr.Tab("Compare", id="compare") as compare_tab:
            gr.Markdown(
                "The same model answers four times: from everything; from the *texts* only; from *who else bought the "
                "items* only; and without any purchase. So you see what each part is good for."
            )
            other_question = gr.Radio(QUESTIONS, value=DEFAULT_TASK, label="Question")
            ask_all = gr.Button("Compare", variant="primary")
            comparison = gr.HTML(view.answer(empty=NO_COMPARISON), elem_id="comparison")
        with gr.Tab("Recommend", id="recommend") as recommend_tab:
            gr.Markdown(BY_MODEL if "Model" in RANKERS else BY_OTHERS)
            ranker = gr.Radio(RANKER_NAMES, value=RANKERS[0], label="Chosen by", visible=len(RANKERS) > 1)
            ask_next = gr.Button("Recommend items", variant="primary")
            dialogue = gr.HTML(elem_id="dialogue")
            offers = gr.HTML(view.answer(empty=NO_ITEMS), elem_id="offers", js_on_load=CLICKS)
            with gr.Column(visible=fused.reads_critiques):
                critique = gr.Textbox(
                    label="Not quite? Say what should be different about the first item",
                    placeholder=next(iter(shoppers.critiques), "I would like another colour."),
                    max_lines=2,
                    max_length=steps.MAX_CRITIQUE,
                )
                examples = gr.HTML(
                    view.buttons(dict(enumerate(shoppers.critiques)), "example"), js_on_load=CLICKS, elem_id="examples"
                )
                again = gr.Button("Recommend again")
        with gr.Tab("Shoppers", id="shoppers") as explore:
            with gr.Row(equal_height=True):
                split = gr.Radio(
                    [("all", "all"), *((steps.PARTS.get(name, name), name) for name in shoppers.splits)],
                    value=shoppers.split,
                    label="Part of the dataset",
                )
                rated = gr.Radio(
                    [("any", 0), *((f"{n} ★", n) for n in range(1, 6))], value=0, label="Stars of the last purchase"
                )
                rich = gr.Slider(0, 7, value=0, step=1, label="How much the purchases reveal, at least (0: any)")
            note = gr.HTML()
            rows = gr.HTML(elem_id="rows", js_on_load=CLICKS)
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
            gr.HTML(view.code(CODE, "Model and dataset") + view.code(CALL, "API of this page"), elem_id="code")

    ranking = [items, offers, asked, dialogue]
    changed = [shop, who, text, purchases, reasons, comparison, *ranking, address, editing, add]
    opened = [*changed, said]
    quick: dict[str, Any] = {"queue": False, "show_progress": "hidden"}

    answering = ask.click(
        steps.answer,
        [shop, question, said],
        [text, purchases, reasons, said],
        api_name="answer",
        show_progress="minimal",
        show_progress_on=text,
        **SESSION,
        **MODEL,
    )
    waiting: dict[str, Any] = {"show_progress": "minimal"}
    comparing = ask_all.click(steps.compared, [shop, other_question], comparison, **waiting, **PRIVATE, **MODEL)
    offering = ask_next.click(
        steps.next_items, [shop, ranker], ranking, show_progress_on=offers, **waiting, **PRIVATE, **RANKING
    )
    criticising = gr.on(
        [again.click, critique.submit],
        steps.criticise,
        [shop, items, asked, critique],
        ranking,
        show_progress_on=offers,
        **waiting,
        **PRIVATE,
        **MODEL,
    )
    examples.click(steps.example, None, critique, **PRIVATE)
    endorsing = offers.click(
        steps.endorse, [shop, items], [items, offers], show_progress_on=offers, **waiting, **PRIVATE, **MODEL
    )

    # A change of the question or the history cancels and clears the answer, in two steps: on the server, a function
    # that cancels would also cancel later requests.
    changes = [people.input, random.click, empty.click, add.click, purchases.click, rows.click, offers.select]
    gr.on([*changes, question.input], None, cancels=[answering], **PRIVATE)
    gr.on(changes, None, cancels=[comparing], **PRIVATE)
    gr.on([*changes, ranker.input], None, cancels=[offering, criticising, endorsing], **PRIVATE)
    demo.load(steps.open_link, None, [*opened, question, tabs], **quick, **PRIVATE)
    people.input(steps.start_from, [people, question], [*opened, choose], api_name="start_from", **quick, **SESSION)
    random.click(
        lambda task: steps.start_from(shoppers.random_number(), task), question, [*opened, choose], **quick, **PRIVATE
    )
    empty.click(lambda task: steps.start_from(None, task), question, [*opened, choose], **quick, **PRIVATE)
    gr.on([buyer_words.submit, buyer_words.change], steps.buyers, buyer_words, people, trigger_mode="always_last",
          show_progress="hidden", **PRIVATE)  # fmt: skip
    purchases.click(steps.edit, shop, changed, **quick, **PRIVATE)
    purchases.select(steps.edit_review, shop, [editing, form, stars, review, add, message], **quick, **PRIVATE)
    offers.select(steps.own, [shop, items], changed, show_progress="hidden", **PRIVATE)
    gr.on([words.submit, words.change], steps.find, words, [hits, no_hits], api_name="find", trigger_mode="always_last",
          show_progress="hidden", **SESSION)  # fmt: skip
    categories.click(steps.category, None, words, **quick, **PRIVATE)
    add.click(
        steps.add_purchase,
        [shop, editing, hits, stars, review],
        [*changed, review, message],
        api_name="add_purchase",
        **quick,
        **SESSION,
    )
    question.input(
        lambda state: (view.answer(empty=NO_ANSWER), view.history(state["history"]), ""),
        shop,
        [text, purchases, reasons],
        **quick,
        **PRIVATE,
    )
    question.input(None, question, None, js="question => regen.link({ question })", **PRIVATE)
    for tab, name in zip((ask_tab, compare_tab, recommend_tab, explore, about_tab), TABS, strict=True):
        tab.select(None, None, None, js=f"() => regen.link({{ tab: '{name}' }})", **PRIVATE)
    copy.click(None, None, copied, js="regen.picture", **PRIVATE)
    ranker.input(steps.no_items, None, ranking, **quick, **PRIVATE)

    filters: list[Any] = [split, rated, rich]
    results = [page, note, rows]
    gr.on([explore.select, page.submit], steps.page_of, [*filters, page], results, **PRIVATE)
    gr.on([each.change for each in filters], steps.page_of, filters, results, **PRIVATE)
    back.click(partial(steps.page_of, step=-1), [*filters, page], results, **PRIVATE)
    forward.click(partial(steps.page_of, step=1), [*filters, page], results, **PRIVATE)
    rows.click(steps.take, question, [*opened, tabs], **quick, **PRIVATE)
    figures_opened.expand(steps.figures, None, pictures, **PRIVATE)
    about_tab.select(steps.about, None, facts, **PRIVATE)

    for name, limits in (
        ("narrate", MODEL),
        ("explain", MODEL),
        ("compare", MODEL),
        ("recommend", RANKING),
        ("search", {}),
    ):
        gr.api(getattr(programs, name), api_name=name, **limits)
