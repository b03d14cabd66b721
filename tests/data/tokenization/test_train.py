"""A trained tokenizer is the same in every process."""

import os
import random
import subprocess
import sys

import pytest

from warmstart.data.tokenization.train import Family, train_tokenizer

# All letters are about equally frequent, so that the trainer has ties at every step. They include punctuation,
# marks and ideographs, for which BERT has special rules.
LETTERS = [*map(chr, (*range(0x61, 0x7B), *range(0x905, 0x94D), *range(0x4E00, 0x4E28))), *"#.,!-'0123456789"]
PRINT = "import test_train as test; print(test.vocabularies())"


def texts():
    drawn = random.Random(0)
    drawn_texts = ["".join(drawn.choice([*LETTERS, " "]) for _ in range(300)) for _ in range(30)]
    return [*drawn_texts, *["abc, de"] * 30]


def vocabularies():
    """Each family's tokens in the order of their ids; 300 entries cannot hold all letters."""
    found = []
    for family in Family:
        for size in (300, 1000):
            vocabulary = train_tokenizer(family, iter(texts()), size).get_vocab()
            found.append([family.value, size, sorted(vocabulary, key=vocabulary.__getitem__)])
    return found


def test_every_process_trains_the_same_vocabulary():
    def start(seed):
        environment = os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": "true"}
        environment["PYTHONPATH"] = os.pathsep.join([os.path.dirname(__file__), *sys.path])
        command = [sys.executable, "-c", PRINT]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    others = [start(seed) for seed in ("1", "2")]
    here = str(vocabularies())
    for process in others:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert output.strip() == here


@pytest.mark.parametrize("size", [300, 1000])
def test_a_trained_wordpiece_tokenizer_has_its_special_tokens_first_and_only_those(size):
    tokenizer = train_tokenizer(Family.wordpiece, texts(), size)
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_ids_to_tokens(range(5)) == specials
    assert sorted(tokenizer.all_special_tokens) == sorted(specials)
    assert sorted(tokenizer.backend_tokenizer.get_added_tokens_decoder()) == [0, 1, 2, 3, 4]
    assert len(tokenizer) == size
    assert sum(len(token) == 1 for token in tokenizer.get_vocab()) <= size // 4
    assert tokenizer.decode(tokenizer("abc, de")["input_ids"], skip_special_tokens=True) == "abc, de"
