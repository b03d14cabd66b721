"""What a sound pair does, one function for each check, whoever's model class it is.

A check returns nothing, or raises: :class:`Unsound` with the figure where the behaviour is wrong, anything else where
the model cannot do it at all.

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
TOLERANCE = 1e-3  # of the logits' own size, in fp32
ROWS, SOURCE, TARGET = 3, 9, 6
_PADDED = 4


class Unsound(Exception):
    """A behaviour that is wrong, with its figure."""


@dataclass
class Pair:
    """The model on trial and the sources that it is given."""

    model: Any
    padded: dict[str, Tensor]  # (B, S), the second row padded on the right
    labels: Tensor  # (B, T), the last row shorter
    build: Callable[[], Any]


def sources(vocabulary: int = VOCABULARY, seed: int = 1) -> dict[str, Tensor]:
    """Source ids with the second row padded on the right."""
    ids = torch.randint(5, vocabulary, (ROWS, SOURCE), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1, SOURCE - _PADDED :] = 0
    return {"input_ids": ids.masked_fill(mask == 0, PAD), "attention_mask": mask}


def targets(vocabulary: int = VOCABULARY, seed: int = 2) -> Tensor:
    """Labels with the last row shorter."""
    labels = torch.randint(5, vocabulary, (ROWS, TARGET), generator=torch.Generator().manual_seed(seed))
    labels[-1, TARGET - 2 :] = -100
    return labels


def same(found: Tensor, expected: Tensor, what: str) -> None:
    """Raise where two tensors of logits differ by more than rounding does."""
    gap = float((found - expected).detach().abs().max())
    size = 1.0 + float(expected.detach().abs().max())
    if not gap <= TOLERANCE * size:
        raise Unsound(f"{what}: {gap:.2g} of {size:.2g}")


def loss(pair: Pair) -> None:
    """Forward with labels gives a finite loss."""
    value = pair.model(**pair.padded, labels=pair.labels).loss
    if not torch.isfinite(value):
        raise Unsound(f"the loss is {float(value)}")


def gradients(pair: Pair) -> None:
    """Every new parameter learns."""
    pair.model.zero_grad()
    # Reformer learns in training mode alone; nothing drops in a tiny config.
    pair.model.train()(**pair.padded, labels=pair.labels).loss.backward()
    pair.model.eval()
    names = ("cross_attention", "crossattention", "encoder_attn", "cross_attn", "enc_to_dec_proj")
    still = [
        name
        for name, parameter in pair.model.named_parameters()
        if any(part in name for part in names)
        # softmax does not see a constant added to every key
        and not name.endswith(("k_proj.bias", "key.bias"))
        and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    if still:
        raise Unsound(f"no gradient in {len(still)} new parameters, such as {still[0]}")


@torch.no_grad()
def step_zero(pair: Pair) -> None:
    """With closed gates the decoder is the bare language model, exactly."""
    gates = {name: p for name, p in pair.model.named_parameters() if name.endswith(".gate")}
    opened = {name: gate.clone() for name, gate in gates.items()}
    for gate in gates.values():
        gate.zero_()
    ids = pair.labels.clamp(min=5)
    joined = pair.model(**pair.padded, decoder_input_ids=ids).logits
    bare = pair.model.decoder(input_ids=ids).logits
    for name, gate in gates.items():
        gate.copy_(opened[name])
    if not torch.equal(joined, bare):
        raise Unsound(f"differs from the bare language model by {float((joined - bare).abs().max()):.2g}")


@torch.no_grad()
def effect(pair: Pair) -> None:
    """Another source gives other logits, in every row."""
    other = pair.padded | {"input_ids": sources(seed=9)["input_ids"]}
    base = pair.model(**pair.padded, labels=pair.labels).logits
    gaps = (pair.model(**other, labels=pair.labels).logits - base).abs().amax(dim=(1, 2))
    if not (gaps > 1e-4).all():
        raise Unsound(f"another source moves the logits by {float(gaps.min()):.2g}")


@torch.no_grad()
def causal(pair: Pair) -> None:
    """A later target token changes no earlier logit."""
    ids = pair.labels.clamp(min=5)
    later = ids.clone()
    later[:, 4:] = 7
    first, second = (pair.model(**pair.padded, decoder_input_ids=x).logits[:, :4] for x in (ids, later))
    same(first, second, "a later token changes earlier logits")


@torch.no_grad()
def source_padding(pair: Pair) -> None:
    """A padded row is what it is alone, and what stands under the padding has no effect."""
    base = pair.model(**pair.padded, labels=pair.labels).logits
    changed = dict(pair.padded)
    changed["input_ids"] = torch.where(changed["attention_mask"] == 0, 9, changed["input_ids"])
    same(pair.model(**changed, labels=pair.labels).logits, base, "ids under the padding change the logits")
    length = SOURCE - _PADDED
    alone = {name: value[1:2, :length] for name, value in pair.padded.items()}
    found = pair.model(**alone, labels=pair.labels[1:2]).logits
    same(found, base[1:2], "a padded row is not what it is alone")


@torch.no_grad()
def left_padding(pair: Pair) -> None:
    """A source padded on the left is exact, or refused."""
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
    """A short target is what it is alone."""
    base = pair.model(**pair.padded, labels=pair.labels).logits
    alone = {name: value[-1:] for name, value in pair.padded.items()}
    found = pair.model(**alone, labels=pair.labels[-1:, : TARGET - 2]).logits
    same(found, base[-1:, : TARGET - 2], "a short target is not what it is alone")


def _generate(pair: Pair, rows: slice, beams: int, **options: Any) -> Tensor:
    source = {name: value[rows] for name, value in pair.padded.items()}
    lengths = {"max_new_tokens": 8, "min_new_tokens": 8}
    ids: Tensor = pair.model.generate(**source, num_beams=beams, do_sample=False, **lengths, **options)
    return ids


def _cached(pair: Pair, beams: int) -> None:
    found, expected = (_generate(pair, slice(None), beams, use_cache=flag) for flag in (True, False))
    if not torch.equal(found, expected):
        raise Unsound(f"with the cache {int((found != expected).sum())} of {expected.numel()} ids are others")


def greedy(pair: Pair) -> None:
    """Greedy search gives the same ids with and without the cache, and those that forward finds best."""
    _cached(pair, 1)
    ids = _generate(pair, slice(None), 1)
    with torch.no_grad():
        logits = pair.model(**pair.padded, decoder_input_ids=ids).logits[:, :-1].clone()
    logits[..., END] = -torch.inf  # min_new_tokens forbids the end
    chosen = logits.gather(-1, ids[:, 1:, None])[..., 0]
    gap = float((logits.amax(-1) - chosen).max())
    if not gap <= TOLERANCE * (1.0 + float(chosen.abs().max())):
        raise Unsound(f"generation chose ids that forward gives {gap:.2g} less")


def beam(pair: Pair) -> None:
    """Beam search gives the same ids with and without the cache."""
    _cached(pair, 3)


def rows(pair: Pair) -> None:
    """A batch generates what each of its rows generates alone."""
    together = _generate(pair, slice(None), 3)
    length = SOURCE - _PADDED
    for row in range(ROWS):
        part = Pair(pair.model, dict(pair.padded), pair.labels, pair.build)
        if row == 1:
            part.padded = {name: value[:, :length] for name, value in pair.padded.items()}
        if not torch.equal(_generate(part, slice(row, row + 1), 3)[0], together[row]):
            raise Unsound(f"row {row} of a batch generates other ids than alone")


@torch.no_grad()
def save(pair: Pair) -> None:
    """Saved and loaded, the logits are equal to the bit."""
    base = pair.model(**pair.padded, labels=pair.labels).logits
    with tempfile.TemporaryDirectory() as folder:
        pair.model.save_pretrained(folder)
        again = type(pair.model).from_pretrained(folder).eval()
    same(again(**pair.padded, labels=pair.labels).logits, base, "saved and loaded, the logits are others")


@torch.no_grad()
def short_loss(pair: Pair) -> None:
    """The loss that never builds the logits is the loss, of a batch that is decoded in parts, too."""
    expected = pair.model(**pair.padded, labels=pair.labels).loss
    for parts in (None, [(ROWS - 1, TARGET), (1, TARGET - 2)]):
        total, _, count = pair.model.training_loss(**pair.padded, labels=pair.labels, parts=parts)
        same(total / count, expected, f"training_loss is another loss{' in parts' if parts else ''}")


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
    "rows": rows,
    "save": save,
    "training loss": short_loss,
}
