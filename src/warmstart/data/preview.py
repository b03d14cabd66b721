"""The first pairs of a data set as the model reads them, so that a wrong column is seen before a fit.

first_pairs(source, tokenizers, settings)[0].document_tokens
"""

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from warmstart.config.data import DataSettings
from warmstart.data.sources.base import Source
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.source_layout import UNLIMITED, SourceLayout

if TYPE_CHECKING:  # it imports Lightning, which takes seconds
    from warmstart.data.datamodule import SummarizationDataModule


class PreviewedPair(NamedTuple):
    """One training pair after cleaning, tokenization and truncation."""

    id: str
    document: str
    """The text of the tokens that the encoder gets, without special tokens other than the unknown one."""
    document_tokens: int
    """Number of tokens that the encoder gets, special tokens included; in several windows, those of all of them."""
    document_tokens_uncut: int
    """Number of tokens of the whole document, special tokens included."""
    summary: str
    """The text of the labels, without special tokens other than the unknown one."""
    summary_tokens: int
    """Number of labels, the end token included."""
    summary_tokens_uncut: int
    """Number of labels of the whole summary, the end token included."""
    windows: int = 1
    """Number of windows in which the encoder gets the document."""


def first_pairs(
    source: "Source | SummarizationDataModule", tokenizers: TokenizerPair, settings: DataSettings, count: int = 3
) -> list[PreviewedPair]:
    """Return the first training pairs as the model reads them; without a training split, those of the first split.

    Args:
        source: The texts, or the data module that has them.
        tokenizers: The pair that tokenizes documents and summaries.
        settings: The ``data`` group of the config, for the maximum lengths, windows and truncation.
        count: Number of pairs; fewer are returned if the split has fewer.

    Returns:
        The pairs, in the order of the split.
    """
    texts = source if isinstance(source, Source) else source.source
    split = "train" if "train" in texts.names else texts.names[0]
    examples = list(islice(texts.split(split), count))
    documents, summaries = [example.document for example in examples], [example.summary for example in examples]
    layout = SourceLayout.of(settings)
    sources = layout.encode(tokenizers, documents)
    targets = tokenizers.encode_targets(summaries, settings.max_target_length)
    return [
        PreviewedPair(
            example.id,
            _text(tokenizers.source, source_ids),
            len(source_ids),
            len(whole_source),
            _text(tokenizers.target, target_ids),
            len(target_ids),
            len(whole_target),
            len(layout.windows_of(source_ids)),
        )
        for example, source_ids, target_ids, whole_source, whole_target in zip(
            examples,
            sources,
            targets,
            layout.without_limit().encode(tokenizers, documents),
            tokenizers.encode_targets(summaries, UNLIMITED),
            strict=True,
        )
    ]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    # An unknown token shows what the vocabulary lacks. In GPT-2 it is the end token, which is not shown.
    ends = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    hidden = {i for i in tokenizer.all_special_ids if i != tokenizer.unk_token_id or i in ends}
    text: str = tokenizer.decode([i for i in ids if i not in hidden])
    return text.strip()
