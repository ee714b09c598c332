"""The purchases that the sentences of a text rest on."""

import threading
import time

import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from regen_hf.model import RegenConfig, citations
from regen_hf.model.citations import Citer, Evidence
from regen_hf.model.pipeline import RegenPipeline
from tests.tiny_model import EOS, FAMILIES, GQA, fused, processor, purchase

TASK = "long_user_summary"
NEW_LINE = 5
HISTORY = [purchase("A"), purchase("B", title="red desk", text="bad glue"), purchase("unheard of"), purchase("D")]
TEXT = [20, 21, 22, NEW_LINE, 23, 24, NEW_LINE, 25, EOS]
SENTENCES = [[0, 1, 2, 3], [4, 5, 6], [7]]


def citer(model, history=HISTORY, **arguments):
    return Citer(model, processor().tokenizer, processor()(history, TASK), **arguments)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "gemma3", "opt", "granite"])
def test_the_effects_of_a_sentence_are_those_of_leaving_a_purchase_out(family):
    model = fused(family, recency=2)
    found = list(citer(model, batch_size=3).evidence(TEXT, last=True))
    assert [evidence.tokens for evidence in found] == SENTENCES
    inputs = processor()(HISTORY, TASK)
    without_history = processor()([], TASK)
    for first, evidence in zip((0, 4, 7), found, strict=True):
        upto = torch.tensor([TEXT[: evidence.tokens[-1] + 1]])
        effects = model.leave_one_out(upto, **inputs)[0]
        if first:
            effects -= model.leave_one_out(upto[:, :first], **inputs)[0]
        expected = effects - effects.median().clamp(min=0)
        torch.testing.assert_close(evidence.effects, expected, atol=2e-4, rtol=1e-4)
        totals = [
            model(**given | {"input_ids": torch.cat([given["input_ids"], upto], 1), "attention_mask": None}).logits
            for given in (dict(inputs), dict(without_history))
        ]
        own, none = (
            logits[0, -len(upto[0]) - 1 : -1].log_softmax(-1).gather(1, upto.T)[first:].sum() for logits in totals
        )
        assert evidence.strength == pytest.approx((own - none).item(), abs=2e-4)


@pytest.mark.parametrize("adapter", ["linear", "transformer"])
def test_the_parts_of_a_text_do_not_change_its_citations(adapter):
    model = fused(adapter=adapter)
    complete = list(citer(model).evidence(TEXT, last=True))
    streamed = citer(model, streams=True, batch_size=2)
    parts = [found for token in TEXT for found in streamed.evidence([token])]
    assert [part.text for part in parts] == [evidence.text for evidence in complete[:2]]
    parts += streamed.evidence([], last=True)
    for part, evidence in zip(parts, complete, strict=True):
        assert (part.text, part.tokens) == (evidence.text, evidence.tokens)
        torch.testing.assert_close(part.effects, evidence.effects, atol=1e-4, rtol=1e-4)


