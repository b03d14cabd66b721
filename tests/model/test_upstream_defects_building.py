"""Cases in which transformers' EncoderDecoderModel builds, loads or saves a model wrongly.

Each test runs with our class, which must pass, and with upstream's class, which must fail as stated (strict xfail). If
upstream's class passes one day, the test fails, and the case can be removed.
"""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tiny import OURS, gap, small_config, small_decoder_config, source, target, upstream_fails
from transformers import BartConfig, PreTrainedConfig, T5Config

from warmstart.model.decoders import REFUSED

FIXTURES = Path(__file__).parents[1] / "fixtures"
NOT_RAISED = pytest.fail.Exception

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


# --- a decoder that is none ------------------------------------------------------------------------------------------


@upstream_fails(NOT_RAISED)
@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "gpt2"])
def test_decoder_object_without_cross_attention_is_refused(lib, kind):
    encoder = transformers.AutoModel.from_config(small_config("bert"))
    decoder = transformers.AutoModelForCausalLM.from_config(small_decoder_config(kind, add_cross_attention=False))
    with pytest.raises(ValueError, match="without cross-attention"):
        lib.model(encoder=encoder, decoder=decoder)


def plainly_built(lib):
    """Build a model with as few arguments as possible."""
    decoder = small_config("bert", vocab_size=60)
    config = lib.config(encoder=small_config("bert"), decoder=decoder, decoder_start_token_id=4, pad_token_id=1)
    return lib.model(config).eval()


@upstream_fails(AssertionError, ValueError)
def test_source_has_an_effect_with_a_plain_config(lib):
    model = plainly_built(lib)
    assert gap(model(**source(), labels=target()).logits, model(**source(seed=9), labels=target()).logits) > 1e-2


@upstream_fails()
def test_decoder_is_causal_with_a_plain_config(lib):
    model = plainly_built(lib)
    ids = target().clamp(min=5)
    later = ids.clone()
    later[:, 4:] = 7
    states = [model.decoder(ids).logits[:, :4] for ids in (ids, later)]
    assert gap(*states) < 1e-5


def test_config_of_the_caller_is_not_changed():
    config = small_config("bert")
    OURS.config(encoder=config, decoder=config)
    assert not config.is_decoder
    assert not config.add_cross_attention


# --- precisions ------------------------------------------------------------------------------------------------------


@upstream_fails(RuntimeError)
@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16"), ("bfloat16", "bfloat16")])
def test_submodels_of_different_dtypes(lib, dtypes, tmp_path):
    """The hidden sizes differ, so that the dtype of the projection is checked too."""
    for role, dtype in zip(("encoder", "decoder"), dtypes, strict=True):
        auto = transformers.AutoModel if role == "encoder" else transformers.AutoModelForCausalLM
        config = small_config("bert", 16) if role == "encoder" else small_decoder_config("bert", 32)
        auto.from_config(config).to(getattr(torch, dtype)).save_pretrained(tmp_path / role)
    model = lib.model.from_encoder_decoder_pretrained(str(tmp_path / "encoder"), str(tmp_path / "decoder"))
    model.config.decoder_start_token_id, model.config.pad_token_id = 4, 1
    model(**source(), labels=target()).loss.backward()
    assert len({p.dtype for p in model.parameters()}) == 1


# --- sharing and resizing --------------------------------------------------------------------------------------------


@upstream_fails()
def test_tie_encoder_decoder_shares_weights_and_is_saved(lib, tmp_path):
    model = lib.join(small_config("bert"), small_decoder_config("bert", vocab_size=50), tie_encoder_decoder=True)
    model.save_pretrained(tmp_path)
    for shared in (model, lib.model.from_pretrained(tmp_path)):
        own = {id(p) for p in shared.decoder.parameters()}
        assert all(id(p) in own for p in shared.encoder.parameters())


@upstream_fails()
@pytest.mark.parametrize("name", ["bert_share", "roberta_share"])
def test_tied_checkpoint_of_transformers_4_gives_the_recorded_logits(lib, name):
    model = lib.model.from_pretrained(FIXTURES / name).eval()
    expected = json.loads((FIXTURES / name / "expected.json").read_text())
    ids, decoder_ids = torch.tensor(expected["source"]), torch.tensor(expected["target"])
    logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=decoder_ids).logits
    torch.testing.assert_close(logits, torch.tensor(expected["logits"]))


@upstream_fails(RuntimeError)
def test_manually_shared_embeddings_can_be_saved(lib, tmp_path):
    model = lib.join(small_config("bert"), small_decoder_config("bert", vocab_size=50))
    model.encoder.set_input_embeddings(model.decoder.get_input_embeddings())
    model.save_pretrained(tmp_path)
    again = lib.model.from_pretrained(tmp_path)
    assert again.encoder.get_input_embeddings().weight is again.decoder.get_input_embeddings().weight


@upstream_fails(NotImplementedError)
def test_resize_token_embeddings(lib):
    model = lib.join(small_config("bert"), small_decoder_config("bert", vocab_size=50))
    with torch.no_grad():
        before = model(**source(), decoder_input_ids=target().clamp(5, 49)).logits
    model.resize_token_embeddings(57)
    after = model(**source(), decoder_input_ids=target().clamp(5, 49)).logits
    assert after.shape[-1] == model.config.decoder.vocab_size == model.config.encoder.vocab_size == 57
    torch.testing.assert_close(after[..., :50], before)
    assert model.get_output_embeddings().weight is model.decoder.get_input_embeddings().weight
    model(**source(), labels=torch.full((3, 4), 56)).loss.backward()


