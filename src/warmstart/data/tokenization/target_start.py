"""With which ids every target begins: start tokens, such as a language token, and a prompt.

target_start(pair, settings)    # the special ids of the model's config, and prompt_ids after the start id
"""

import re
from typing import Any

from warmstart.config.data import DataSettings
from warmstart.data.tokenization.pair import ONLY_IDS, TokenizerPair
from warmstart.errors import UserError

LANGUAGE = "language"
"""The item of ``data.start_tokens`` that stands for the token of ``data.language``."""


def target_start(tokenizers: TokenizerPair, settings: DataSettings) -> dict[str, Any]:
    """Return the fields of the joint config that decide how a target begins and ends.

    Args:
        tokenizers: The pair of tokenizers.
        settings: The ``data`` group: ``start_tokens``, ``prompt`` and ``prompt_as_chat``.

    Returns:
        The special ids of the pair, of which ``data.start_tokens`` replaces the start id, and ``prompt_ids``, the ids
        between the start id and the target; None if there are none.

    Raises:
        UserError: A start token is not in the decoder's vocabulary, or its tokenizer has no chat template.
    """
    ids: dict[str, Any] = dict(tokenizers.special_ids())
    first = [_start_id(tokenizers.target, token, settings) for token in settings.start_tokens]
    ids["decoder_start_token_id"], *rest = first or [ids["decoder_start_token_id"]]
    prompt = _prompt_ids(tokenizers.target, settings)
    if not rest and prompt[:1] == [ids["decoder_start_token_id"]]:  # a chat template may begin with the start token
        prompt = prompt[1:]
    ids["prompt_ids"] = [*rest, *prompt] or None
    return ids


def _prompt_ids(tokenizer: Any, settings: DataSettings) -> list[int]:
    if not settings.prompt:
        return []
    given, options = settings.prompt, dict(ONLY_IDS)
    if settings.prompt_as_chat:
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"data.prompt_as_chat=true was requested, but the decoder's tokenizer ({type(tokenizer).__name__}) has "
                "no chat template. Leave data.prompt_as_chat out, or choose an instruction-tuned decoder."
            )
        given = tokenizer.apply_chat_template(
            [{"role": "user", "content": given}], add_generation_prompt=True, tokenize=False
        )
        options["split_special_tokens"] = False  # the template's control tokens
    ids: list[int] = tokenizer(given, add_special_tokens=False, **options)["input_ids"]
    return ids


def _start_id(tokenizer: Any, token: str, settings: DataSettings) -> int:
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    if token == LANGUAGE:
        token = _language_token(vocabulary, settings.language)
    if token not in vocabulary:
        special = ", ".join(map(repr, tokenizer.all_special_tokens[:10]))
        raise UserError(
            f"data.start_tokens={settings.start_tokens}: {token!r} is not a token of the decoder's tokenizer "
            f"({type(tokenizer).__name__}). Its special tokens include {special}."
        )
    return vocabulary[token]


def _language_token(vocabulary: dict[str, int], language: str) -> str:
    """Return the token of a language in the forms of mBART, NLLB, M2M100, MADLAD and Whisper."""
    code = re.escape(language)
    form = re.compile(rf"{code}_[A-Z]{{2}}|{code}_[A-Z][a-z]{{3}}|__{code}__|<2{code}>|<\|{code}\|>")
    found = sorted(token for token in vocabulary if form.fullmatch(token))
    if len(found) != 1:
        shown = ", ".join(found[:10]) if found else "none"
        raise UserError(
            f"data.start_tokens has {LANGUAGE}, but the decoder's tokenizer has {len(found)} tokens of "
            f"data.language={language} ({shown}). Write the token itself, such as data.start_tokens=[de_DE]."
        )
    return found[0]
