"""Loading of sentence encoders."""

import pytest
import transformers
from safetensors.torch import load_file, save_file

from regen_hf.errors import ConfigError
from regen_hf.model.processing_regen import RegenProcessor
from regen_hf.vectors.encoder import load_encoder
from tests.tiny_model import without


@pytest.fixture
def bert(tmp_path):
    """A folder with a tiny sentence encoder of two layers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "pen": 2, "paper": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "bert"
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2}
    transformers.BertModel(transformers.BertConfig(vocab_size=8, **sizes)).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", model_max_length=32
    ).save_pretrained(folder)
    transformer = Transformer(str(folder))
    SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu").save(str(tmp_path / "encoder"))
    return tmp_path / "encoder"


def test_an_encoder_that_lacks_weights_is_refused(finished_run, bert):
    without(bert / "model.safetensors", "pooler")  # which many are published without
    assert load_encoder(str(bert)).encode("pen").shape == (16,)
    without(bert / "model.safetensors", "layer.1.")
    with pytest.raises(ConfigError, match=r"could not be loaded: the files of .* lack .*layer\.1\."):
        load_encoder(str(bert))
    processor = RegenProcessor.from_pretrained(finished_run / "model")
    processor.content_encoder, processor._encoder = str(bert), None
    with pytest.raises(ValueError, match=r"layer\.1\."):
        processor.encoder  # noqa: B018 (loads it)


def test_an_encoder_with_a_weight_of_another_shape_is_refused(bert):
    tensors = load_file(bert / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layer.1.output.dense.bias"))
    tensors[name] = tensors[name][:5].clone()
    save_file(tensors, bert / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"layer\.1\.output\.dense\.bias, or contain them in another shape"):
        load_encoder(str(bert))
