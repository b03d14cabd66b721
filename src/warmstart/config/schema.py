"""The whole config as typed dataclasses: every key of conf/ is a field, declared with its documentation and bounds.

A config group never names code to run (``_target_``). It becomes a settings object, which plain functions take.
"""

import os
from dataclasses import dataclass, fields, is_dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from warmstart.config.data import DataSettings
from warmstart.config.evaluation import EvaluationSettings, GenerationSettings
from warmstart.config.model import SELECTOR, BridgeSettings, Embeddings, SubmodelSettings, reader_of
from warmstart.config.option import keys_that_change_nothing, option, options
from warmstart.config.serving import ServeSettings
from warmstart.config.training import LoggerSettings, OptimSettings, TrainerSettings
from warmstart.errors import UserError


class Device(StrEnum):
    """The device whose cost ``task=check`` predicts."""

    auto = "auto"
    h100 = "h100"
    a100 = "a100"
    rtx4090 = "rtx4090"
    cpu = "cpu"


class ExportFormat(StrEnum):
    """The format that ``task=export`` writes."""

    safetensors = "safetensors"
    onnx = "onnx"
    ctranslate2 = "ctranslate2"
    torch_export = "torch_export"


@dataclass
class Config:
    """One run."""

    task: str = option(
        "fit",
        changes_result=False,
        doc="What to do: fit, evaluate, summarize, export, replay, demo, serve, report, sbatch or check.",
    )
    seed: int = option(
        1,
        at_least=0,
        at_most=2**32 - 1,
        doc="Seed of untrained weights, data order, dropout, sampling and bootstrap.",
    )
    name: str | None = option(
        None,
        changes_result=False,
        doc="Name of the run, and of its folder in `output_root`. The same command with the same name resumes the run. "
        "null makes a new name from the choices and the time.",
    )
    output_root: str = option("runs", changes_result=False, doc="Folder that holds all runs.")
    ckpt: str | None = option(
        None,
        changes_result=False,
        doc="Checkpoint to use: a folder of a run, a .ckpt file in one, or an exported folder. `last` is the newest "
        "checkpoint of the run `name`.\n\n"
        "A fit resumes it, and needs the same encoder, decoder, bridge and tokenizers. Without `ckpt`, a fit resumes "
        "an unfinished run of the same name and config, and does not repeat a finished one; `new` starts over.\n\n"
        "The tasks evaluate, summarize, export, replay, demo and serve use the settings that the checkpoint recorded. "
        "What the command line sets takes precedence: a group such as `generation=beam` as a whole, a single option "
        "such as `data.max_source_length=256` by itself.",
    )
    ckpt_weights: str | None = option(
        None,
        doc="Run or checkpoint whose weights a fit starts from, with a new optimizer and a new learning-rate schedule: "
        "a folder of a run (its best checkpoint), a .ckpt file in one, or an exported folder.\n\n"
        "Encoder, decoder and cross-attention are taken where both runs define them in the same way. The log lists "
        "what is not taken.",
    )
    input: str | None = option(
        None,
        changes_result=False,
        doc="Texts for `task=summarize`: a text file, a folder of text files, or - for standard input. Files named "
        "`*.summary.txt` are left out. A csv, tsv or jsonl file is a table, with a document in the column "
        "`data.document_column` of each row; the output is the same table with the column `summary` (if that is taken, "
        "`generated_summary`).",
    )
    output: str | None = option(
        None,
        changes_result=False,
        doc="Where summarize, export and report write. If `input` is a folder of texts, `output` is a folder too. null "
        "is standard output for summarize, `export/` in the task's own new run directory for export, and report.html "
        "in the first of `runs` for report.",
    )
    format: ExportFormat = option(
        ExportFormat.safetensors,
        changes_result=False,
        doc="Format that `task=export` writes. `safetensors` opens in warmstart, and in transformers where it can. "
        "`onnx` (extra `onnx`) runs in ONNX Runtime, `ctranslate2` (extra `ctranslate2`) in CTranslate2, and "
        "`torch_export` in torch without warmstart.",
    )
    runs: list[str] = option(
        default_factory=list,
        changes_result=False,
        doc="Folders of runs or sweeps for `task=report`. `sweep=FOLDER` is the same for one folder.\n\n"
        "For `task=demo` the folders of further models on the menu: runs, sweeps or exports. Without them, the menu "
        "has all runs in `output_root`.",
    )
    device: Device = option(
        Device.auto,
        changes_result=False,
        doc="Device for which `task=check` predicts a fit. The speed of a GPU comes from its data sheet; the speed of "
        "this machine's CPU is measured. `auto` is an H100, and this CPU too unless `trainer.accelerator` excludes it. "
        "It does not choose the device of a fit: `trainer.accelerator` does.",
    )
    texts: bool = option(
        True,
        changes_result=False,
        doc="Whether the page of `task=report` contains sources, references and summaries.",
    )
    host: str = option(
        "127.0.0.1",
        changes_result=False,
        doc="Address that `task=demo` listens on. The default accepts only this machine; 0.0.0.0 accepts every machine "
        "that can reach it.",
    )
    port: int = option(
        7860,
        at_least=0,
        at_most=65535,
        changes_result=False,
        doc="Port that `task=demo` listens on. 0 takes any free port.",
    )
    encoder: SubmodelSettings = option(default_factory=SubmodelSettings, doc="Model that reads the source.")
    decoder: SubmodelSettings = option(default_factory=SubmodelSettings, doc="Model that writes the summary.")
    bridge: BridgeSettings = option(
        default_factory=BridgeSettings,
        doc="How encoder and decoder are joined: sharing, freezing, adapters and cross-attention.",
    )
    data: DataSettings = option(default_factory=DataSettings, doc="Texts, and how they become batches.")
    optim: OptimSettings = option(
        default_factory=OptimSettings,
        doc="The optimizer, with a learning rate for each part of the model, its schedule, and the loss.",
    )
    trainer: TrainerSettings = option(
        default_factory=TrainerSettings,
        doc="How long a fit trains, and on which devices.",
    )
    logger: LoggerSettings = option(
        default_factory=LoggerSettings,
        changes_result=False,
        doc="Where metrics are logged. The CSV file is always written.",
    )
    generation: GenerationSettings = option(
        default_factory=GenerationSettings,
        doc="How summaries are generated. Names and definitions are those of transformers' `generate`.",
    )
    evaluation: EvaluationSettings = option(
        default_factory=EvaluationSettings,
        doc="How summaries are scored.",
    )
    serve: ServeSettings = option(
        default_factory=ServeSettings,
        changes_result=False,
        doc="Where `task=serve` listens, how it makes batches, and what it refuses.",
    )


