"""The pair of tokenizers: source ids come from the encoder's, labels from the decoder's.

    pair = load_pair(encoder, decoder, texts)
    pair.encode_sources([...], 512), pair.encode_targets([...], 128), pair.decode(ids)

The pair owns the decoder's start, end and pad ids. Labels have no start token (the model shifts them) and always end in
the end token, even if truncated: a model that never sees an end token never stops.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from warmstart.atomic import replacing_folder
from warmstart.config.model import SubmodelSettings, reader_of
from warmstart.config.schema import Config
from warmstart.data.tokenization.contents import assert_not_empty, contents_of
from warmstart.data.tokenization.load import errors_of_the_library, load_tokenizer, tokenizer_from_folder
from warmstart.data.tokenization.sentence_marks import SentenceMarks, sentence_ids
from warmstart.errors import UserError

FORMAT_VERSION = 2
ENCODER_FOLDER = "encoder_tokenizer"


class TokenizerPair:
    """Both tokenizers of a model and the special ids that training and generation share.

    Args:
        source: The encoder's tokenizer.
        target: The decoder's tokenizer.
        marks: Which texts have marked sentences; by default none.

    Raises:
        UserError: A tokenizer is empty, or the decoder's has neither an end nor a separator token.
    """

    def __init__(self, source: Any, target: Any, marks: SentenceMarks = SentenceMarks()) -> None:  # noqa: B008
        self.source, self.target, self.marks = source, target, marks
        self.sentence_start_id: int | None = sentence_ids(source)[0] if marks.source else None
        for role, tokenizer in (("encoder", source), ("decoder", target)):
            assert_not_empty(tokenizer, role)
            # Some checkpoints truncate or pad on the left, but the start of an article is the part to keep.
            tokenizer.truncation_side = tokenizer.padding_side = "right"
        end = _first_id(target.eos_token_id, target.sep_token_id)
        if end is None:
            raise UserError(
                f"The decoder's tokenizer ({type(target).__name__}) has neither an end nor a separator token, so "
                "summaries could not end. Set decoder.tokenizer to one that has such a token, or add eos_token to its "
                "tokenizer_config.json."
            )
        # Some tokenizers, such as Qwen's, have no start token. Then the end token starts a text, as in GPT-2.
        start = _first_id(target.bos_token_id, target.cls_token_id, end)
        pad = _first_id(target.pad_token_id, end)
        assert start is not None
        assert pad is not None
        self._start, self._end, self._pad = start, end, pad
        self.source_pad_id: int = (
            _first_id(source.pad_token_id, source.eos_token_id, source.sep_token_id, source.unk_token_id) or 0
        )
        self._tidy = _joins_word_pieces(target)
        if self._tidy:  # saved with the tokenizer, so that its own ``decode`` returns the same text
            target.clean_up_tokenization_spaces = target.init_kwargs["clean_up_tokenization_spaces"] = True

    @property
    def writes_lower_case(self) -> bool:
        """Whether the decoder's tokenizer loses case, so that every summary is in lower case."""
        ids = self.target("Warm Start", add_special_tokens=False, **ONLY_IDS)["input_ids"]
        text: str = self.target.decode(ids, skip_special_tokens=True)
        return any(map(str.isalpha, text)) and text == text.lower()

    def special_ids(self) -> dict[str, int]:
        """Return the decoder's ids by the names that ``config`` and ``generation_config`` use."""
        return {"decoder_start_token_id": self._start, "eos_token_id": self._end, "pad_token_id": self._pad}

    def sentence_ids(self) -> dict[str, int]:
        """Return the ids around sentences, by the names in a model's configs; empty if sources are plain."""
        return self.marks.ids(self.source, self.target)

    def encode_sources(self, texts: Sequence[str], max_length: int, *, special: bool = True) -> list[list[int]]:
        """Tokenize documents for the encoder.

        Args:
            texts: The documents.
            max_length: Maximum number of ids of each, including special tokens.
            special: Whether to add special tokens.

        Returns:
            Ids of each document; at least one with ``special``.

        Raises:
            UserError: The tokenizers library fails.
        """
        if not texts:
            return []
        with errors_of_the_library("encoder"):
            if self.marks.source:
                rows = self.marks.encode_sources(self.source, texts, max_length, ONLY_IDS)
                return [row or [self.source_pad_id] for row in rows]
            rows = self.source(
                list(texts), add_special_tokens=special, truncation=True, max_length=max_length, **ONLY_IDS
            )["input_ids"]
        # Attention over no positions is NaN, so a text without any token becomes one pad token.
        return [row or [self.source_pad_id] for row in rows] if special else rows

    def encode_targets(self, texts: Sequence[str], max_length: int) -> list[list[int]]:
        """Tokenize summaries as labels, each with the end token.

        Args:
            texts: The summaries.
            max_length: Maximum number of ids of each, including the end token.

        Raises:
            UserError: The tokenizers library fails.
        """
        if max_length <= 1 or not texts:
            return [[self._end] for _ in texts]
        with errors_of_the_library("decoder"):
            if self.marks.target:
                rows = self.marks.encode_targets(self.target, texts, max_length - 1, ONLY_IDS)
                return [[*row, self._end] for row in rows]
            rows = self.target(
                list(texts), add_special_tokens=False, truncation=True, max_length=max_length - 1, **ONLY_IDS
            )["input_ids"]
        return [[*row, self._end] for row in rows]

    def encode_labels(self, examples: Sequence[Any], sources: list[list[int]], max_length: int) -> list[list[int]]:
        """Tokenize the summaries of examples as labels, as ``encode_targets`` does, given the ids of their documents.

        For a model that selects sentences, a 1 or 0 for each sentence of the document follows the end token.
        """
        rows = self.encode_targets([example.summary for example in examples], max_length)
        return self.marks.add_labels(rows, examples, sources, self.sentence_start_id)

    def decode(self, ids: torch.Tensor | Sequence[Sequence[int]]) -> list[str]:
        """Decode generated ids or labels up to the first end token, without special tokens.

        Args:
            ids: Ids (B, T), or a list of ids for each text. -100 ends a text as well.
        """
        rows = ids.tolist() if isinstance(ids, torch.Tensor) else [list(map(int, row)) for row in ids]
        return ["\n".join(map(self._text, self.marks.parts(self.target, self._body(row)))) for row in rows]

    def _text(self, ids: list[int]) -> str:
        text: str = self.target.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=self._tidy).strip()
        # WordPiece makes a word of each Chinese character, and decodes words with blanks between them.
        return _BETWEEN_CHARACTERS.sub("", text) if self._tidy else text

    def blocked_word_ngrams(self, size: int) -> Any:
        """Return the processors of ``generate`` that block n-grams of ``size`` words that would occur twice."""
        from transformers import LogitsProcessorList

        from warmstart.model.generation.word_ngrams import NoRepeatedWordNGrams, pieces_of

        return LogitsProcessorList([NoRepeatedWordNGrams(size, pieces_of(self.target))])

    def _body(self, row: list[int]) -> list[int]:
        # The start token may be the end token (GPT-2), so it is removed before the search for the end.
        if row and row[0] == self._start:
            row = row[1:]
        for i, token in enumerate(row):
            if token in (self._end, -100):
                return row[:i]
        return row

    def keep(self, folder: Path) -> None:
        """Save into ``folder`` unless it already contains this pair; another pair there is replaced."""
        try:
            same = TokenizerPair.load(folder).fingerprint() == self.fingerprint()
        except UserError:  # it is missing or damaged
            same = False
        if not same:
            with replacing_folder(folder) as partial:
                self.save(partial)

    def save(self, folder: str | Path) -> None:
        """Write the decoder's tokenizer, the encoder's tokenizer in a subfolder, and ``tokenizer_pair.json``.

        ``AutoTokenizer.from_pretrained(folder)`` loads the decoder's, which decodes what the model generates.
        """
        folder = Path(folder)
        self.target.save_pretrained(folder)
        self.source.save_pretrained(folder / ENCODER_FOLDER)
        about: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            **self.special_ids(),
            "source_pad_id": self.source_pad_id,
        }
        if self.marks.as_dict():
            about["sentence_marks"] = self.marks.as_dict()
        about["fingerprint"] = self.fingerprint()
        (folder / "tokenizer_pair.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "TokenizerPair":
        """Load a pair that ``save`` wrote.

        Raises:
            UserError: The folder contains no pair, or its special ids differ from those that were saved.
        """
        folder = Path(folder)
        try:
            about = json.loads((folder / "tokenizer_pair.json").read_text(encoding="utf-8"))
            saved = {name: about[name] for name in _PAIR_IDS}
            of_decoder = folder / "decoder_tokenizer" if about["format_version"] == 1 else folder
            marks = SentenceMarks(**about.get("sentence_marks", {}))
        except FileNotFoundError:
            raise UserError(
                f"There is no pair of tokenizers in {folder}: tokenizer_pair.json is missing. "
                "Choose the tokenizers folder of a run's checkpoints or of an export."
            ) from None
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise UserError(f"{folder / 'tokenizer_pair.json'} is damaged ({error!r}). Save the pair again.") from error
        folders = {"encoder": folder / ENCODER_FOLDER, "decoder": of_decoder}
        source, target = (tokenizer_from_folder(str(path), role) for role, path in folders.items())
        pair = cls(source, target, marks)
        found = {**pair.special_ids(), "source_pad_id": pair.source_pad_id}
        if found != saved:
            raise UserError(
                f"The tokenizers in {folder} have the special ids {found}, but were saved with {saved}: their "
                "files were changed. Save the pair again."
            )
        return pair

    def fingerprint(self) -> str:
        """Return a hash of both tokenizers, the same on every machine.

        Equal hashes mean that both pairs turn any text into the same ids.
        """
        marks = [self.marks.as_dict()] if self.marks.as_dict() else []
        digest = hashlib.sha256(json.dumps([self.special_ids(), self.source_pad_id, *marks]).encode())
        for tokenizer in (self.source, self.target):
            digest.update(contents_of(tokenizer))
        return digest.hexdigest()

    def vocabularies(self) -> str:
        """Return a hash of both vocabularies; unlike the fingerprint, it is the same in any version of the library."""
        both = [tokenizer.get_vocab() for tokenizer in (self.source, self.target)]
        return hashlib.sha256(json.dumps(both, sort_keys=True).encode()).hexdigest()


# Chinese characters, kana, and the punctuation of both.
_CHARACTER = "[\u3000-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]"
_BETWEEN_CHARACTERS = re.compile(rf"(?<={_CHARACTER}) (?={_CHARACTER})")
_PAIR_IDS = ("decoder_start_token_id", "eos_token_id", "pad_token_id", "source_pad_id")
ONLY_IDS: dict[str, Any] = {
    "padding": False,
    "return_attention_mask": False,
    "return_token_type_ids": False,
    # "<|endoftext|>" in an article is plain text; as a special token it would end a summary early.
    "split_special_tokens": True,
}


def load_pair(
    encoder: SubmodelSettings, decoder: SubmodelSettings, texts: Callable[[], Iterable[str]]
) -> TokenizerPair:
    """Load the tokenizers of an encoder and a decoder.

    They come from the hub, a local folder or an installed package. For random weights a tokenizer may be trained.

    Args:
        encoder: The settings of the encoder.
        decoder: The settings of the decoder.
        texts: Returns the training texts; called only if a tokenizer must be trained.

    Raises:
        UserError: A tokenizer is not available, or is empty.
    """
    reader = reader_of(encoder, decoder)
    return TokenizerPair(load_tokenizer(reader, "encoder", texts), load_tokenizer(decoder, "decoder", texts))


def pair_of(tokenizers: Sequence[Any], settings: Config) -> TokenizerPair:
    """Join the encoder's and the decoder's tokenizers, or one for both, into the pair of a config."""
    return TokenizerPair(tokenizers[0], tokenizers[-1], SentenceMarks.of(settings.data, settings.decoder))


def _first_id(*ids: int | None) -> int | None:
    return next((value for value in ids if value is not None), None)


def _joins_word_pieces(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and type(backend.decoder).__name__ == "WordPiece"
