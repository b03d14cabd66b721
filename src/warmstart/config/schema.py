"""The whole config, typed: every key of conf/ is a field of one of these dataclasses, documented where it stands.

No group names code to run: its keys become its settings object, and plain functions take that.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from enum import StrEnum
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from warmstart.config.data import DataSettings
from warmstart.config.evaluation import EvaluationSettings, GenerationSettings
from warmstart.config.model import BridgeSettings, HalfSettings
from warmstart.config.training import LoggerSettings, OptimSettings, TrainerSettings
from warmstart.errors import UserError


class Device(StrEnum):
    auto = "auto"
    h100 = "h100"
    a100 = "a100"
    rtx4090 = "rtx4090"
    cpu = "cpu"


@dataclass
class Config:
    """One run."""

    task: str = "fit"
    """fit, evaluate, summarize, export, replay, demo, report, sbatch or check."""
    seed: int = 1
    """Seed of weights that no checkpoint gave, data order, dropout and bootstrap."""
    name: str | None = None
    """Name of the run and of its folder under ``output_root``; null makes one from the choices and the time."""
    output_root: str = "runs"
    """Folder of all runs."""
    ckpt: str | None = None
    """A run directory, a .ckpt file in one, or an exported folder; ``last`` is ``name``'s last checkpoint.

    fit resumes it, with the same encoder, decoder, bridge and tokenizers; without, it resumes a run of the same name
    and config that was not finished and leaves a finished one as it is, and ``new`` starts over. evaluate, summarize
    and export go by the settings recorded in it, but for what the command line names: a group such as
    ``generation=beam`` whole, a key such as ``data.max_source_length=256`` alone.
    """
    ckpt_weights: str | None = None
    """fit: a run directory (its best checkpoint), a .ckpt file in one, or an exported folder to take the weights from.

    A second stage of training: the weights only, with a new optimizer and schedule. Encoder, decoder and
    cross-attention are taken where they are the same in both runs; the log lists what is not taken.
    """
    input: str | None = None
    """summarize: a text file, a folder of them (but for *.summary.txt), or - for standard input."""
    output: str | None = None
    """summarize, export, report: where to write; null is standard output, the run's export folder, or report.html in
    the first of ``runs``. A folder of texts gives a folder."""
    runs: list[str] = field(default_factory=list)
    """report: folders of runs or sweeps; ``sweep=FOLDER`` is the same for one."""
    device: Device = Device.auto
    """check: what the fit is predicted for: h100, a100, rtx4090 (by their data sheets), cpu (this one, measured).

    auto is an H100, and this CPU where ``trainer.accelerator`` leaves it open. It says nothing about where a fit runs.
    """
    texts: bool = True
    """report: whether documents, references and summaries are in the page."""
    host: str = "127.0.0.1"
    """demo: the address to listen on; the default serves this machine alone, 0.0.0.0 every one that reaches it."""
    port: int = 7860
    """demo: the port to listen on; 0 takes any that is free."""
    encoder: HalfSettings = field(default_factory=HalfSettings)
    decoder: HalfSettings = field(default_factory=HalfSettings)
    bridge: BridgeSettings = field(default_factory=BridgeSettings)
    data: DataSettings = field(default_factory=DataSettings)
    optim: OptimSettings = field(default_factory=OptimSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    logger: LoggerSettings = field(default_factory=LoggerSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


GROUPS: dict[str, type] = {
    "encoder": HalfSettings,
    "decoder": HalfSettings,
    "bridge": BridgeSettings,
    "data": DataSettings,
    "optim": OptimSettings,
    "trainer": TrainerSettings,
    "logger": LoggerSettings,
    "generation": GenerationSettings,
    "evaluation": EvaluationSettings,
}


def register() -> None:
    """Make the schema known to Hydra as ``schema``, the first entry of conf/config.yaml's defaults."""
    store = ConfigStore.instance()
    store.store(name="schema", node=Config)
    # Hydra 1.3 copies the whole store before each listing of a group, 105 times for --help: 1.0 s instead of 0.4 s.
    # One store serves all, because it gives out copies.
    type(store).__deepcopy__ = lambda self, memo: self  # type: ignore[attr-defined]


def to_settings(cfg: DictConfig) -> Config:
    """The composed config as typed objects.

    Raises:
        UserError: it has a key that is none of ours: Hydra's + adds any, and OmegaConf would drop it without a word.
    """
    if unknown := _unknown(cfg):
        raise UserError(f"There is no key {unknown}. Every key: src/warmstart/config/schema.py, or --cfg job.")
    settings = OmegaConf.to_object(cfg)
    assert isinstance(settings, Config)
    return settings


def _unknown(node: Any, prefix: str = "") -> str | None:
    """The first key in or below a typed node that its dataclass has no field for."""
    schema = OmegaConf.get_type(node)
    if not is_dataclass(schema):  # a value, or a mapping that is free
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
    """The config as plain Python values, for checkpoints and loggers."""
    container = OmegaConf.to_container(OmegaConf.structured(cfg), resolve=True, enum_to_str=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}