TASKS_ON_A_RUN = ("evaluate", "summarize", "export", "replay", "demo", "serve")
TASKS = ("fit", *TASKS_ON_A_RUN, "report", "sbatch", "check")
GROUPS: dict[str, type] = {
    "encoder": SubmodelSettings,
    "decoder": SubmodelSettings,
    "bridge": BridgeSettings,
    "data": DataSettings,
    "optim": OptimSettings,
    "trainer": TrainerSettings,
    "logger": LoggerSettings,
    "generation": GenerationSettings,
    "evaluation": EvaluationSettings,
}
GROUPS_WITHOUT_CHOICES: dict[str, type] = {"serve": ServeSettings}  # not taken from a checkpoint
GROUPS_OF_MANY = ("experiment", "sweep", "debug")  # their files set options of several groups
OPTIONS = options(Config)
DEFAULTS = {key: str(one.default) for key, one in OPTIONS.items()}  # as text, as reports read recorded options
LISTED = "To list all options: --help-all"
CHANGES_NO_NUMBER = keys_that_change_nothing(Config)


def tokenized_submodels(settings: Config) -> list[tuple[SubmodelSettings, str]]:
    """Return the submodels that have a tokenizer of their own, and their roles.

    A decoder whose embeddings are copied from the encoder, or that selects sentences, has the encoder's.
    """
    both = [(reader_of(settings.encoder, settings.decoder), "encoder"), (settings.decoder, "decoder")]
    one = settings.bridge.embeddings is Embeddings.copy or settings.decoder.model_type == SELECTOR
    return both[:1] if one else both


def docs_of_groups() -> dict[str, str]:
    """Return the documentation of each group, in the order of the config."""
    return {one.name: one.metadata["doc"] for one in fields(Config) if one.name in GROUPS | GROUPS_WITHOUT_CHOICES}


