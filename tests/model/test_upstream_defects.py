"""Cases in which transformers' EncoderDecoderModel computes something wrong.

Each test runs with our class, which must pass, and with upstream's class, which must fail as stated (strict xfail). If
upstream's class passes one day, the test fails, and the case can be removed.
Cases of building, loading and saving are in test_upstream_defects_building.py.
"""

import warnings

import pytest
import torch
import transformers
from tiny import OURS, UPSTREAM, gap, small_config, small_decoder_config, source, target, upstream_fails

from warmstart.model.cache_names import CACHE_NAMES
from warmstart.model.padding import mask_of_shifted

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def gradients(model, batches, count):
    """Return the gradients accumulated over ``batches``; ``count`` is the number of label positions of all."""
    model.zero_grad()
    for batch in batches:
        model(**batch, num_items_in_batch=count).loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


# --- accumulation ----------------------------------------------------------------------------------------------------


@upstream_fails()
@pytest.mark.parametrize("steps", [2, 4])
def test_accumulated_gradients_equal_those_of_one_batch(lib, steps):
    model = lib.join(small_config("bert"), small_decoder_config("bert"))
    whole = source(4) | {"labels": target(4)}
    count = (whole["labels"] != -100).sum()
    parts = [{name: tensor[i::steps].contiguous() for name, tensor in whole.items()} for i in range(steps)]
    wanted, got = gradients(model, [whole], count), gradients(model, parts, count)
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, atol=1e-5, rtol=1e-3)
    mean = torch.autograd.grad(model(**whole).loss, model.decoder.get_input_embeddings().weight)[0]
    name = next(n for n, p in model.named_parameters() if p is model.decoder.get_input_embeddings().weight)
    torch.testing.assert_close(got[name], mean, atol=1e-5, rtol=1e-3)


# --- the start id ----------------------------------------------------------------------------------------------------


@upstream_fails()
@pytest.mark.parametrize("reloaded", [False, True])
def test_start_id_set_after_building_is_used_in_generation(lib, reloaded, tmp_path):
    model = lib.join(small_config("bert"), small_decoder_config("bert"))
    model.config.decoder_start_token_id = 7
    if reloaded:
        model.save_pretrained(tmp_path)
        model = lib.model.from_pretrained(tmp_path).eval()
    assert model(**source(), labels=target()).logits.shape[1] == target().shape[1]
    assert (model.prepare_decoder_input_ids_from_labels(labels=target())[:, 0] == 7).all()
    assert (model.generate(**source(), max_new_tokens=2)[:, 0] == 7).all()


# --- start, end and pad in one id ------------------------------------------------------------------------------------


