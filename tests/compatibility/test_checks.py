"""Each compatibility check fails if the behavior that it tests is broken."""

import pytest
import torch

import warmstart
from warmstart.compatibility.checks import CHECKS, IDS, Pair, Unsound, sources, targets
from warmstart.compatibility.matrix import Cell, try_cell
from warmstart.compatibility.page import page, summary
from warmstart.compatibility.tiny_configs import decoder_types, encoder_types, tiny_config


def pair(decoder="llama"):
    torch.manual_seed(0)
    submodels = {"encoder": tiny_config("bert"), "decoder": tiny_config(decoder)}
    config = warmstart.EncoderDecoderConfig(**submodels, **IDS, initializer_range=0.3)
    model = warmstart.EncoderDecoderModel(config).eval()
    for cross in model.cross_attention.values():
        torch.nn.init.constant_(cross.gate, 0.5)
    return Pair(model, sources(), targets(), lambda: model)


def test_a_correct_pair_passes_every_check():
    for check in CHECKS.values():
        check(pair())


def blind(model):
    for cross in model.cross_attention.values():
        torch.nn.init.zeros_(cross.gate)


def frozen(model):
    model.cross_attention["0"].q_proj.requires_grad_(False)


def leaking(model):
    def mix(module, args, output):
        return output + output.mean(dim=1, keepdim=True)

    model.decoder.model.layers[0].register_forward_hook(mix)


def unmasked(model):
    for cross in model.cross_attention.values():
        forward = cross.forward

        def without_mask(hidden, states, mask=None, kept=None, forward=forward):
            return forward(hidden, states, None, kept)

        cross.forward = without_mask


def forgetful(model):
    """Change what later steps read, if there is a cache."""
    model.cross_attention["1"].register_forward_hook(
        lambda module, args, output: output if args[0].shape[1] > 1 else output + 5 * args[0].roll(1, -1)
    )


def unsaved(model):
    model.save_pretrained = lambda folder: warmstart.EncoderDecoderModel(model.config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("broken", "check"),
    [
        (blind, "effect"),
        (frozen, "gradients"),
        (leaking, "causal"),
        (leaking, "greedy"),
        (unmasked, "source padding"),
        (forgetful, "greedy"),
        (forgetful, "beam"),
        (unsaved, "save"),
    ],
)
def test_a_broken_pair_fails_its_check(broken, check):
    tested = pair()
    broken(tested.model)
    with pytest.raises(Unsound):
        CHECKS[check](tested)


def test_a_crash_is_a_result():
    cell = Cell(**try_cell({"side": "decoder", "kind": "llama", "other": "no-such-type"}))
    assert "build" in cell.failures
    assert not cell.clean


def test_the_page_counts_what_it_shows():
    cells = [
        Cell("decoder", "llama", "bert", joined="grafted"),
        Cell("decoder", "llama", "bert", by="transformers", failures={"build": "ValueError: no"}),
        Cell("decoder", "git", "bert", refused="it describes images"),
        Cell("encoder", "t5", "gpt2"),
        Cell("encoder", "t5", "llama", failures={"effect": "none"}),
    ]
    assert summary(cells)["decoders"] == {"warmstart": ["llama"], "transformers": []}
    text = page(cells)
    assert "| decoders | 2 | 1 | 0 |" in text
    assert "| encoders | 1 | 0 | 0 |" in text
    assert "| git | bert |  | refused: it describes images |" in text


def test_every_type_is_tested():
    assert len(decoder_types()) > 180
    assert {"bert", "t5", "bart", "modernbert", "longformer"} <= set(encoder_types())
