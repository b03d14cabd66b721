"""The interface of the fast path for CPUs; when it is disabled, none of its modules is imported."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import warmstart
from warmstart import cpu

WORK = """
import json, sys
import torch
from tiny import IDS, OURS, small_config, small_decoder_config, source, target
from warmstart import EncoderDecoderConfig, EncoderDecoderModel

encoder, llama = small_config("bert", 64), small_decoder_config("llama", num_key_value_heads=2, head_dim=32)
graft = {"gate": "none", "every_n_layers": 1}
config = EncoderDecoderConfig(encoder=encoder, decoder=llama, graft=graft, **IDS)
torch.manual_seed(0)
models = {
    "native": OURS.join(encoder, small_decoder_config("gpt2", width=64, n_head=2), pad_token_id=3),
    "grafted": EncoderDecoderModel(config).eval(),
}
results = {}
for name, model in models.items():
    results[name] = [
        model.generate(**source(batch_size=5), max_new_tokens=12, **search).tolist()
        for search in ({"num_beams": 3}, {})
    ]
    model.train().training_loss(**source(), labels=target()).mean.backward()
import warmstart

results["built"] = warmstart.build_cpu_kernels()
results["kept"] = warmstart.keep_freed_memory()
results["modules"] = sorted(name for name in sys.modules if name.startswith("warmstart.cpu"))
print(json.dumps(results))
"""


def work(**environment):
    paths = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", WORK],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_disabled_fast_path_is_not_imported_and_ids_are_equal():
    without, plain = work(WARMSTART_CPU="0"), work()
    assert without["modules"] == ["warmstart.cpu"]
    assert "warmstart.cpu.kernels" in plain["modules"]
    assert not without["built"]
    assert not without["kept"]
    for name in ("native", "grafted"):
        assert without[name] == plain[name]


def test_other_packages_import_only_the_interface():
    source = Path(warmstart.__file__).parent
    outside = [path for path in source.rglob("*.py") if path.parent.name != "cpu"]
    assert len(outside) > 100
    inside = re.compile(r"(from|import) warmstart\.cpu\.|\bcpu import (?!build as|keep_freed)")
    assert [path for path in outside if inside.search(path.read_text())] == []


def test_cpu_is_an_attribute_of_the_package():
    assert warmstart.cpu is cpu
    assert warmstart.build_cpu_kernels is cpu.build
    assert warmstart.keep_freed_memory is cpu.keep_freed_memory


def test_accelerate_changes_both_submodels():
    joined = nn.Module()
    joined.encoder, joined.decoder = (pretrained() for _ in range(2))
    cpu.accelerate(joined)
    for submodel in (joined.encoder, joined.decoder):
        assert submodel.config._attn_implementation == "sdpa_lean_dropout"
        assert not [module for module in submodel.modules() if type(module) is nn.Dropout]


def pretrained():
    from tiny import small_config
    from transformers import BertModel

    return BertModel(small_config("bert"))


def test_best_candidates_and_log_probabilities_equal_torch():
    logits = torch.randn(3, 9000)
    for found, wanted in zip(cpu.best_candidates(logits, 4, ties_as_topk=True), logits.topk(4), strict=True):
        assert torch.equal(found, wanted)
    torch.testing.assert_close(cpu.log_probabilities(logits), torch.log_softmax(logits, dim=-1))


def test_decoding_is_undone_after_an_error():
    joined = nn.Module()
    joined.decoder = pretrained()
    with cpu.decoding(joined):
        assert any("forward" in vars(module) for module in joined.modules())
    with pytest.raises(RuntimeError, match="on purpose"), cpu.decoding(joined):
        raise RuntimeError("on purpose")
    assert not any("forward" in vars(module) for module in joined.modules())
    assert joined.decoder.config._attn_implementation == "sdpa"