def training_and_generation(model, labels):
    """Return the logits for ``labels`` as in training, and token by token as in generation."""
    given = source(len(labels))
    trained = model(**given, labels=labels).logits
    start = torch.full_like(labels[:, :1], model.config.decoder_start_token_id)
    fed = torch.cat([start, labels[:, :-1]], 1)
    steps = []
    for length in range(1, fed.shape[1] + 1):
        step = model.generate(
            **given,
            decoder_input_ids=fed[:, :length],
            max_new_tokens=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        steps.append(step.logits[0])
    return trained, torch.stack(steps, 1)


@upstream_fails()
@pytest.mark.parametrize("kind", ["gpt2", "bert", "bert-generation", "roberta"])
def test_start_token_equal_to_pad_is_visible_in_training(lib, kind):
    ids = {"decoder_start_token_id": 2, "pad_token_id": 2}
    model = lib.join(small_config("bert"), small_decoder_config(kind, pad_token_id=2), **ids)
    trained, generated = training_and_generation(model, target(2, 5).clamp(min=5))
    torch.testing.assert_close(trained, generated, atol=1e-4, rtol=1e-3)


@upstream_fails()
@pytest.mark.parametrize("kind", ["gpt2", "bert", "bert-generation", "roberta"])
def test_end_token_equal_to_pad_is_visible_in_training(lib, kind):
    model = lib.join(small_config("bert"), small_decoder_config(kind, pad_token_id=2), pad_token_id=2)
    labels = target(2, 6).clamp(min=5)
    labels[:, 2] = 2
    trained, generated = training_and_generation(model, labels)
    torch.testing.assert_close(trained, generated, atol=1e-4, rtol=1e-3)


def test_a_mask_of_the_decoders_inputs_keeps_the_positions_of_roberta_if_start_is_pad():
    ids = {"decoder_start_token_id": 2, "pad_token_id": 2}
    model = OURS.join(small_config("bert"), small_decoder_config("roberta", pad_token_id=2), **ids)
    labels = target()
    ids, mask = model.prepare_decoder_input_ids_from_labels(labels), mask_of_shifted(labels)
    given = source() | {"decoder_input_ids": ids, "decoder_attention_mask": mask}
    logits, wanted = model(**given).logits, model(**source(), labels=labels).logits
    torch.testing.assert_close(logits[labels != -100], wanted[labels != -100])
    first = model(**source(), decoder_input_ids=ids[:, :2], use_cache=True)
    step = source() | {"decoder_input_ids": ids[:, 2:3], CACHE_NAMES[0]: first[CACHE_NAMES[0]]}
    torch.testing.assert_close(model(**step, decoder_attention_mask=mask[:, :3]).logits[:, 0], wanted[:, 2])
    search = source() | {"max_new_tokens": 6, "num_beams": 2}
    start = torch.full((3, 1), 2)
    found = model.generate(**search, decoder_input_ids=start, decoder_attention_mask=torch.ones_like(start))
    assert torch.equal(found, model.generate(**search))


def test_labels_after_their_length_are_masked_for_any_pad_id():
    model = OURS.join(small_config("bert"), small_decoder_config("gpt2"), pad_token_id=2)
    long, short = target(1, 6), target(1, 6)
    short[:, 3:] = -100
    assert gap(model(**source(1), labels=long).logits[:, :4], model(**source(1), labels=short).logits[:, :4]) < 1e-5


# --- padding of the source -------------------------------------------------------------------------------------------


@upstream_fails()
@pytest.mark.parametrize("side", ["right", "left"])
def test_missing_source_mask_is_inferred_from_pad_ids(lib, side):
    model = lib.join(small_config("bert"), small_decoder_config("bert"))
    ids = source(1)["input_ids"]
    pads = torch.full((1, 4), 1)
    padded = torch.cat([ids, pads] if side == "right" else [pads, ids], 1)
    both = torch.cat([padded, source(1, 13, seed=5)["input_ids"]])
    assert gap(model(both, labels=target(2)).logits[:1], model(ids, labels=target(2)[:1]).logits) < 1e-4
    wanted = model.generate(ids, max_new_tokens=6, output_logits=True, return_dict_in_generate=True).logits
    got = model.generate(both, max_new_tokens=6, output_logits=True, return_dict_in_generate=True).logits
    assert gap(torch.stack(got)[:, :1], torch.stack(wanted)) < 1e-4


@upstream_fails()
@pytest.mark.parametrize("kind", ["bert", "electra", "distilbert", "albert", "gpt2"])
def test_left_padded_source_gives_the_logits_of_the_unpadded_one(lib, kind):
    model = lib.join(small_config(kind), small_decoder_config("bert"))
    given = source(1)
    pads = torch.full((1, 3), 1)
    left = {
        "input_ids": torch.cat([pads, given["input_ids"]], 1),
        "attention_mask": torch.cat([torch.zeros_like(pads), given["attention_mask"]], 1),
    }
    wanted = model(**given, labels=target(1))
    got = model(**left, labels=target(1))
    assert gap(got.logits, wanted.logits) < 1e-4
    assert gap(got.encoder_last_hidden_state[:, 3:], wanted.encoder_last_hidden_state) < 1e-4
    options = {"max_new_tokens": 6, "num_beams": 3}
    assert torch.equal(model.generate(**left, **options), model.generate(**given, **options))


# --- the pooler ------------------------------------------------------------------------------------------------------


@upstream_fails()
@pytest.mark.parametrize("reloaded", [False, True])
@pytest.mark.parametrize("kind", ["bert", "roberta", "mpnet", "longformer"])
def test_every_parameter_gets_a_gradient(lib, kind, reloaded, tmp_path):
    """Check a new model, and a model that was saved and loaded."""
    values = {"attention_window": [4, 4]} if kind == "longformer" else {}
    encoder = transformers.AutoModel.from_config(small_config(kind, **values), add_pooling_layer=not reloaded)
    decoder = transformers.AutoModelForCausalLM.from_config(small_decoder_config("bert"))
    model = lib.model(encoder=encoder, decoder=decoder)
    model.config.decoder_start_token_id, model.config.pad_token_id = 4, 1
    if reloaded:
        model.save_pretrained(tmp_path)
        model = lib.model.from_pretrained(tmp_path)
    model(**source(), labels=target()).loss.backward()
    assert [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None] == []


# --- the labelled forward --------------------------------------------------------------------------------------------


@upstream_fails(FutureWarning)
@pytest.mark.filterwarnings("error")
def test_forward_with_labels_logs_no_warning(lib):
    model = lib.join(small_config("bert"), small_decoder_config("bert"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(**source(), labels=target())


@upstream_fails(RuntimeError)
def test_noncontiguous_labels(lib):
    model = lib.join(small_config("bert"), small_decoder_config("bert"))
    labels = target(length=9)[:, :6]
    assert not labels.is_contiguous()
    wanted = model(**source(), labels=labels.contiguous()).loss
    torch.testing.assert_close(model(**source(), labels=labels).loss, wanted)


@upstream_fails()
def test_loss_of_bf16_logits_is_float32(lib):
    model = lib.join(small_config("bert"), small_decoder_config("bert")).bfloat16()
    output = model(**source(), labels=target())
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == torch.float32
    wanted = torch.nn.functional.cross_entropy(output.logits.float().flatten(0, 1), target().flatten())
    torch.testing.assert_close(output.loss, wanted)


# --- token types that the encoder has none of ------------------------------------------------------------------------


@upstream_fails(ValueError, TypeError)
@pytest.mark.parametrize("kind", ["distilbert", "modernbert", "bert-generation"])
def test_token_type_ids_are_dropped_in_forward_and_generate(lib, kind):
    model = lib.join(small_config(kind), small_decoder_config("bert"))
    types = torch.ones_like(source()["input_ids"])
    wanted = model(**source(), labels=target()).logits
    torch.testing.assert_close(model(**source(), token_type_ids=types, labels=target()).logits, wanted)
    generated = model.generate(**source(), token_type_ids=types, max_new_tokens=5)
    assert torch.equal(generated, model.generate(**source(), max_new_tokens=5))


@pytest.mark.parametrize("lib", [OURS, UPSTREAM], ids=["ours", "upstream"])
def test_token_type_ids_are_used_if_the_encoder_takes_them(lib):
    model = lib.join(small_config("bert"), small_decoder_config("bert"))
    types = torch.ones_like(source()["input_ids"])
    wanted = model(**source(), labels=target()).logits
    assert gap(model(**source(), token_type_ids=types, labels=target()).logits, wanted) > 1e-2
    options = {"max_new_tokens": 2, "output_logits": True, "return_dict_in_generate": True}
    with_types = model.generate(**source(), token_type_ids=types, **options)
    assert gap(with_types.logits[0], model.generate(**source(), **options).logits[0]) > 1e-2
