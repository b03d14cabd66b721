"""Importing the model does not change how auto classes open other checkpoints; in a subprocess, to register nothing."""

import json
import subprocess
import sys

import pytest
from tiny import OURS, UPSTREAM, small_config, small_decoder_config

import warmstart

_STEPS = """
import json, sys
import transformers
import warmstart
from transformers import AutoConfig, AutoModelForSeq2SeqLM

def library(one):
    return type(one).__module__.split(".")[0]

def opened():
    found = {}
    for name, folder in json.loads(sys.argv[1]).items():
        config = AutoConfig.from_pretrained(folder)
        if name == "grafted" and library(config) == "transformers":
            continue  # transformers' class has no place for its weights
        models = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoModelForSeq2SeqLM.from_config(config)
        found[name] = sorted({library(one) for one in (config, *models)})
    configs = {"encoder": config.encoder, "decoder": config.decoder}
    found["for_model"] = [library(AutoConfig.for_model("encoder-decoder", **configs))]
    stock = transformers.EncoderDecoderConfig(**configs)
    found["stock config"] = [library(AutoModelForSeq2SeqLM.from_config(stock))]
    return found

steps = {"import warmstart": opened()}
from warmstart import EncoderDecoderModel
steps["import of the model"] = opened()
for checkpoints in ("all", "none", "own"):
    warmstart.use_in_auto_classes(checkpoints)
    steps[checkpoints] = opened()
print(json.dumps(steps))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("checkpoints")
    grafted = OURS.config(encoder=small_config("bert"), decoder=small_config("bert"), graft={})
    pairs = {
        "grafted": OURS.model(grafted),
        "native": OURS.join(small_config("bert"), small_decoder_config("gpt2")),
        "stock": UPSTREAM.join(small_config("bert"), small_decoder_config("bert")),
    }
    for name, model in pairs.items():
        model.save_pretrained(root / name)
    return {name: str(root / name) for name in pairs}


def test_auto_classes_open_each_checkpoint_as_the_chosen_class(folders):
    command = [sys.executable, "-c", _STEPS, json.dumps(folders)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    ours, theirs = ["warmstart"], ["transformers"]
    by_transformers = dict.fromkeys(("native", "stock", "for_model", "stock config"), theirs)
    only_own = by_transformers | {"grafted": ours, "native": ours}
    assert json.loads(run.stdout.splitlines()[-1]) == {
        "import warmstart": by_transformers,
        "import of the model": only_own,
        "all": only_own | {"stock": ours, "for_model": ours},
        "none": by_transformers,
        "own": only_own,
    }


def test_our_class_opens_the_checkpoints_of_both_libraries(folders):
    for folder in folders.values():
        assert isinstance(OURS.config.from_pretrained(folder), OURS.config)
        assert isinstance(OURS.model.from_pretrained(folder), OURS.model)


def test_unknown_value_is_refused():
    with pytest.raises(ValueError, match="own, all, none"):
        warmstart.use_in_auto_classes("ours")
