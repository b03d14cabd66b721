"""A folder that others can open: safetensors, both tokenizers, generation config and a model card.

    python run.py task=export ckpt=runs/demo output=my-model

Opens with ``warmstart.EncoderDecoderModel.from_pretrained`` and with transformers' own class.
"""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from warmstart.app.loading import load_trained, scored_checkpoint
from warmstart.app.recorded import OF_EXPORT, recorded_parameters
from warmstart.app.schema import Config, plain
from warmstart.atomic import new_folder, replacing_folder
from warmstart.errors import UserError
from warmstart.printing import say


def run(settings: Config, run_dir: Path) -> None:
    """Export ``ckpt`` to ``output``, or to ``export`` in the run directory."""
    from warmstart.evaluation.result import read_result

    if settings.ckpt is None:
        raise UserError("task=export needs ckpt=: a run directory or a .ckpt file.")
    model, tokenizers, home = load_trained(settings.ckpt)
    result = read_result(home) if (home / "result.json").exists() else {}
    scored = result.get("checkpoint")
    if scored is not None and scored != scored_checkpoint(settings.ckpt):  # of another checkpoint of the run
        result = {}
    if parameters := recorded_parameters(settings.ckpt):
        result = {"parameters": parameters} | result
    folder = Path(settings.output) if settings.output else run_dir / "export"
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"output={folder} exists and is not empty. Name a new folder.")
    try:
        export_model(model, tokenizers, folder, result, settings, replace=False)
    except FileExistsError as error:
        raise UserError(
            f"output={folder} was requested, but another process wrote there in the meantime. Name a new folder."
        ) from error
    say(folder)


def export_model(
    model: Any, tokenizers: Any, folder: Path, result: dict[str, Any], settings: Config, *, replace: bool = True
) -> None:
    """Write the folder whole, replacing an earlier export.

    Raises:
        FileExistsError: with ``replace`` false, another process has written there.
    """
    from warmstart.evaluation.model_card import model_card
    from warmstart.model.lora import merge_lora

    merge_lora(model)
    config = plain(settings)
    # What it is and what summarizes as the run did; no local paths, which are a machine's own.
    record = {name: config[name] for name in ("seed", "bridge", "generation")}
    record["data"] = {name: config["data"][name] for name in ("max_source_length", "max_target_length", "clean")}
    for role in ("encoder", "decoder"):
        places = {name: config[role][name] for name in ("path", "tokenizer") if config[role][name]}
        local = {name: Path(place).name for name, place in places.items() if Path(place).exists()}
        record[role] = config[role] | local
    if "parameters" in result:
        record["parameters"] = result["parameters"]
    with (replacing_folder if replace else new_folder)(folder) as partial:
        model.save_pretrained(partial)
        tokenizers.save(partial)
        (partial / OF_EXPORT).write_text(OmegaConf.to_yaml(OmegaConf.create(record)), encoding="utf-8")
        (partial / "README.md").write_text(model_card(result), encoding="utf-8")
