"""Export a trained model to a folder: safetensors, both tokenizers, generation config and a model card.

    python run.py task=export ckpt=runs/demo output=my-model
    python run.py task=export ckpt=runs/demo output=my-model format=onnx

``EncoderDecoderModel.from_pretrained`` opens the folder. transformers' own class opens it too, if it computes the
same. ``generate`` uses the run's search. ``AutoTokenizer.from_pretrained`` opens the decoder's tokenizer.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from warmstart.atomic import new_folder, replacing_folder
from warmstart.config.evaluation import LengthPenaltyKind
from warmstart.config.schema import OPTIONS, Config, ExportFormat, plain
from warmstart.errors import UserError
from warmstart.printing import say
from warmstart.runs.load import check_search, refuse_nonfinite
from warmstart.runs.run_dir import RunDir
from warmstart.runs.saved_model import OF_EXPORT, SavedModel
from warmstart.tasks.check import validate_numbers

if TYPE_CHECKING:
    from warmstart.runs.model_card import Use

_OF_MARKS = ("source_form", "target_form")
_OF_READING = ("source_windows", "window_overlap", "truncation", "prompt", "prompt_as_chat", "start_tokens", *_OF_MARKS)
_OF_TEXTS = ("max_source_length", "max_target_length", "clean", "language", *_OF_READING)


def run(settings: Config, run_dir: Path, saved: SavedModel | None = None) -> None:
    """Export ``ckpt`` to ``output``, or to ``export/`` in the run directory.

    Args:
        settings: the config of the task.
        run_dir: the run directory.
        saved: the model that ``ckpt`` names, if the caller has opened it.

    Raises:
        UserError: there is no ``ckpt``, it cannot be loaded, its weights are not finite, or the folder is not empty.
    """
    if settings.ckpt is None:
        raise UserError("task=export needs ckpt=: a run directory, a .ckpt file or an exported folder.")
    validate_numbers(settings)
    saved = saved or SavedModel(settings.ckpt)
    model, tokenizers, home = saved.load()
    refuse_nonfinite(f"ckpt={settings.ckpt}", model)
    scored_run = RunDir(home)
    result = scored_run.read_result() if scored_run.result.exists() else {}
    scored = result.get("checkpoint")
    if scored is not None and scored != saved.identity:  # the scores are of another checkpoint
        result = {}
    if parameters := saved.parameters:
        result = {"parameters": parameters} | result
    folder = Path(settings.output) if settings.output else RunDir(run_dir).export
    check_search(settings, model)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"output={folder} exists and is not empty. Name a new folder.")
    other_format = settings.format is not ExportFormat.safetensors
    try:
        if other_format:
            convert_model(model, tokenizers, folder, result, settings)
        else:
            use = export_model(model, tokenizers, folder, result, settings, replace=False)
    except FileExistsError as error:
        raise UserError(
            f"output={folder} was requested, but another process wrote there in the meantime. Name a new folder."
        ) from error
    say(folder)
    opens = f"Converted to {settings.format.value}." if other_format else use.opens()
    say(f"{opens} {folder / 'README.md'} shows how.")


def export_model(
    model: Any, tokenizers: Any, folder: Path, result: dict[str, Any], settings: Config, *, replace: bool = True
) -> "Use":
    """Write a model, its tokenizers and its card to a folder, completely or not at all.

    Changes ``model``: its LoRA adapters are merged, and its generation config is set from ``settings``.

    Args:
        model: the model.
        tokenizers: its ``TokenizerPair``.
        folder: the folder to write.
        result: the contents of ``result.json``, for the card; empty if the model was not evaluated.
        settings: the config of the run.
        replace: whether to replace an existing folder.

    Returns:
        How to open the exported model.

    Raises:
        FileExistsError: ``replace`` is false and the folder is not empty.
    """
    from warmstart.model.bridge.lora import merge_lora
    from warmstart.model.opening import opens_in_transformers
    from warmstart.runs.card_metadata import hub_ids
    from warmstart.runs.model_card import Use, model_card

    merge_lora(model)
    _set_search(model, tokenizers, settings)
    transformers_opens = opens_in_transformers(model) and not _reads(settings)
    use = Use(
        transformers_opens=transformers_opens,
        model_class=type(model).__name__,
        max_source_length=_longest_source(model, settings),
        reads=_reads(settings),
        dtype=settings.generation.dtype.value,
        clean=tuple(settings.data.clean),
        base_models=hub_ids(settings),
        not_applied=_not_applied(settings, transformers_opens=transformers_opens),
    )
    config = plain(settings)
    # The settings that describe the model and its summaries. Of local paths, only the last component: the rest would
    # reveal this machine's folders.
    record = {name: config[name] for name in ("seed", "bridge", "generation")}
    record["data"] = {name: config["data"][name] for name in _OF_TEXTS}
    for role in ("encoder", "decoder"):
        paths = {name: config[role][name] for name in ("path", "tokenizer") if config[role][name]}
        local = {name: Path(path).name for name, path in paths.items() if Path(path).exists()}
        record[role] = config[role] | local
    if "parameters" in result:
        record["parameters"] = result["parameters"]
    with (replacing_folder if replace else new_folder)(folder) as partial:
        model.save_pretrained(partial)
        tokenizers.save(partial)
        (partial / OF_EXPORT).write_text(OmegaConf.to_yaml(OmegaConf.create(record)), encoding="utf-8")
        (partial / "README.md").write_text(model_card(result, use), encoding="utf-8")
    return use


def convert_model(model: Any, tokenizers: Any, folder: Path, result: dict[str, Any], settings: Config) -> None:
    """Write a model in ``settings.format``, with its tokenizers and its card, to a new folder.

    Changes ``model``: its LoRA adapters are merged.

    Args:
        model: the model, in float32.
        tokenizers: its ``TokenizerPair``.
        folder: the folder to write.
        result: the contents of ``result.json``, for the card; empty if the model was not evaluated.
        settings: the config of the run.

    Raises:
        UserError: the model cannot be converted, or the format's extra is not installed.
        FileExistsError: the folder is not empty.
    """
    if reads := _reads(settings):
        raise UserError(
            f"format={settings.format.value} was requested, but the model was trained with {', '.join(reads)}, which "
            "this format cannot do. Leave format= out."
        )
    from warmstart.convert.formats import Search, convert
    from warmstart.model.bridge.lora import merge_lora
    from warmstart.runs.card_metadata import hub_ids
    from warmstart.runs.model_card import Use, model_card

    merge_lora(model)
    search = Search(settings.generation, _longest_source(model, settings))
    with new_folder(folder) as partial:
        converted = convert(settings.format, model, tokenizers, partial, search)
        tokenizers.save(partial)
        use = Use(
            transformers_opens=False,
            max_source_length=search.max_source_length,
            clean=tuple(settings.data.clean),
            base_models=hub_ids(settings),
            converted=converted,
        )
        (partial / "README.md").write_text(model_card(result, use), encoding="utf-8")


def _reads(settings: Config) -> tuple[str, ...]:
    """Return the options by which the model reads more than the first tokens of a text, with their values."""
    values = plain(settings)["data"]
    changed = (name for name in _OF_READING if values[name] != OPTIONS[f"data.{name}"].default)
    return tuple(f"data.{name}={values[name]}" for name in changed)


def _not_applied(settings: Config, *, transformers_opens: bool) -> tuple[str, ...]:
    """Return the options of the search that a loaded model's ``generate`` does not apply by itself, with their values.

    No generation config can hold a logits processor, and transformers' class has no other length penalties.
    """
    search = settings.generation
    found = []
    if search.no_repeat_word_ngram_size:
        found.append(f"generation.no_repeat_word_ngram_size={search.no_repeat_word_ngram_size}")
    is_own = search.num_beams > 1 and search.length_penalty_kind is not LengthPenaltyKind.transformers
    if is_own and transformers_opens:
        found.append(f"generation.length_penalty_kind={search.length_penalty_kind.value}")
    return tuple(found)


def _set_search(model: Any, tokenizers: Any, settings: Config) -> None:
    """Write the search into the model's generation config, which cannot hold blocked n-grams of words."""
    from warmstart.evaluation.summarize import generation_kwargs

    search = generation_kwargs(settings.generation, tokenizers)
    kind = search.get("length_penalty_kind", "transformers")
    if kind != "transformers":  # no field of transformers' class, which keeps it as an attribute
        model.generation_config.length_penalty_kind = kind
    model.generation_config.update(**search)


def _longest_source(model: Any, settings: Config) -> int:
    from warmstart.model.submodel_config import maximum_positions

    return min(settings.data.max_source_length, maximum_positions(model.config.encoder) or 10**9)
