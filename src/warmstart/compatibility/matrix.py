"""One cell of the matrix, a pair of types put through every check; and all cells, in processes of their own."""

import multiprocessing
import signal
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

SECONDS = 60  # for one cell
ENCODER, DECODERS = "bert", ("gpt2", "llama")  # what the other half is held against


@dataclass
class Cell:
    """A pair on trial: ``side`` says which half the row of the page is about, ``by`` whose class it is."""

    side: str
    kind: str
    other: str
    by: str = "warmstart"
    joined: str = ""
    """``native`` or ``grafted``, empty where the pair could not be built."""
    refused: str = ""
    """Why the type is refused from its config alone."""
    faults: dict[str, str] = field(default_factory=dict)
    """What each failed check found."""

    @property
    def clean(self) -> bool:
        return not self.refused and not self.faults


def cells(decoders: Iterable[str], encoders: Iterable[str], *, upstream: bool = True) -> list[Cell]:
    """The cells of a run: each decoder behind BERT, each encoder before GPT-2 and Llama, ours and transformers'."""
    classes = ("warmstart", "transformers") if upstream else ("warmstart",)
    plan = [Cell("decoder", kind, ENCODER, by) for kind in decoders for by in classes]
    plan += [Cell("encoder", kind, other) for kind in encoders for other in DECODERS]
    plan += [Cell("encoder", kind, DECODERS[0], by) for kind in encoders for by in classes[1:]]
    return plan


def run(plan: list[Cell], jobs: int) -> Iterator[Cell]:
    """The cells with their results, in order; one that crashes or hangs takes no other with it."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, initializer=offline_and_quiet, maxtasksperchild=40) as pool:
        waiting = [(cell, pool.apply_async(try_cell, (asdict(cell),))) for cell in plan]
        for cell, outcome in waiting:
            try:
                yield Cell(**outcome.get(timeout=2 * SECONDS))
            except multiprocessing.TimeoutError:
                cell.faults["build"] = f"no answer within {2 * SECONDS} s: the process crashed or hangs"
                yield cell


def offline_and_quiet() -> None:
    """Prepare a process of the matrix: no hub, one thread, errors only."""
    warnings.filterwarnings("ignore")
    import torch
    import transformers
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # the environment is read at import, which the main module has done by now
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def try_cell(given: dict[str, Any]) -> dict[str, Any]:
    """Build and check one pair."""
    cell = Cell(**given)
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(SECONDS)
    try:
        _judge(cell)
    except Exception as error:  # whatever a model type raises is its result
        cell.faults["build"] = _said(error)
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
        if name == "left padding" and cell.side == "decoder":  # is the encoder's affair, the same in every row
            continue
        try:
            check(pair)
        except Exception as error:  # a type that cannot do one thing may do the next
            cell.faults[name] = _said(error)


def _said(error: Exception) -> str:
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    kind = type(error).__name__
    return first[:160] if kind == "Unsound" else f"{kind}: {first[:140]}"


def _out_of_time(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")
