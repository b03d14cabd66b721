"""BERTScore (Zhang et al. 2020) for each example, times 100, by any encoder of a local folder or the hub.

Each token is matched with the most similar token of the other text by the cosine of their hidden states. As in the
bert-score package without idf weights and without rescaling, special tokens can be matched but are not counted, an
empty text scores 0, and RoBERTa and GPT-2 read each text with a blank before it.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from warmstart.config.evaluation import EvaluationSettings
from warmstart.errors import UserError
from warmstart.evaluation.columns import Columns
from warmstart.evaluation.metrics.metric import Metric, Texts, signed

BATCH = 32  # texts
VERSION = 2
"""Raised whenever the same texts and model get other scores."""
# Since transformers 5 these have the tokenizer class of RoBERTa or GPT-2, which bert-score treats specially. In
# transformers 4, which it needs, they have classes of their own.
_WITHOUT_BLANK = ("bart", "led", "lilt", "longformer", "mvp", "phi")


class _Encoder:
    """A model whose hidden states are compared.

    Args:
        location: A local folder or a hub id.
        layer: The hidden layer; None is the last one.

    Raises:
        UserError: It cannot be loaded, or has fewer layers.
    """

    def __init__(self, location: str, layer: int | None) -> None:
        from transformers import AutoModel, AutoTokenizer, GPT2Tokenizer, RobertaTokenizer

        try:
            self.tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=False)
            model: Any = AutoModel.from_pretrained(location, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"evaluation.bertscore_model={location} cannot be loaded: {reason} Set a folder with a model and its "
                "tokenizer, or a hub id."
            ) from error
        if model.config.is_encoder_decoder:
            model = model.get_encoder()
        layers = model.config.num_hidden_layers
        self.layer = layers if layer is None else layer
        if self.layer > layers:
            raise UserError(f"evaluation.bertscore_layer={layer}, but {location} has only {layers} layers.")
        self.model = model.float().eval().requires_grad_(False)
        if torch.cuda.is_available():
            self.model.cuda()
        begins_with_blank = isinstance(self.tokenizer, GPT2Tokenizer | RobertaTokenizer)
        self._before = " " if begins_with_blank and model.config.model_type not in _WITHOUT_BLANK else ""
        self.tokenizer.padding_side = "right"
        if self.tokenizer.pad_token is None:  # padding is masked, so any token will do
            self.tokenizer.pad_token = self.tokenizer.eos_token
        positions = getattr(model.config, "max_position_embeddings", None) or self.tokenizer.model_max_length
        self.longest = min(self.tokenizer.model_max_length, positions)

    @torch.inference_mode()
    def _states(self, texts: Sequence[str]) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Return the normalized states (T, D) of each text's tokens, and which of them count (T,)."""
        nothing = torch.zeros(0, 1), torch.zeros(0, dtype=torch.bool)
        found = {text: nothing for text in texts if not text.strip()}
        ends = (self.tokenizer.cls_token_id, self.tokenizer.sep_token_id)
        by_length = sorted(set(texts) - found.keys(), key=len)
        for start in range(0, len(by_length), BATCH):
            batch = by_length[start : start + BATCH]
            stripped = [f"{self._before}{text.strip()}" for text in batch]
            rows = self.tokenizer(stripped, truncation=True, max_length=self.longest)
            padded = self.tokenizer.pad(rows, return_tensors="pt").to(self.model.device)
            state_BTD = self.model(**padded, output_hidden_states=True).hidden_states[self.layer].cpu()
            for text, state_TD, ids in zip(batch, state_BTD, rows["input_ids"], strict=True):
                counted_T = torch.tensor([token not in ends for token in ids], dtype=torch.bool)
                found[text] = torch.nn.functional.normalize(state_TD[: len(ids)], dim=-1), counted_T
        return found

    def precisions_and_recalls(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
        """Return both for each pair of prediction and reference, from -1 to 1."""
        found = []
        for start in range(0, len(pairs), BATCH):  # states of a whole test split may not fit into memory
            batch = pairs[start : start + BATCH]
            states = self._states([text for pair in batch for text in pair])
            found += [_matched(*states[prediction], *states[reference]) for prediction, reference in batch]
        return found


def _matched(
    own_TD: torch.Tensor, counted_T: torch.Tensor, wanted_SD: torch.Tensor, counted_S: torch.Tensor
) -> tuple[float, float]:
    if not (counted_T.any() and counted_S.any()):
        return 0.0, 0.0
    similarity_TS = own_TD @ wanted_SD.T
    precision = similarity_TS.max(dim=1).values[counted_T].mean()
    return float(precision), float(similarity_TS.max(dim=0).values[counted_S].mean())


@cache
def _encoder(location: str, layer: int | None) -> _Encoder:
    return _Encoder(location, layer)


def _of(settings: EvaluationSettings) -> _Encoder:
    if settings.bertscore_model is None:
        raise UserError("The metric bertscore needs a model. Set evaluation.bertscore_model to a folder or a hub id.")
    return _encoder(settings.bertscore_model, settings.bertscore_layer)


def bert_scores(
    predictions: Sequence[str], references: Sequence[str], location: str, layer: int | None = None
) -> dict[str, np.ndarray]:
    """Score each prediction against its reference.

    Args:
        predictions: The texts to score.
        references: Their references.
        location: The model: a local folder or a hub id.
        layer: The hidden layer that is compared; None is the last one.

    Returns:
        ``bertscore_precision``, ``bertscore_recall`` and ``bertscore_f1`` times 100 (n,).

    Raises:
        UserError: The model cannot be loaded, or has fewer layers.
    """
    encoder = _encoder(location, layer)
    pairs = encoder.precisions_and_recalls(list(zip(predictions, references, strict=True)))
    precision, recall = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    both = precision + recall
    f1 = np.divide(2 * precision * recall, both, out=np.zeros_like(both), where=both != 0)
    return {f"bertscore_{name}": 100 * of for name, of in (("precision", precision), ("recall", recall), ("f1", f1))}


def _score(texts: Texts, settings: EvaluationSettings) -> Columns:
    _of(settings)
    return dict(
        bert_scores(texts.predictions, texts.references, str(settings.bertscore_model), settings.bertscore_layer)
    )


def _signature(code: str, settings: EvaluationSettings) -> str:
    encoder, location = _of(settings), str(settings.bertscore_model)
    name = Path(location).name if Path(location).is_dir() else location
    digest = hashlib.sha256()
    for key, weight in sorted(encoder.model.state_dict().items()):
        digest.update(f"{key} {float(weight.double().sum()):.6e}".encode())
    parts = {"model": name, "weights": digest.hexdigest()[:8], "layer": encoder.layer, "idf": "no", "rescaled": "no"}
    return signed("bertscore", f"{VERSION}-transformers-{version('transformers')}", **parts, lang=code)


METRIC = Metric(_score, _signature)
