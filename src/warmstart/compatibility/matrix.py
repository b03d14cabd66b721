"""Run every check on every cell of the matrix, in worker processes; a cell is a pair of model types."""

import multiprocessing
import signal
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

SECONDS = 60  # time limit of a cell
ENCODER, DECODERS = "bert", ("gpt2", "llama")  # the types that the tested types are paired with


@dataclass
class Cell:
    """A pair of types and its results."""

    side: str
    """``decoder`` or ``encoder``: which of the two is tested."""
    kind: str
    """The tested model type."""
    other: str
    """The partner's model type."""
    by: str = "warmstart"
    """The library whose model class is tested, ``warmstart`` or ``transformers``."""
    joined: str = ""
    """``native`` or ``grafted``; empty if the pair could not be built."""
    refused: str = ""
    """Why the type is refused by its config; empty if it is not."""
    failures: dict[str, str] = field(default_factory=dict)
    """The message of each failed check, by its name."""

    @property
    def clean(self) -> bool:
        """Whether the type is accepted and passes every check."""
        return not self.refused and not self.failures


def cells(decoders: Iterable[str], encoders: Iterable[str], *, upstream: bool = True) -> list[Cell]:
    """Plan the cells: each decoder with a BERT encoder, each encoder with a GPT-2 and a Llama decoder.

    Args:
        decoders: Decoder types to test.
        encoders: Encoder types to test.
        upstream: Whether to test transformers' class too; its encoders only with GPT-2, as it refuses Llama.
    """
    classes = ("warmstart", "transformers") if upstream else ("warmstart",)
    plan = [Cell("decoder", kind, ENCODER, by) for kind in decoders for by in classes]
    plan += [Cell("encoder", kind, other) for kind in encoders for other in DECODERS]
    plan += [Cell("encoder", kind, DECODERS[0], by) for kind in encoders for by in classes[1:]]
    return plan


def run(plan: list[Cell], jobs: int) -> Iterator[Cell]:
    """Yield the cells with their results, in order; a cell that crashes or hangs does not affect the others.

    Args:
        plan: The cells.
        jobs: Number of processes.
    """
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=offline_and_quiet, maxtasksperchild=40) as pool:
        waiting = [(cell, pool.apply_async(try_cell, (asdict(cell),))) for cell in plan]
        for cell, outcome in waiting:
            try:
                yield Cell(**outcome.get(timeout=2 * SECONDS))
            except multiprocessing.TimeoutError:
                cell.failures["build"] = f"no answer within {2 * SECONDS} s: the process crashed or hangs"
                yield cell


def offline_and_quiet() -> None:
    """Prepare a worker process: offline, one thread, only errors logged."""
    warnings.filterwarnings("ignore")
    import torch
    import transformers
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # too late for the environment, which is read at import
    torch.set_num_threads(1)
    logging: Any = transformers.logging  # its functions have no types
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def try_cell(given: dict[str, Any]) -> dict[str, Any]:
    """Build and check one pair, within the time limit.

    Args:
        given: The cell as a dict.

    Returns:
        The cell with its results as a dict.
    """
    cell = Cell(**given)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(SECONDS)
    try:
        _judge(cell)
    except Exception as error:  # noqa: BLE001 - any error of a model type is its result
        cell.failures["build"] = _summary(error)
    finally:
        signal.alarm(0)
    return asdict(cell)


def _judge(cell: Cell) -> None:
    import torch
    import transformers

    import warmstart
    from warmstart.compatibility.checks import CHECKS, IDS, Pair, sources, targets
    from warmstart.compatibility.tiny_configs import tiny_config
    from warmstart.model.decoders import REFUSED, decoder_class
    from warmstart.model.encoders import encoder_class

    library: Any = warmstart if cell.by == "warmstart" else transformers
    kinds = (cell.other, cell.kind) if cell.side == "decoder" else (cell.kind, cell.other)
    if cell.side == "decoder" and cell.by == "warmstart":
        if cell.kind in REFUSED:
            cell.refused = REFUSED[cell.kind]
            return
        try:
            decoder_class(transformers.AutoConfig.for_model(cell.kind))
        except ValueError as error:
            cell.refused = str(error)
            return
    encoder, decoder = tiny_config(kinds[0]), tiny_config(kinds[1])
    if cell.by == "warmstart":
        try:
            encoder_class(encoder)
        except ValueError as error:
            cell.refused = str(error)
            return

    def build() -> Any:
        torch.manual_seed(0)
        config = library.EncoderDecoderConfig.from_encoder_decoder_configs(
            encoder, decoder, **IDS, initializer_range=0.3
        )
        model = library.EncoderDecoderModel(config=config).eval()
        for name, parameter in model.named_parameters():
            if name.endswith(".gate"):
                torch.nn.init.constant_(parameter, 0.5)
        return model

    model = build()
    grafted = getattr(model.config, "graft", None) is not None
    cell.joined = "grafted" if grafted else "native"
    pair = Pair(model, sources(), targets(), build)
    for name, check in CHECKS.items():
        if (name == "step zero" and not grafted) or (name == "training loss" and cell.by != "warmstart"):
            continue
        if name == "left padding" and cell.side == "decoder":  # depends only on the encoder, the same in every cell
            continue
        try:
            check(pair)
        except Exception as error:  # noqa: BLE001 - a type that fails one check may pass the next
            cell.failures[name] = _summary(error)


def _summary(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    kind = type(error).__name__
    return first[:160] if kind == "Unsound" else f"{kind}: {first[:140]}"


def _out_of_time(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")
