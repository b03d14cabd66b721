"""The private APIs of transformers exist, and behave as documented in compat/transformers.py."""

import inspect

import pytest
import torch
from moved import assert_has, assert_parameters
from tiny import OURS, small_config, small_decoder_config, source
from transformers import BertModel, GenerationConfig, GenerationMixin, GPT2Config, GPT2LMHeadModel, PreTrainedModel
from transformers.integrations.peft import PeftAdapterMixin

from warmstart.compat import transformers as compat
from warmstart.model.cache_names import cache_of

READ_IN = "5.24.0"


def has(owner, name):
    assert_has(owner, name, "transformers", READ_IN)


def takes(function, *wanted):
    found = list(inspect.signature(function).parameters)
    assert_parameters(found, list(wanted), function.__qualname__, "transformers", READ_IN)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=1, vocab_size=20, n_positions=16)).eval()


def test_attention_of_a_config():
    model = gpt2()
    has(model.config, "_attn_implementation")
    has(model, "_can_set_attn_implementation")
    assert compat.can_set_attention(model)
    assert compat.attention_of(model.config) == "sdpa"
    compat.set_attention(model.config, "eager")
    assert model(torch.ones(1, 3, dtype=torch.long), output_attentions=True).attentions[0] is not None, (
        "A name that was set in a config changes no layer: they look it up elsewhere. See set_attention."
    )
    assert compat.attention_of(GPT2Config()) is None
    assert compat.attention_of(object()) is None


def test_from_config_uses_the_dtype_of_the_config():
    has(PreTrainedModel, "_from_config")
    made = compat.from_config(BertModel, small_config("bert"), add_pooling_layer=False, dtype=torch.bfloat16)
    assert type(made) is BertModel
    assert made.pooler is None
    assert made.dtype is torch.bfloat16


def test_generation_parameters_of_a_config():
    config = GPT2Config()
    has(config, "_get_generation_parameters")
    assert compat.generation_parameters(config) == {}
    config.num_beams = 3
    assert compat.generation_parameters(config) == {"num_beams": 3}


def test_steps_of_a_search():
    for name in ("_prefill", "_update_model_kwargs_for_generation", "_sample", "_beam_search"):
        has(GenerationMixin, name)
    takes(GenerationMixin._prefill, "self", "input_ids", "generation_config", "model_kwargs")
    takes(GenerationMixin._update_model_kwargs_for_generation, "self", "outputs", "model_kwargs", "is_encoder_decoder")
    first = ("self", "input_ids", "logits_processor", "stopping_criteria", "generation_config")
    for beams in (1, 2):
        takes(compat.library_search(beams), *first)
    model, ids = gpt2(), torch.tensor([[3, 4, 5]])
    seen = []

    def search(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        outputs = compat.prefill(model, input_ids, generation_config, model_kwargs)
        model_kwargs = compat.next_model_kwargs(model, outputs, model_kwargs)
        seen.append((outputs.logits[:, -1].argmax(-1), cache_of(model_kwargs).get_seq_length()))
        return input_ids

    model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, custom_generate=search)
    ((token, length),) = seen
    assert length == 3
    assert token == model(ids).logits[0, -1].argmax()


@pytest.mark.parametrize("beams", [1, 3])
def test_library_searches_give_the_ids_of_generate(beams):
    model, ids = gpt2(), torch.tensor([[3, 4, 5]])
    given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 4, "num_beams": beams, "do_sample": False}
    own = model.generate(ids, **given, custom_generate=compat.library_search(beams))
    assert torch.equal(own, model.generate(ids, **given))


def test_end_and_pad_ids_of_a_search_are_public():
    model = OURS.join(small_config("bert"), small_decoder_config("gpt2"))
    seen = []

    def search(model, input_ids, logits_processor, stopping_criteria, generation_config, **model_kwargs):
        seen.append((generation_config.eos_token_id, generation_config.pad_token_id))
        return input_ids

    model.generate(**source(), eos_token_id=[7, 8], pad_token_id=9, custom_generate=search)
    assert seen == [([7, 8], 9)]
    assert GenerationConfig(eos_token_id=7).eos_token_id == 7


def test_model_that_reorders_its_cache_itself():
    assert not compat.reorders_cache_itself(gpt2())
    found = inspect.getsource(GenerationMixin._beam_search)
    assert "_reorder_cache" in found, (
        "transformers' beam search no longer uses _reorder_cache: see reorders_cache_itself in compat/transformers.py."
    )


def test_mark_of_a_model_with_adapters():
    has(PeftAdapterMixin, "_hf_peft_config_loaded")
    model = gpt2()
    model.peft_config, model._hf_peft_config_loaded = {}, True
    compat.forget_adapters(model)
    assert not hasattr(model, "peft_config")
    assert not model._hf_peft_config_loaded
