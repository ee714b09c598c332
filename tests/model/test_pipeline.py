"""`regen_hf.load`: a saved model in, narratives out, whole or in pieces."""

import functools
import logging
import threading

import pytest
import torch
from tokenizers import decoders
from transformers import pipeline

import regen_hf
from tests.tiny_model import backbone, fused, processor, purchase

TASK = "long_user_summary"
HISTORIES = [[purchase("A"), purchase("B"), purchase("C")], [], [purchase("unheard of")], [purchase("D")] * 5]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    model = fused()
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)
    parts = processor()
    parts.tokenizer.backend_tokenizer.decoder = decoders.WordPiece()  # spaces between words: a stream flushes at them
    parts.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def regen(folder):
    return regen_hf.load(str(folder))


def narrate(regen, history, task=TASK, **arguments):
    return regen.narrate(history, task=task, max_new_tokens=6, **arguments)


def test_a_history_gives_a_text_and_several_give_a_list_in_their_order(regen):
    one_by_one = [narrate(regen, history) for history in HISTORIES]
    assert all(isinstance(text, str) for text in one_by_one)
    assert len(set(one_by_one)) > 1
    for batch_size in (1, 3, 16):
        assert narrate(regen, HISTORIES, batch_size=batch_size) == one_by_one
    assert narrate(regen, HISTORIES[:1]) == one_by_one[:1]


def test_it_says_what_the_model_generates(regen):
    inputs = regen.processor(HISTORIES[0], TASK)
    tokens = regen.model.generate(**inputs, max_new_tokens=6, do_sample=False)
    text = regen.processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0]
    assert narrate(regen, HISTORIES[0]) == text.strip()


def test_rows_of_a_dataset_and_a_task_for_each_are_taken(regen):
    rows = [{"reviewer_id": str(n), "purchase_history": history} for n, history in enumerate(HISTORIES)]
    tasks = [TASK, "user_profile", "product_endorsement", TASK]
    expected = [narrate(regen, history, task) for history, task in zip(HISTORIES, tasks, strict=True)]
    assert narrate(regen, rows, tasks) == expected
    assert narrate(regen, rows[0]) == expected[0]
    with pytest.raises(ValueError, match="task has 2 values for 4 histories"):
        narrate(regen, rows, tasks[:2])


def test_a_prompt_of_ones_own_and_the_settings_of_generate_are_taken(regen):
    texts = regen.narrate(
        HISTORIES[:2], prompt="the gift", max_new_tokens=6, do_sample=True, temperature=2.0, num_return_sequences=3
    )
    assert [len(of_one) for of_one in texts] == [3, 3]
    assert len(set(texts[0])) > 1
    beams = narrate(regen, HISTORIES[0], num_beams=2, num_return_sequences=1)
    assert isinstance(beams, list)
    assert len(beams) == 1
    with pytest.raises(ValueError, match="Both or none of task and prompt"):
        regen.narrate(HISTORIES[0], max_new_tokens=6)


def test_the_pieces_of_a_stream_are_the_text(regen):
    for history in HISTORIES:
        assert "".join(regen.stream(history, task=TASK, max_new_tokens=6)).strip() == narrate(regen, history)
    with pytest.raises(ValueError, match="stream got 4 histories, expected one"):
        regen.stream(HISTORIES, task=TASK)
    with pytest.raises(ValueError, match="Unknown task 'poem'"):
        regen.stream(HISTORIES[0], task="poem", max_new_tokens=6)


def test_a_stream_keeps_the_space_after_a_line_break(regen, monkeypatch):
    tokens = regen.processor.tokenizer.convert_tokens_to_ids(["w36", "gift", "\n", "w12", "w17", "\n", "\n", "w9"])

    def generate(self, streamer, **_):
        streamer.put(torch.tensor([[1, 3]]))
        for token in tokens:
            streamer.put(torch.tensor([token]))
        streamer.end()

    monkeypatch.setattr(type(regen.model), "generate", generate)
    whole = regen.processor.tokenizer.decode(tokens, skip_special_tokens=True)
    assert "\n " in whole
    pieces = list(regen.stream(HISTORIES[0], task=TASK, max_new_tokens=8))
    assert "".join(pieces) == whole
    assert len(pieces) > 3


def test_a_stream_that_is_left_stops_the_model_and_one_that_fails_raises(regen, monkeypatch):
    steps, left = [], threading.Event()
    forward = type(regen.model).forward

    @functools.wraps(forward)  # generate reads its signature
    def counted(self, *arguments, **inputs):
        steps.append(1)
        if len(steps) == 10:
            left.wait(30)
        return forward(self, *arguments, **inputs)

    monkeypatch.setattr(type(regen.model), "forward", counted)
    stream = regen.stream(HISTORIES[0], task=TASK, max_new_tokens=80, min_new_tokens=80)
    assert next(stream)
    threading.Timer(0.5, left.set).start()  # the model goes on when the reader has left
    stream.close()
    assert len(steps) < 80

    @functools.wraps(forward)
    def broken(*arguments, **inputs):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(regen.model), "forward", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(regen.stream(HISTORIES[0], task=TASK, max_new_tokens=6))


def test_a_history_gives_way_to_the_words_to_be_written(regen, caplog):
    caplog.set_level(logging.WARNING)
    history = [purchase("A")] * 3 + [purchase(asin) for asin in "BCDBCDBCDBCDBCDBCDBCDBCD"]
    room = regen.model.config.window - regen.processor.fit(0, TASK)[1].__len__()
    text = regen.narrate(history, task=TASK, max_new_tokens=room - 24)
    assert "Only the latest 24 purchases fit with this prompt: the oldest 3 of 27 were left out" in caplog.text
    assert text == regen.narrate(history[3:], task=TASK, max_new_tokens=room - 24)
    with pytest.raises(ValueError, match="The prompt without purchases has"):
        regen.narrate(history, task=TASK, max_new_tokens=room + 1)
    with pytest.raises(ValueError, match="max_new_tokens is 256, expected fewer than the 96 tokens"):
        regen.narrate(history, task=TASK)


def test_settings_of_from_pretrained_are_passed_on(folder):
    regen = regen_hf.load(str(folder), dtype="bfloat16", attn_implementation="eager")
    assert str(regen.model.dtype) == "torch.bfloat16"
    assert regen.model.config._attn_implementation == "eager"
    assert isinstance(narrate(regen, HISTORIES[0]), str)
    with pytest.raises(OSError, match="nowhere"):
        regen_hf.load(str(folder / "nowhere"))


def test_a_pipeline_of_transformers_continues_a_text_without_a_history(regen):
    tokens = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    arguments = {"tokenizer": regen.processor.tokenizer, **tokens}
    texts = [pipeline("text-generation", model=model, **arguments) for model in (fused(), backbone())]
    (continued,) = texts[0]("the gift")
    assert [continued] == texts[1]("the gift")
    assert len(continued["generated_text"]) > len("the gift ")
    with pytest.raises(ValueError, match=r"1 placeholder tokens .* no history was passed"):
        texts[0]("<|item|> the gift")
