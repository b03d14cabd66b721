"""Train a small tokenizer on the training texts, for an untrained submodel whose own tokenizer is not available.

The family follows the model type, so that the special tokens are those the architecture expects: WordPiece for BERT
and related types, byte-level BPE with RoBERTa's or GPT-2's special tokens for all others. Training uses at most
``MAX_TEXTS`` texts. The result is cached, so that all processes of a run use the same tokenizer.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from warmstart.cache import cache_root
from warmstart.config.model import Scale, SubmodelSettings
from warmstart.data.build_once import build_once
from warmstart.errors import UserError

FORMAT_VERSION = 2
MAX_TEXTS = 50_000
MAX_VOCABULARY = 8000
TINY_VOCABULARY = 1000


class Family(StrEnum):
    """The algorithm and the special tokens of a tokenizer."""

    wordpiece = "wordpiece"
    roberta = "roberta"
    gpt2 = "gpt2"


_WORDPIECE_TYPES = frozenset(
    (
        *("albert", "bert", "bert-generation", "big_bird", "convbert", "deberta", "deberta-v2", "distilbert"),
        *("electra", "ernie", "funnel", "layoutlm", "megatron-bert", "mobilebert", "modernbert", "mra"),
        *("nystromformer", "rembert", "roformer", "squeezebert", "tapas", "yoso"),
    )
)
_ROBERTA_TYPES = frozenset(
    (
        *("bart", "camembert", "data2vec-text", "longformer", "longt5", "mbart", "mpnet", "mt5", "roberta"),
        *("roberta-prelayernorm", "t5", "umt5", "xlm-roberta", "xlm-roberta-xl"),
    )
)
# The order determines the ids: the pad id then equals that of the architecture's default configuration.
_SPECIALS: dict[Family, dict[str, str]] = {
    Family.wordpiece: {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    },
    Family.roberta: {
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    },
    Family.gpt2: {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
}


def family_of(model_type: str) -> Family:
    """Return the family that checkpoints of a model type usually have; GPT-2's for an unknown type."""
    if model_type in _WORDPIECE_TYPES:
        return Family.wordpiece
    return Family.roberta if model_type in _ROBERTA_TYPES else Family.gpt2


def vocabulary_size(settings: SubmodelSettings) -> int:
    """Return the number of entries to train: that of the architecture, at most ``MAX_VOCABULARY``."""
    if settings.scale is Scale.tiny:
        return TINY_VOCABULARY
    return min(int(settings.architecture.get("vocab_size") or MAX_VOCABULARY), MAX_VOCABULARY)


def trained_tokenizer(settings: SubmodelSettings, texts: Iterable[str]) -> Any:
    """Return the trained tokenizer of an encoder or decoder, from the cache or newly trained.

    Args:
        settings: The settings of the encoder or decoder.
        texts: The training texts.

    Raises:
        UserError: There is no text to train on.
    """
    from transformers import AutoTokenizer

    sample = list(islice((text for text in texts if text.strip()), MAX_TEXTS))
    if not sample:
        raise UserError(
            f"The tokenizer of {settings.name} must be trained on the training texts, but they are empty. Choose a "
            "data set with training texts, or set encoder.tokenizer / decoder.tokenizer to a local folder."
        )
    family, size = family_of(settings.model_type), vocabulary_size(settings)
    digest = hashlib.sha256(f"{FORMAT_VERSION} {family} {size}".encode())
    for text in sample:
        digest.update(len(text).to_bytes(8, "little") + text.encode("utf-8", "replace"))

    def build(folder: Path) -> None:
        train_tokenizer(family, sample, size).save_pretrained(folder)

    name = f"{family}-{size}-{digest.hexdigest()[:16]}"
    return AutoTokenizer.from_pretrained(build_once(cache_root() / "tokenizers" / name, build))


def train_tokenizer(family: Family, texts: Iterable[str], vocab_size: int) -> Any:
    """Train a fast tokenizer; the same texts give the same ids in every process.

    Args:
        family: Algorithm and special tokens.
        texts: The texts to train on.
        vocab_size: Maximum number of entries. A byte-level BPE has at least an entry for each byte.
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    named = _SPECIALS[family]
    specials = list(dict.fromkeys(named.values()))
    if family is Family.wordpiece:
        tokenizer = _train_wordpiece(list(texts), specials, vocab_size)
        first, last = "[CLS]", "[SEP]"
    else:
        tokenizer = _train_byte_level(texts, specials, vocab_size)
        first, last = "<s>", "</s>"
    if family is not Family.gpt2:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def _train_wordpiece(texts: Sequence[str], specials: list[str], vocab_size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    def untrained(model: Any) -> Any:
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(cleanup=True)
        return tokenizer

    def trained(**options: Any) -> dict[str, int]:
        tokenizer = untrained(models.WordPiece(unk_token="[UNK]"))
        tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(show_progress=False, **options))
        vocabulary: dict[str, int] = tokenizer.get_vocab(with_added_tokens=False)
        return vocabulary

    # The trainer breaks ties between pairs by their ids. It numbers the letters inside words ("##a"), and chooses among
    # equally rare letters, in the order of a hash map, which differs in every process. So the letters are sorted here:
    # the first training finds them, and the second gets them, with fixed ids, as special tokens.
    found = trained(vocab_size=0)
    letters = {token for token in found if len(token) == 1}
    # Rare letters must not fill a small vocabulary; they become [UNK].
    if len(letters) > vocab_size // 4:
        counts: Counter[str] = Counter()
        normalizer = normalizers.BertNormalizer(lowercase=True)
        for text in texts:
            counts.update(normalizer.normalize_str(text))
        letters = set(sorted(letters, key=lambda letter: (-counts[letter], letter))[: vocab_size // 4])
    inside = sorted(token for token in found if len(token) > 1 and token[-1] in letters)
    vocabulary = trained(
        vocab_size=vocab_size,
        special_tokens=[*specials, *inside],
        initial_alphabet=sorted(letters),
        limit_alphabet=len(letters),
    )
    tokenizer = untrained(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.add_special_tokens(specials)
    return tokenizer


def _train_byte_level(texts: Iterable[str], specials: list[str], vocab_size: int) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer: Any = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
