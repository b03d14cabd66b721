"""Check a pair of encoder and decoder, built with warmstart's or transformers' model class: one function per check.

A check that passes returns None. It raises ``Unsound``, with the deviation, if the behavior is wrong, and any other
error if the model cannot do what is checked.

Shapes: B batch, S source length, T target length.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from warmstart.compatibility.tiny_configs import END, PAD, START, VOCABULARY

IDS = {"decoder_start_token_id": START, "eos_token_id": END, "pad_token_id": PAD}
TOLERANCE = 1e-3  # relative to the largest logit, in fp32
BATCH_SIZE, SOURCE, TARGET = 3, 9, 6
_PADDED = 4


class Unsound(Exception):
    """A wrong behavior; the message contains the deviation."""


@dataclass
class Pair:
    """The model under test and its inputs."""

    model: Any
    padded: dict[str, Tensor]
    """Source ids and mask (B, S), the second example padded on the right."""
    labels: Tensor
    """Labels (B, T), the last example shorter."""
    build: Callable[[], Any]
    """Builds the model again."""


def sources(vocabulary: int = VOCABULARY, seed: int = 1) -> dict[str, Tensor]:
    """Return source ids and mask (B, S), the second example padded on the right."""
    ids = torch.randint(5, vocabulary, (BATCH_SIZE, SOURCE), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1, SOURCE - _PADDED :] = 0
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


def targets(vocabulary: int = VOCABULARY, seed: int = 2) -> Tensor:
    """Return labels (B, T), the last example shorter."""
    labels = torch.randint(5, vocabulary, (BATCH_SIZE, TARGET), generator=torch.Generator().manual_seed(seed))
    labels[-1, TARGET - 2 :] = -100
    return labels


def same(found: Tensor, expected: Tensor, what: str) -> None:
    """Compare two tensors of logits.

    Raises:
        Unsound: They differ by more than ``TOLERANCE``.
    """
    gap = float((found - expected).detach().abs().max())
    size = 1.0 + float(expected.detach().abs().max())
    if not gap <= TOLERANCE * size:
        raise Unsound(f"{what}: {gap:.2g} of {size:.2g}")


def loss(pair: Pair) -> None:
    """Check that forward with labels returns a finite loss."""
    value = pair.model(**pair.padded, labels=pair.labels).loss
    if not torch.isfinite(value):
        raise Unsound(f"the loss is {float(value)}")


def gradients(pair: Pair) -> None:
    """Check that every new parameter gets a gradient."""
    pair.model.zero_grad()
    # Training mode, because Reformer has no gradients otherwise; tiny configs have no dropout.
    pair.model.train()(**pair.padded, labels=pair.labels).loss.backward()
    pair.model.eval()
    names = ("cross_attention", "crossattention", "encoder_attn", "cross_attn", "enc_to_dec_proj")
    without = [
        name
        for name, parameter in pair.model.named_parameters()
        if any(part in name for part in names)
        # softmax is invariant to a constant added to every key
        and not name.endswith(("k_proj.bias", "key.bias"))
        and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    if without:
        raise Unsound(f"no gradient in {len(without)} new parameters, such as {without[0]}")


@torch.no_grad()
def step_zero(pair: Pair) -> None:
    """Check that with gates of zero the decoder's logits equal those of the bare language model, bit for bit."""
    gates = {name: p for name, p in pair.model.named_parameters() if name.endswith(".gate")}
    values = {name: gate.clone() for name, gate in gates.items()}
    for gate in gates.values():
        gate.zero_()
    ids = pair.labels.clamp(min=5)
    joined = pair.model(**pair.padded, decoder_input_ids=ids).logits
    bare = pair.model.decoder(input_ids=ids).logits
    for name, gate in gates.items():
        gate.copy_(values[name])
    if not torch.equal(joined, bare):
        raise Unsound(f"differs from the bare language model by {float((joined - bare).abs().max()):.2g}")


@torch.no_grad()
def effect(pair: Pair) -> None:
    """Check that another source changes the logits of every example."""
    other = pair.padded | {"input_ids": sources(seed=9)["input_ids"]}
    base = pair.model(**pair.padded, labels=pair.labels).logits
    gaps = (pair.model(**other, labels=pair.labels).logits - base).abs().amax(dim=(1, 2))
    if not (gaps > 1e-4).all():
        raise Unsound(f"another source changes the logits only by {float(gaps.min()):.2g}")


@torch.no_grad()
def causal(pair: Pair) -> None:
    """Check that a later target token changes no earlier logit."""
    ids = pair.labels.clamp(min=5)
    later = ids.clone()
    later[:, 4:] = 7
    first, second = (pair.model(**pair.padded, decoder_input_ids=x).logits[:, :4] for x in (ids, later))
    same(first, second, "a later token changes earlier logits")


