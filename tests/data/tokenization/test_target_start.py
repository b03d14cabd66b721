"""Start tokens, language tokens and prompts as ids of the decoder."""

import pytest

from warmstart.config.data import DataKind, DataSettings
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.data.tokenization.target_start import target_start
from warmstart.errors import UserError

TEMPLATE = (
    "{% for message in messages %}<|user|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def multilingual(pair):
    """A pair whose decoder has the tokens of languages and of a chat, in a tokenizer of its own."""
    from copy import deepcopy

    target = deepcopy(pair.target)
    target.add_special_tokens(
        {"additional_special_tokens": ["de_DE", "__fr__", "hi_IN", "hi_XX", "<|user|>", "<|end|>", "<|assistant|>"]}
    )
    return TokenizerPair(pair.source, target)


def start(pair, **options):
    return target_start(pair, DataSettings(name="written", kind=DataKind.written, **options))


def ids_of(pair, *tokens):
    return pair.target.convert_tokens_to_ids(list(tokens))


def test_without_options_the_ids_are_those_of_the_pair(pair):
    assert start(pair) == pair.special_ids() | {"prompt_ids": None}
    assert start(pair, prompt="") == start(pair)


def test_a_prompt_follows_the_start_id(pair):
    found = start(pair, prompt="Summarize: ")
    assert found["decoder_start_token_id"] == pair.special_ids()["decoder_start_token_id"]
    assert pair.target.decode(found["prompt_ids"]) == "Summarize: "
    # A special token in a prompt is plain text, as in a summary.
    assert pair.special_ids()["eos_token_id"] not in start(pair, prompt="a <|endoftext|> b")["prompt_ids"]


def test_start_tokens_replace_the_start_id_and_language_stands_for_that_of_the_data(multilingual):
    german, french = ids_of(multilingual, "de_DE", "__fr__")
    end = multilingual.special_ids()["eos_token_id"]
    assert start(multilingual, start_tokens=["de_DE"])["decoder_start_token_id"] == german
    found = start(multilingual, start_tokens=["<|endoftext|>", "language"], language="fr", prompt="Hello")
    assert found["decoder_start_token_id"] == end
    assert found["prompt_ids"][0] == french
    assert multilingual.target.decode(found["prompt_ids"][1:]) == "Hello"
    with pytest.raises(UserError, match=r"has 2 tokens of data\.language=hi \(hi_IN, hi_XX\)"):
        start(multilingual, start_tokens=["language"], language="hi")
    with pytest.raises(UserError, match=r"has 0 tokens of data\.language=sw \(none\)"):
        start(multilingual, start_tokens=["language"], language="sw")
    with pytest.raises(UserError, match=r"'xx_XX' is not a token of the decoder's tokenizer .*'<\|endoftext\|>'"):
        start(multilingual, start_tokens=["xx_XX"])


def test_a_chat_template_makes_the_prompt_the_users_message(multilingual):
    with pytest.raises(UserError, match="has no chat template"):
        start(multilingual, prompt="Summarize", prompt_as_chat=True)
    multilingual.target.chat_template = TEMPLATE
    user, end, assistant = ids_of(multilingual, "<|user|>", "<|end|>", "<|assistant|>")
    found = start(multilingual, prompt="Summarize", prompt_as_chat=True)["prompt_ids"]
    assert (found[0], found[-2], found[-1]) == (user, end, assistant)
    assert multilingual.target.decode(found[1:-2]) == "Summarize"
    multilingual.target.chat_template = "<|endoftext|>" + TEMPLATE  # it begins with the start token, which stands once
    assert start(multilingual, prompt="Summarize", prompt_as_chat=True)["prompt_ids"] == found