@upstream_fails(ValueError)
def test_flex_attention_loads(lib, tmp_path):
    lib.join(small_config("bert"), small_decoder_config("bert")).save_pretrained(tmp_path)
    model = lib.model.from_pretrained(tmp_path, attn_implementation="flex_attention")
    assert {part.config._attn_implementation for part in (model.encoder, model.decoder)} == {"flex_attention"}


# --- whole sequence-to-sequence models as encoder --------------------------------------------------------------------


def whole_model(kind: str) -> PreTrainedConfig:
    if kind == "t5":
        return T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=1)
    return BartConfig(
        vocab_size=50,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=40,
        pad_token_id=1,
    )


@upstream_fails(ValueError, AttributeError)
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_of_a_sequence_to_sequence_checkpoint(lib, kind, tmp_path):
    transformers.AutoModelForSeq2SeqLM.from_config(whole_model(kind)).save_pretrained(tmp_path / "whole")
    transformers.AutoModelForCausalLM.from_config(small_decoder_config("bert")).save_pretrained(tmp_path / "decoder")
    model = lib.model.from_encoder_decoder_pretrained(str(tmp_path / "whole"), str(tmp_path / "decoder")).eval()
    model.config.decoder_start_token_id, model.config.pad_token_id = 4, 1
    before = model(**source(), labels=target()).logits
    model.save_pretrained(tmp_path / "joined")
    again = lib.model.from_pretrained(tmp_path / "joined").eval()
    torch.testing.assert_close(again(**source(), labels=target()).logits, before)


@upstream_fails(ValueError, AssertionError)
def test_t5_encoder_object_is_saved_and_loaded(lib, tmp_path):
    encoder = transformers.T5EncoderModel(whole_model("t5"))
    decoder = transformers.AutoModelForCausalLM.from_config(small_decoder_config("bert"))
    model = lib.model(encoder=encoder, decoder=decoder).eval()
    model.config.decoder_start_token_id, model.config.pad_token_id = 4, 1
    before = model(**source(), labels=target()).logits
    model.save_pretrained(tmp_path)
    again = lib.model.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**source(), labels=target()).logits, before)


# --- decoders without cross-attention --------------------------------------------------------------------------------


@upstream_fails(ValueError)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma", "mistral", "phi", "opt", "gpt_neox"])
def test_decoder_without_cross_attention_is_grafted(lib, kind):
    model = lib.join(small_config("bert"), small_decoder_config(kind, num_key_value_heads=4, head_dim=8))
    for name, parameter in model.named_parameters():
        if name.endswith(".gate"):
            torch.nn.init.constant_(parameter, 0.5)
    assert gap(model(**source(), labels=target()).logits, model(**source(seed=9), labels=target()).logits) > 1e-3


# --- decoders whose own cross-attention is unsound -------------------------------------------------------------------

UNSOUND = {
    "big_bird": lambda: small_decoder_config("big_bird", attention_type="original_full"),
    "megatron-bert": lambda: small_decoder_config("megatron-bert"),
    "prophetnet": lambda: transformers.ProphetNetConfig(
        vocab_size=60,
        hidden_size=32,
        num_decoder_layers=2,
        num_decoder_attention_heads=4,
        decoder_ffn_dim=48,
        ngram=2,
        init_std=0.3,
        max_position_embeddings=40,
        pad_token_id=1,
    ),
    "gpt_bigcode": lambda: transformers.GPTBigCodeConfig(
        vocab_size=60, n_embd=32, n_layer=2, n_head=4, n_positions=40, add_cross_attention=True, is_decoder=True
    ),
}


@upstream_fails(AssertionError, AttributeError, RuntimeError, NotImplementedError, ValueError)
@pytest.mark.parametrize("kind", UNSOUND)
def test_decoder_is_correct_or_refused_with_a_reason(lib, kind):
    if kind in REFUSED and lib is OURS:
        with pytest.raises(ValueError, match=f"{kind!r} cannot be a decoder: its"):
            lib.join(small_config("bert"), UNSOUND[kind]())
        return
    model = lib.join(small_config("bert"), UNSOUND[kind]())
    for name, parameter in model.named_parameters():
        if name.endswith(".gate"):
            torch.nn.init.constant_(parameter, 0.5)
    assert gap(model(**source(), labels=target()).logits, model(**source(seed=9), labels=target()).logits) > 1e-2
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "output_logits": True, "return_dict_in_generate": True}
    cached, uncached = (model.generate(**source(), use_cache=flag, **options).logits for flag in (True, False))
    assert gap(torch.stack(cached), torch.stack(uncached)) < 1e-3


@upstream_fails(NOT_RAISED)
def test_roformer_decoder_refuses_gradient_checkpointing(lib):
    model = lib.join(small_config("bert"), small_decoder_config("roformer"))
    for enable in (model.activation_checkpointing_enable, model.gradient_checkpointing_enable):  # the older name too
        with pytest.raises(ValueError, match="No gradient checkpointing with a roformer decoder"):
            enable()
