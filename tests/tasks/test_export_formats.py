"""``task=export format=...`` writes a folder whose card has code that runs as printed."""

import importlib.util
import re
import subprocess
import sys

import pytest
import torch
from huggingface_hub import ModelCard

from warmstart.data.tokenization.pair import TokenizerPair, load_pair
from warmstart.errors import UserError
from warmstart.model.build import build_model
from warmstart.runs.saved_model import SavedModel
from warmstart.tasks import export

SEARCH = ("generation=greedy", "generation.max_new_tokens=12", "generation.min_new_tokens=6")
WORDS = ("debug=tiny", "encoder=bert", *SEARCH, "generation.no_repeat_ngram_size=0", "data.max_source_length=20")
NEEDS = {"onnx": ("onnxscript", "onnxruntime"), "ctranslate2": ("ctranslate2",), "torch_export": ()}


@pytest.fixture
def exported(settings_of, documents, tmp_path):
    """``exported("gpt2")``: the folder of an untrained model that writes different tokens."""

    def make(decoder):
        settings = settings_of(*WORDS, f"decoder={decoder}")
        tokenizers = load_pair(settings.encoder, settings.decoder, lambda: documents)
        sizes = {"encoder_vocab_size": len(tokenizers.source), "decoder_vocab_size": len(tokenizers.target)}
        parts = (settings.encoder, settings.decoder, settings.bridge)
        model = build_model(*parts, special_ids=tokenizers.special_ids(), **sizes).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(8) if parameter.dim() > 1 else parameter.add_(0.3 * torch.randn_like(parameter))
        export.export_model(model, tokenizers, tmp_path / "model", {}, settings)
        return tmp_path / "model"

    return make


@pytest.mark.parametrize(
    ("decoder", "form"),
    [("gpt2", "onnx"), ("gpt2", "ctranslate2"), ("gpt2", "torch_export"), ("smollm2", "torch_export")],
)
def test_the_cards_code_runs_as_printed(decoder, form, exported, settings_of, tmp_path, capsys):
    for name in NEEDS[form]:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"the extra {form} is not installed")
    folder, out = exported(decoder), tmp_path / form
    words = (*WORDS, f"decoder={decoder}", f"ckpt={folder}")
    export.run(settings_of(*words, f"output={out}", f"format={form}"), tmp_path)
    assert capsys.readouterr().out.startswith(f"{out}\nConverted to {form}.")
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == {"torch_export": "pytorch"}.get(form, form)
    (code,) = re.findall(r"```python\n(.*?)```", card.text, flags=re.DOTALL)
    code += "import sys\nassert 'warmstart' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=out, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    model, pair = SavedModel(str(folder)).load().model, TokenizerPair.load(folder)
    (document,) = re.findall(r'document = "(.*)"', code)
    ids = torch.tensor(pair.encode_sources([document], 20))
    found = model.generate(ids, attention_mask=torch.ones_like(ids))
    assert done.stdout.strip() == pair.decode(found[:, 1:])[0]


def test_a_refused_model_leaves_no_folder(exported, settings_of, tmp_path):
    pytest.importorskip("ctranslate2", reason="the extra ctranslate2 is not installed")
    words = (*WORDS, "decoder=smollm2", f"ckpt={exported('smollm2')}", f"output={tmp_path / 'out'}")
    with pytest.raises(UserError, match="grafted onto llama"):
        export.run(settings_of(*words, "format=ctranslate2"), tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is not None, reason="the extra onnx is installed")
def test_a_missing_extra_is_named(exported, settings_of, tmp_path):
    words = (*WORDS, "decoder=gpt2", f"ckpt={exported('gpt2')}", f"output={tmp_path / 'out'}")
    with pytest.raises(UserError, match=r"pip install '\.\[onnx\]'"):
        export.run(settings_of(*words, "format=onnx"), tmp_path)
