"""No checkpoint, tokenizer or config runs code of its own, whatever it says about itself."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from warmstart import EncoderDecoderModel
from warmstart.config.model import SubmodelSettings
from warmstart.errors import UserError
from warmstart.model.submodel_config import submodel_config
from warmstart.runs.load import load_trained

RUN = Path(__file__).parents[2] / "run.py"
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 20}


class Evil:
    """Pickles as a command."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def half(tmp_path):
    """A half's folder whose config and tokenizer point to code that leaves a mark."""
    folder, mark = tmp_path / "half", tmp_path / "was_run"
    BertModel(BertConfig(**TINY)).save_pretrained(folder)
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((folder / "config.json").read_text())
    own = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "evil.Evil")
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": own, "trust_remote_code": True}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}))
    return folder, mark


def test_code_beside_a_half_is_never_run(half):
    folder, mark = half
    submodel_config(SubmodelSettings("half", str(folder), "bert"), "encoder")
    EncoderDecoderModel.from_encoder_decoder_pretrained(str(folder), str(folder))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "evil"}))
    with pytest.raises((UserError, ValueError)):
        submodel_config(SubmodelSettings("half", str(folder), "evil"), "encoder")
    assert not mark.exists()


def test_pickled_weights_are_never_run(half, tmp_path):
    folder, mark = half
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Evil(mark)}))
    with pytest.raises(Exception, match=r"."):
        EncoderDecoderModel.from_encoder_decoder_pretrained(str(folder), str(folder))
    torch.save({"hyper_parameters": Evil(mark)}, tmp_path / "evil.ckpt")
    with pytest.raises(UserError, match="damaged or was not written by warmstart"):
        load_trained(str(tmp_path / "evil.ckpt"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "word",
    [
        "encoder._target_=os.system",
        "+encoder._target_=os.system",
        "+optim={_target_:os.system,command:id}",
        "+trainer.extra._target_=os.system",
        "hydra.sweeper._target_=os.system",
        "hydra.launcher._target_=os.system",
    ],
)
def test_an_override_names_no_code(word, tmp_path):
    """Our own keys have no place for it; Hydra takes launchers and sweepers from its plugins alone."""
    mark = tmp_path / "was_run"
    command = [sys.executable, RUN, "-m", "task=check", "debug=tiny", word, "seed=1,2", f"name={mark}"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert outcome.returncode != 0
    assert "uid=" not in outcome.stdout
