"""The extractive model: labels, loss and selected sentences by hand."""

import math

import pytest
import torch
from transformers import BertConfig

from warmstart.model.extractive import ExtractiveConfig, ExtractiveModel
from warmstart.model.generation.word_ngrams import NoRepeatedWordNGrams, Piece
from warmstart.model.modeling import EncoderDecoderModel
from warmstart.model.selector import SelectorConfig, sinusoidal_positions
from warmstart.model.variants import model_class

PAD, CLS, SEP, NEXT = 0, 2, 3, 4
BLOCKER = NoRepeatedWordNGrams(3, [Piece(str(i), True) for i in range(30)])
IDS = torch.tensor(
    [
        [CLS, 5, 6, 7, SEP, CLS, 5, 6, 7, 8, SEP, CLS, 9, SEP, CLS, 5, 6, SEP],
        [CLS, 10, SEP, CLS, 11, 12, SEP, *[PAD] * 11],
    ]
)
MASK = (IDS != PAD).long()
LABELS = torch.tensor([[20, SEP, 1, 0, 0, 1], [20, 21, SEP, 0, 1, -100]])


def model(layers=0):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    encoder = BertConfig(**sizes, vocab_size=30, num_hidden_layers=1, sentence_start_id=CLS)
    selector = SelectorConfig(**sizes, inter_sentence_layers=layers, vocab_size=30)
    ids = {"decoder_start_token_id": CLS, "eos_token_id": SEP, "pad_token_id": PAD}
    marks = {"sentence_end_id": SEP, "sentence_separator_id": NEXT}
    return ExtractiveModel(ExtractiveConfig(encoder=encoder, decoder=selector, **ids, **marks)).eval()


def with_scores(given):
    """Return a model whose sentences have given scores."""
    chosen = model()
    scores = torch.tensor(given)
    chosen.decoder.forward = lambda states, present: scores
    return chosen


@pytest.mark.parametrize("layers", [0, 2])
def test_sentence_states_are_those_at_the_start_tokens(layers):
    one = model(layers)
    logits = one(IDS, MASK).logits
    assert logits.shape == (2, 4)
    assert logits[1, 2:].isneginf().all()
    shorter = one(IDS[1:, :7], MASK[1:, :7]).logits  # neither padding nor other examples matter
    torch.testing.assert_close(logits[1:, :2], shorter)
    states = one.encoder(IDS[1:, :7], token_type_ids=torch.tensor([[0, 0, 0, 1, 1, 1, 1]]))[0][0, [0, 3]]
    if not layers:
        by_hand = states @ one.decoder.score.weight[0] + one.decoder.score.bias
        torch.testing.assert_close(shorter[0], by_hand)


def test_loss_is_the_binary_cross_entropy_of_the_labels_by_hand():
    one = with_scores([[2.0, -1.0, 0.0, 1.0], [0.5, 3.0, 9.0, 9.0]])

    def nats(score, label):
        return math.log(1 + math.exp(-score if label else score))

    first = nats(2, 1) + nats(-1, 0) + nats(0, 0) + nats(1, 1)
    second = nats(0.5, 0) + nats(3, 1)
    loss = one.training_loss(IDS, MASK, LABELS, label_smoothing=0.1)
    assert float(loss.summed) == pytest.approx(first + second, rel=1e-6)
    assert int(loss.tokens) == 6
    assert float(one(IDS, MASK, LABELS).loss) == pytest.approx((first + second) / 6, rel=1e-6)
    summed, counts = one.likelihood(IDS, MASK, LABELS)
    assert summed.tolist() == pytest.approx([first, second], rel=1e-6)
    assert counts.tolist() == [4, 2]
    with pytest.raises(ValueError, match="without their source"):
        one.likelihood(IDS, MASK, LABELS, read_source=False)


def test_labels_of_another_document_count_as_far_as_both_have_sentences():
    one = with_scores([[2.0, -1.0, 0.0, 1.0], [0.5, 3.0, 9.0, 9.0]])
    assert one.likelihood(IDS, MASK, LABELS.roll(1, 0))[1].tolist() == [2, 2]


def test_three_best_sentences_without_a_common_trigram_by_hand():
    one = with_scores([[2.0, 1.0, 0.0, 0.5], [-1.0, -0.5, 9.0, 9.0]])
    plain = one.generate(IDS, attention_mask=MASK)
    assert plain[0].tolist() == [CLS, 5, 6, 7, NEXT, 5, 6, 7, 8, NEXT, 5, 6, SEP]
    assert plain[1].tolist() == [CLS, 11, 12, NEXT, 10, SEP, *[PAD] * 7]
    # The second sentence shares 5 6 7 with the first.
    blocked = one.generate(IDS, attention_mask=MASK, logits_processor=[BLOCKER], num_beams=1)
    assert blocked[0].tolist() == [CLS, 5, 6, 7, NEXT, 5, 6, NEXT, 9, SEP]
    assert one.generate_alone(num_beams=1).tolist() == [[CLS, SEP]]


def test_a_source_without_sentences_has_an_empty_summary():
    assert model(2).generate(torch.tensor([[PAD, PAD]]), attention_mask=torch.ones(1, 2)).tolist() == [[CLS, SEP]]


def test_model_is_saved_and_found_by_its_config(tmp_path):
    one = model(2)
    one.save_pretrained(tmp_path)
    assert model_class(one.config.to_dict()) is ExtractiveModel
    assert model_class({"model_type": "encoder-decoder"}) is EncoderDecoderModel
    loaded = ExtractiveModel.from_pretrained(tmp_path).eval()
    assert torch.equal(loaded(IDS, MASK).logits, one(IDS, MASK).logits)


def test_all_parameters_get_a_gradient():
    one = model(2).train()
    one.training_loss(IDS, MASK, LABELS).mean.backward()
    assert [name for name, parameter in one.named_parameters() if parameter.grad is None] == []


def test_positions_by_hand():
    table = sinusoidal_positions(2, 4)
    wanted = [[0, 1, 0, 1], [math.sin(1), math.cos(1), math.sin(0.01), math.cos(0.01)]]
    torch.testing.assert_close(table, torch.tensor(wanted))