def test_a_model_with_state_space_layers_reads_the_complete_text_again(monkeypatch):
    """It continues from its state by single tokens only."""
    monkeypatch.setitem(FAMILIES, "lfm2", ("Lfm2Config", GQA | {"layer_types": ["conv", "full_attention"]}))
    model = fused("lfm2")
    streamed = citer(model, streams=True)
    parts = [found for token in TEXT for found in streamed.evidence([token])]
    expected = model.leave_one_out(torch.tensor([TEXT[:4]]), **processor()(HISTORY, TASK))[0]
    torch.testing.assert_close(parts[0].effects, expected - expected.median().clamp(min=0), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("parts", ["tokens", "one"])
@pytest.mark.parametrize(
    "text", ["好。他买笔。", "“笔很好。”她写道。\n", "\n\nPens — “good”. Ça va? Да! 🖊️🖊️ \n Ok.\n\n", "A pen é", " "]
)
def test_each_token_belongs_to_one_sentence(text, parts):
    """Also the bytes of a character, which have no text of their own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    of_bytes = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    ordinary = of_bytes(text)["input_ids"]
    chosen = Citer(fused(), of_bytes, processor()([], TASK))
    written = [*ordinary, of_bytes.eos_token_id]
    found = [one for token in written for one in chosen.evidence([token])] if parts == "tokens" else []
    found += chosen.evidence([] if found or parts == "tokens" else written, last=True)
    assert "".join(one.text for one in found) == text.strip()
    if found:
        assert [number for one in found for number in one.tokens] == list(range(len(ordinary)))
        decoded = [of_bytes.decode([ordinary[number] for number in one.tokens]) for one in found]
        assert [one.strip() for one in decoded] == [one.text.strip() for one in found]


def evidence(strength, *effects):
    return Evidence("A pen.", [0], strength, torch.tensor(effects))


def test_a_sentence_cites_what_stands_out_and_nothing_where_it_rests_on_nothing(monkeypatch):
    model = fused()
    model.config.citation_threshold = 2.0
    chosen = citer(model, offset=3)
    found = chosen.cited(evidence(9.0, 1.0, 12.0, 2.5, 3.5))
    assert found["citations"] == [{"purchase": 4, "strength": 12.0}, {"purchase": 6, "strength": 3.5}]
    assert found["strength"] == 9.0
    for of_nothing in (evidence(1.9, 9.0, 0.0, 0.0, 0.0), evidence(-5.0, 9.0, 0.0, 0.0, 0.0)):
        assert chosen.cited(of_nothing)["citations"] == []
    assert citer(model, history=[]).cited(Evidence("A pen.", [0], 0.0, torch.zeros(0)))["citations"] == []


def test_purchases_that_matter_only_together_are_cited_together():
    """Two purchases that say the same: without one of them, the other one still says it."""
    model = fused(recency=0)
    model.config.citation_threshold = 0.2
    history = [purchase("A"), purchase("A"), purchase("D", text="cheap"), purchase("D", text="cheap")]
    chosen = citer(model, history)
    text = next(
        tokens
        for tokens in ([a, 30] for a in (25, *range(6, 64)))
        for single, both, every in [drops(citer(model, history), tokens)]
        if single < 0.2 < 0.6 < both and both > 0.6 * every > 0
    )
    (found,) = chosen.add(text, last=True)
    assert sorted(citation["purchase"] for citation in found["citations"]) == [0, 1]
    assert all(citation["strength"] > 0.2 for citation in found["citations"])


def test_the_highest_threshold_is_the_one_up_to_which_a_sentence_cites():
    """Also where it cites purchases that matter only together, by which `regen train` calibrates."""
    model, together = fused(recency=0), 0
    history = [purchase("A"), purchase("A"), purchase("D", text="cheap"), purchase("D", text="cheap"), purchase("B")]
    for text in range(20, 44):
        chosen = citer(model, history)
        (found,) = chosen.evidence([text, 30], last=True)
        highest = chosen.highest(found)
        together += highest > found.effects.max() > 0
        for threshold in (highest + 1e-4, highest - 1e-4):
            chosen.threshold = max(threshold, 1e-6)
            assert bool(chosen.cited(found)["citations"]) == (chosen.threshold <= highest)
    assert together


def drops(chosen, tokens):
    """What the text loses without the first purchase, without the first two, and without any."""
    removed = [torch.arange(number) for number in (1, 2, 4, 0)]
    read = chosen._reader(removed).read(torch.tensor(tokens)).sum(1)
    return (read[3] - read[:3]).tolist()


def test_the_purchases_of_a_long_history_are_left_out_in_groups_first(monkeypatch):
    """A group without an effect is not read one by one."""
    model, history = fused(), [purchase(asin) for asin in "ABCDABCD"]
    model.config.citation_threshold = 1e-3
    text = RegenPipeline(model, processor())._tokens(processor()(history, TASK), 6, {})[0].tolist()
    (expected,) = citer(model, history).evidence(text, last=True)
    monkeypatch.setattr(citations, "UNGROUPED", 4)
    grouped = citer(model, history)
    (found,) = grouped.evidence(text, last=True)
    assert len(grouped._groups) == 2
    assert found.strength == pytest.approx(expected.strength, abs=1e-4)
    shift = (found.effects - expected.effects)[list(grouped._single) and grouped._groups[next(iter(grouped._single))]]
    assert len(shift)
    assert shift.max() - shift.min() < 1e-4  # the medians of all differ
    model.config.citation_threshold = 1e3
    coarse = citer(model, history)
    (found,) = coarse.evidence(text, last=True)
    assert not coarse._single
    assert len(found.effects.unique()) == 2


@pytest.fixture(scope="module")
def regen():
    parts = processor()
    parts.tokenizer.backend_tokenizer.decoder = None  # spaces between words
    return RegenPipeline(fused(), parts)


def test_narrate_and_stream_return_the_sentences_of_the_text(regen):
    options = {"task": TASK, "max_new_tokens": 8, "sequence_bias": {(NEW_LINE,): 2.0}}
    histories = [HISTORY, [], HISTORY[:1] * 3]
    texts = regen.narrate(histories, **options)
    cited = regen.narrate(histories, cite=True, **options)
    assert ["".join(sentence["text"] for sentence in one) for one in cited] == texts
    assert max(map(len, cited)) > 1
    assert all(sentence["verdict"] is None for one in cited for sentence in one)
    assert regen.narrate(HISTORY, cite=True, **options) == cited[0]

    def check(history, sentences):
        assert len(history) == 4
        return [{"verdict": sentence.upper()} for sentence in sentences]

    streamed = list(regen.stream(HISTORY, cite=True, check=check, **options))
    assert [sentence["verdict"] for sentence in streamed] == [s["text"].strip().upper() for s in cited[0]]
    for part, sentence in zip(streamed, cited[0], strict=True):
        assert part["strength"] == pytest.approx(sentence["strength"], abs=1e-3)


def test_an_error_of_a_check_ends_the_generation(regen):
    def fails(history, sentences):
        raise LookupError(sentences[0])

    def slowly(input_ids, scores):
        time.sleep(0.05)
        return scores

    before = threading.active_count()
    options = {"max_new_tokens": 24, "sequence_bias": {(NEW_LINE,): 2.0}, "logits_processor": [slowly]}
    pieces = regen.stream(HISTORY, task=TASK, cite=True, check=fails, **options)
    with pytest.raises(LookupError):
        next(pieces)
    assert threading.active_count() == before


def test_citations_do_not_depend_on_dropout():
    model = fused("gpt2", cf_dropout=0.5)
    expected = list(citer(model).add(TEXT, last=True))
    model.train()
    assert list(citer(model).add(TEXT, last=True)) == expected
    assert model.training


def test_a_threshold_is_above_0():
    with pytest.raises(StrictDataclassClassValidationError, match="expected a number of nats above 0"):
        RegenConfig(citation_threshold=0.0)


def test_arguments_that_contradict_each_other_raise(regen):
    with pytest.raises(ValueError, match="check was passed without cite=True"):
        regen.narrate(HISTORY, task=TASK, check=lambda history, sentences: [])
    with pytest.raises(ValueError, match="num_return_sequences was passed with cite=True"):
        regen.stream(HISTORY, task=TASK, cite=True, num_return_sequences=2)
