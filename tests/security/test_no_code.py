"""Nothing of a model becomes code: no checkpoint, no record in it, no export, no tokenizer."""

import json
import shutil

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.errors import UserError
from warmstart.model.build import build_model
from warmstart.model.submodel_config import submodel_config
from warmstart.runs.checkpoint_io import AtomicCheckpointIO
from warmstart.runs.load import load_trained
from warmstart.runs.recorded import with_recorded


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickle_in_a_checkpoint_is_not_run(tiny_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    file = run / "checkpoints" / "best.ckpt"
    good = torch.load(file, weights_only=True)
    for place in ({"hyper_parameters": Evil(tmp_path / "owned")}, {"state_dict": {"x": Evil(tmp_path / "owned")}}):
        torch.save(good | place, file)
        with pytest.raises(UserError, match=r"best\.ckpt is damaged or was not written by warmstart"):
            load_trained(str(run))
        with pytest.raises(UserError, match="holds code in addition to data"):
            AtomicCheckpointIO().load_checkpoint(file, weights_only=False)
    assert not (tmp_path / "owned").exists()


def test_a_pickle_in_place_of_safetensors_is_not_run(tiny_run, tmp_path, settings_of):
    export = tmp_path / "export"
    shutil.copytree(tiny_run / "export", export)
    (export / "model.safetensors").unlink()
    torch.save({"x": Evil(tmp_path / "owned")}, export / "pytorch_model.bin")
    with pytest.raises(UserError, match="is damaged or was not written by warmstart"):
        load_trained(str(export))
    torch.save(
        load_file(tiny_run / "export" / "model.safetensors"), export / "pytorch_model.bin"
    )  # a harmless one, too
    with pytest.raises(UserError, match="is damaged or was not written by warmstart"):
        load_trained(str(export))
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 1, "vocab_size": 600}))
    torch.save({"x": Evil(tmp_path / "owned")}, half / "pytorch_model.bin")
    settings = settings_of("debug=tiny", f"encoder.path={half}", "encoder.weights=pretrained", "encoder.scale=full")
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    sizes = {"encoder_vocab_size": 600, "decoder_vocab_size": 500}
    with pytest.raises(UserError, match="cannot be read"):
        build_model(settings.encoder, settings.decoder, settings.bridge, special_ids=ids, **sizes)
    assert not (tmp_path / "owned").exists()


def write_module(folder, owned):
    """Code that a checkpoint brings along."""
    folder.joinpath("evil.py").write_text(f"open({str(owned)!r}, 'w')\nclass Evil: pass\n")


def test_remote_code_cannot_be_switched_on_by_a_checkpoint(tiny_run, tmp_path):
    export = tmp_path / "export"
    shutil.copytree(tiny_run / "export", export)
    autos = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
    on = {"auto_map": dict.fromkeys(autos, "evil.Evil"), "trust_remote_code": True}
    tokenizers = (export / "encoder_tokenizer", export)
    for folder in tokenizers:
        write_module(folder, tmp_path / "owned")
    config = json.loads((export / "config.json").read_text())
    for part in (config, config["encoder"], config["decoder"]):
        part |= on
    (export / "config.json").write_text(json.dumps(config))
    for folder in tokenizers:
        file = folder / "tokenizer_config.json"
        evil = {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "trust_remote_code": True}
        file.write_text(json.dumps(json.loads(file.read_text()) | evil | {"tokenizer_class": "Evil"}))
    for load in (load_trained, TokenizerPair.load):
        try:
            load(str(export))
        except UserError as error:
            assert "tokenizer" in str(error)  # noqa: PT017
    assert not (tmp_path / "owned").exists()


def test_attention_from_a_hub_is_refused(tiny_run, tmp_path, settings_of):
    export = tmp_path / "export"
    shutil.copytree(tiny_run / "export", export)
    config = json.loads((export / "config.json").read_text())
    # The joint config's word counts for both halves: what stands in a half's own part is overwritten.
    (export / "config.json").write_text(json.dumps(config | {"attn_implementation": "somebody/kernel"}))
    with pytest.raises(UserError, match=r"somebody/kernel.*code from a hub"):
        load_trained(str(export))
    config["encoder"]["attn_implementation"] = config["decoder"]["attn_implementation"] = "somebody/kernel"
    (export / "config.json").write_text(json.dumps(config))
    model, _, _ = load_trained(str(export))
    assert model.encoder.config._attn_implementation == model.decoder.config._attn_implementation == "sdpa"
    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text(json.dumps({"model_type": "bert", "attn_implementation": "somebody/kernel"}))
    settings = settings_of("debug=tiny", f"encoder.path={half}", "encoder.weights=pretrained", "encoder.scale=full")
    with pytest.raises(UserError, match=r"somebody/kernel.*code from a hub"):
        submodel_config(settings.encoder, "encoder")


def test_a_record_cannot_read_this_machines_environment(tiny_run, tmp_path, settings_of, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "canary")
    export = tmp_path / "export"
    shutil.copytree(tiny_run / "export", export)
    (export / "run_config.yaml").write_text("data: {path: '${oc.env:HF_TOKEN}', max_source_length: 20}\n")
    with pytest.raises(UserError, match=r"data\.path is an interpolation"):
        with_recorded(OmegaConf.structured(settings_of("debug=tiny", f"ckpt={export}")), [])
    # Where a checkpoint's own machine kept its cache is no place to write to here.
    (export / "run_config.yaml").write_text(f"data: {{cache_dir: {tmp_path / 'elsewhere'}}}\n")
    merged = with_recorded(OmegaConf.structured(settings_of("debug=tiny", f"ckpt={export}")), [])
    assert merged.data.cache_dir == str(tmp_path / "cache")


def test_a_record_is_settings_and_names_no_code(tiny_run, tmp_path, settings_of):
    """Of what a run or an export recorded only our own groups are taken: nothing of it reaches Hydra."""
    export, owned = tmp_path / "export", tmp_path / "owned"
    shutil.copytree(tiny_run / "export", export)
    made = {"_target_": "builtins.open", "file": str(owned), "mode": "w"}
    record = OmegaConf.to_container(OmegaConf.load(export / "run_config.yaml"))
    record |= {"hydra": {"callbacks": {"x": made}, "job": {"env_set": {"PATH": str(tmp_path)}}}, "x": made}
    (export / "run_config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(record)))
    merged = with_recorded(OmegaConf.structured(settings_of("debug=tiny", f"ckpt={export}")), [])
    assert "hydra" not in merged
    assert "x" not in merged
    load_trained(str(export))
    record["data"]["x"] = made
    (export / "run_config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(record)))
    with pytest.raises(UserError, match="settings cannot be read"):
        with_recorded(OmegaConf.structured(settings_of("debug=tiny", f"ckpt={export}")), [])
    assert not owned.exists()