@torch.no_grad()
def source_padding(pair: Pair) -> None:
    """Check that a padded example equals the same example in a batch of its own, whatever ids are in the padding."""
    base = pair.model(**pair.padded, labels=pair.labels).logits
    changed = dict(pair.padded)
    changed["input_ids"] = torch.where(changed["attention_mask"] == 0, 9, changed["input_ids"])
    same(pair.model(**changed, labels=pair.labels).logits, base, "ids in the padding change the logits")
    length = SOURCE - _PADDED
    single = {name: value[1:2, :length] for name, value in pair.padded.items()}
    found = pair.model(**single, labels=pair.labels[1:2]).logits
    same(found, base[1:2], "a padded example differs from the same example in a batch of its own")


@torch.no_grad()
def left_padding(pair: Pair) -> None:
    """Check that a source padded on the left gives the same logits, or is refused."""
    base = pair.model(**pair.padded, labels=pair.labels).logits
    rolled = {name: value.clone() for name, value in pair.padded.items()}
    for value in rolled.values():
        value[1] = value[1].roll(_PADDED)
    try:
        found = pair.model(**rolled, labels=pair.labels).logits
    except ValueError:
        return
    same(found, base, "left padding changes the logits")


@torch.no_grad()
def target_padding(pair: Pair) -> None:
    """Check that a short target equals the same target in a batch of its own."""
    base = pair.model(**pair.padded, labels=pair.labels).logits
    single = {name: value[-1:] for name, value in pair.padded.items()}
    found = pair.model(**single, labels=pair.labels[-1:, : TARGET - 2]).logits
    same(found, base[-1:, : TARGET - 2], "a short target differs from the same target in a batch of its own")


def _generate(pair: Pair, examples: slice, beams: int, **options: Any) -> Tensor:
    source = {name: value[examples] for name, value in pair.padded.items()}
    lengths = {"max_new_tokens": 8, "min_new_tokens": 8}
    ids: Tensor = pair.model.generate(**source, num_beams=beams, do_sample=False, **lengths, **options)
    return ids


def _cached(pair: Pair, beams: int) -> None:
    found, expected = (_generate(pair, slice(None), beams, use_cache=flag) for flag in (True, False))
    if not torch.equal(found, expected):
        raise Unsound(f"with the cache {int((found != expected).sum())} of {expected.numel()} ids differ")


def greedy(pair: Pair) -> None:
    """Check that greedy search returns the same ids with and without the cache, and forward's best ids."""
    _cached(pair, 1)
    ids = _generate(pair, slice(None), 1)
    with torch.no_grad():
        logits = pair.model(**pair.padded, decoder_input_ids=ids).logits[:, :-1].clone()
    logits[..., END] = -torch.inf  # min_new_tokens forbids the end
    chosen = logits.gather(-1, ids[:, 1:, None])[..., 0]
    gap = float((logits.amax(-1) - chosen).max())
    if not gap <= TOLERANCE * (1.0 + float(chosen.abs().max())):
        raise Unsound(f"generation chose ids with a logit {gap:.2g} below the best of forward")


def beam(pair: Pair) -> None:
    """Check that beam search returns the same ids with and without the cache."""
    _cached(pair, 3)


def batch(pair: Pair) -> None:
    """Check that each example generates the same ids in a batch as in a batch of its own."""
    together = _generate(pair, slice(None), 3)
    length = SOURCE - _PADDED
    for i in range(BATCH_SIZE):
        single = Pair(pair.model, dict(pair.padded), pair.labels, pair.build)
        if i == 1:
            single.padded = {name: value[:, :length] for name, value in pair.padded.items()}
        if not torch.equal(_generate(single, slice(i, i + 1), 3)[0], together[i]):
            raise Unsound(f"example {i} of a batch generates different ids in a batch of its own")


@torch.no_grad()
def save(pair: Pair) -> None:
    """Check that saving and loading does not change the logits."""
    base = pair.model(**pair.padded, labels=pair.labels).logits
    with tempfile.TemporaryDirectory() as folder:
        pair.model.save_pretrained(folder)
        again = type(pair.model).from_pretrained(folder).eval()
    same(again(**pair.padded, labels=pair.labels).logits, base, "saving and loading changes the logits")


@torch.no_grad()
def short_loss(pair: Pair) -> None:
    """Check that ``training_loss`` equals the loss of ``forward``, with and without target-length buckets."""
    expected = pair.model(**pair.padded, labels=pair.labels).loss
    for buckets in (None, [(BATCH_SIZE - 1, TARGET), (1, TARGET - 2)]):
        total, _, count = pair.model.training_loss(**pair.padded, labels=pair.labels, buckets=buckets)
        same(total / count, expected, f"training_loss is wrong{' with target-length buckets' if buckets else ''}")


CHECKS: dict[str, Callable[[Pair], None]] = {
    "loss": loss,
    "gradients": gradients,
    "step zero": step_zero,
    "effect": effect,
    "causal": causal,
    "source padding": source_padding,
    "left padding": left_padding,
    "target padding": target_padding,
    "greedy": greedy,
    "beam": beam,
    "batch": batch,
    "save": save,
    "training loss": short_loss,
}