def register() -> None:
    """Register the config with Hydra as ``schema``, the first entry of the defaults in conf/config.yaml.

    The resolver that names the checkpoints of ``encoder=hf`` and ``decoder=hf`` is registered, too.
    """
    OmegaConf.register_new_resolver("checkpoint_name", _checkpoint_name, replace=True)
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    # Hydra 1.3 copies the whole store before each listing of a group, which more than doubles the time of --help. The
    # store can be shared, because it returns copies of its entries.
    type(store).__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


def _checkpoint_name(role: str, *, _parent_: DictConfig) -> str:
    """Return the last part of a submodel's path: ``flan-t5-small`` for ``google/flan-t5-small``."""
    if OmegaConf.is_missing(_parent_, "path"):
        raise UserError(
            f"{role}=hf needs a checkpoint. Set {role}.path to a hub id, such as google/flan-t5-small, or to a folder."
        )
    return os.path.basename(os.path.abspath(os.path.expanduser(str(_parent_.path)))) or role


def to_settings(cfg: DictConfig) -> Config:
    """Return the composed config as typed objects.

    Raises:
        UserError: It has an unknown key. Hydra's ``+`` adds any key, and OmegaConf would silently drop it.
    """
    if unknown := _unknown(cfg):
        raise UserError(unknown_option(unknown))
    settings = OmegaConf.to_object(cfg)
    assert isinstance(settings, Config)
    return settings


def about(key: str) -> str:
    """Return help to append to an error message about the value of an option.

    Args:
        key: The option, a key inside it, or a group.

    Returns:
        One or two sentences that start with a blank: the option's documentation, and how to list all options.
    """
    words = key.split(".")
    parents = {".".join(words[: i + 1]) for i in range(len(words))}
    known = parents & OPTIONS.keys()  # at most one, because options are not nested
    return f" {_described(known.pop())} {LISTED}" if known else f" {LISTED}"


def unknown_option(key: str) -> str:
    """Return the error message about a key that does not exist, with the options and groups of similar names."""
    start = f"There is no option {key}."
    if near := _similar(key):
        return "\n".join([f"{start} Did you mean:", *(f"  {_described(one)}" for one in near), LISTED])
    group = key.rpartition(".")[0]
    if names := list(_options_of(group)):
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        return f"{start} The options of {group}: {', '.join(names[:10])}{more}. {LISTED}"
    return f"{start} {LISTED}"


def _similar(key: str) -> list[str]:
    """Return at most three existing keys: similar ones of the same group, or else of any group."""
    group, _, name = key.rpartition(".")
    same_group = _options_of(group)
    if near := get_close_matches(name, same_group, 3):
        return [same_group[one] for one in near]
    if not same_group and (near := get_close_matches(key, [*OPTIONS, *GROUPS, *GROUPS_OF_MANY], 3, cutoff=0.75)):
        return near
    # The group may be missing or wrong: max_steps, trainer.batch_size.
    names = [one.partition(".")[2] for one in OPTIONS]
    near = get_close_matches(name, names, 1, cutoff=0.75)
    return [one for one in OPTIONS if near and one.partition(".")[2] == near[0]][:3]


def _options_of(group: str) -> dict[str, str]:
    """Return the keys of the options in a group, by their names within it; empty if there is no such group."""
    return {one.removeprefix(f"{group}."): one for one in OPTIONS if group and one.startswith(f"{group}.")}


def _described(key: str) -> str:
    if key in (*GROUPS, *GROUPS_OF_MANY):
        return f"{key} (a group: --help names its choices)"
    one = OPTIONS[key]
    limits = f", {one.bounds}" if one.bounds else ""
    return f"{key} ({one.type}{limits}): {one.summary}"


def _unknown(node: Any, prefix: str = "") -> str | None:
    """Return the first key in or below a typed node for which its dataclass has no field."""
    schema = OmegaConf.get_type(node)
    if not is_dataclass(schema):  # a value, or a mapping that may have any keys
        return None
    known = {one.name for one in fields(schema)}
    for key in map(str, node):
        if key not in known:
            if not (schema is Config and key == "hydra"):
                return prefix + key
        elif OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        elif OmegaConf.is_config(node[key]) and (found := _unknown(node[key], f"{prefix}{key}.")):
            return found
    return None


def plain(cfg: DictConfig | Config) -> dict[str, Any]:
    """Return the config as plain Python values, for checkpoints and loggers."""
    container = OmegaConf.to_container(OmegaConf.structured(cfg), resolve=True, enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
