"""What ``--help``, ``--help-all`` and ``--version`` print.

``--help`` fits on one screen. ``--help-all`` describes every choice and every option.
"""

import platform
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from textwrap import TextWrapper

import yaml
from hydra.core.global_hydra import GlobalHydra

from warmstart import __version__
from warmstart.config.reference import listing
from warmstart.printing import program

WIDTH = 100
_INTRODUCTION = """\
Join any pretrained encoder with any pretrained decoder, fine-tune the pair, and score it.
"""
_TASKS = {
    "fit": "train, score the best checkpoint on the test split, export it (the default task)",
    "check": "list every invalid setting; predict the memory and time of a fit; train nothing",
    "evaluate": "score a trained model on the test split",
    "summarize": "summarize a file, a folder or standard input",
    "export": "write a folder with model, tokenizers and model card",
    "demo": "serve a page on this machine to paste a text into",
    "serve": "serve summaries over HTTP, for other programs",
    "report": "write one HTML page that compares runs",
    "replay": "find the module that first produced a number that is not finite",
    "sbatch": "print a SLURM script for a fit, or with -m for a sweep",
}
_EXAMPLES = (
    "debug=tiny                                            # try it: offline, in seconds",
    "task=check encoder=bert decoder=gpt2 data=files data.path=my.csv",
    "encoder=bert decoder=gpt2 data=files data.path=my.csv name=first",
    "task=summarize ckpt=runs/first input=article.txt",
    "-m encoder=bert,roberta decoder=bert,gpt2 seed=1,2    # a sweep of eight runs",
)
_END = """\
Any other checkpoint: encoder=hf encoder.path=HUB_ID_OR_FOLDER, and the same for the decoder.
--help-all describes all choices and options, --cfg job prints all values, --version the versions.
--hydra-help explains other flags, as -m. Tab key in bash: eval "$(warmstart -sc install=bash)"."""
_GROUPS = {
    "encoder": "reads the source",
    "decoder": "writes the summary",
    "bridge": "how the two are joined",
    "data": "the texts",
    "optim": "learning rates",
    "trainer": "devices, and the length of a fit",
    "logger": "where metrics go",
    "generation": "how summaries are generated",
    "evaluation": "how summaries are scored",
    "experiment": "settings of a whole run",
    "sweep": "several runs in one command, with -m",
    "debug": "tiny random versions of the chosen models",
}


def page(conf: Path, *, every: bool) -> str:
    """Return the text of ``--help``, or of ``--help-all``.

    Hydra must be initialized: it knows the choices, also those in a folder of the user's (``--config-dir``).

    Args:
        conf: Folder of the config files.
        every: Whether to describe every choice and every option.
    """
    if every:
        return "\n".join([_INTRODUCTION, *_described_choices(conf), "OPTION=VALUE", listing(WIDTH)])
    command = program()
    lines = [_INTRODUCTION, f"Usage: {command} [task=TASK] [GROUP=CHOICE ...] [OPTION=VALUE ...]\n", "Tasks"]
    lines += [f"  {name:<11} {doc}" for name, doc in _TASKS.items()]
    lines += ["", "Examples", *(f"  {command} {words}" for words in _EXAMPLES)]
    lines += ["", "Groups and their choices (*: the default)"]
    for group, choices in _choices().items():
        default = _defaults(conf).get(group)
        names = ", ".join([*(f"{name}*" if name == default else name for name in choices), *_folders(group)])
        doc = f"{_GROUPS[group]}: " if group in _GROUPS else ""
        lines += _wrapped(f"{group:<11} {doc}{names}", 2, 14)
    return "\n".join([*lines, "", _END])


def versions() -> str:
    """Return the versions of warmstart, Python and the main libraries, without importing the libraries."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lightning"))
    return f"warmstart {__version__}\npython {platform.python_version()}, {libraries}"


def _described_choices(conf: Path) -> Iterator[str]:
    for group, choices in _choices().items():
        yield f"{group}=CHOICE" + (f": {_GROUPS[group]}" if group in _GROUPS else "")
        for name in [*choices, *_nested(group)]:
            lines = [f"{name:<23} {first_comment(conf / group / f'{name}.yaml')}"]
            if len(name) > 23:  # longer than the column: the description begins on the next line
                lines = [name, f"{'':<23} {lines[0].removeprefix(name).lstrip()}"]
            for line in lines:
                yield from _wrapped(line, 2, 26)
        yield ""


def _choices() -> dict[str, list[str]]:
    """Return the choices of each group; groups of the user's come last."""
    loader = GlobalHydra.instance().config_loader()
    others = [group for group in loader.list_groups("") if group not in (*_GROUPS, "hydra")]
    return {group: loader.get_group_options(group) for group in (*_GROUPS, *others)}


def _folders(group: str) -> list[str]:
    """Return the folders with further choices of a group, such as ``rothe/...``."""
    return [f"{folder}/..." for folder in GlobalHydra.instance().config_loader().list_groups(group)]


def _nested(group: str) -> Iterator[str]:
    """Return the choices in the folders of a group, such as ``rothe/bert2bert``."""
    loader = GlobalHydra.instance().config_loader()
    for folder in loader.list_groups(group):
        if folder in _GROUPS:  # rothe/data holds what the recipes set for a data set
            continue
        inner = f"{group}/{folder}"
        yield from (f"{folder}/{name}" for name in [*loader.get_group_options(inner), *_nested(inner)])


def _defaults(conf: Path) -> dict[str, str]:
    entries = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}


def first_comment(file: Path) -> str:
    """Return the comment that begins a config file, without Hydra's directives; empty without a comment.

    Its first line is a title. It gets a full stop if a sentence follows in the next line.
    """
    if not file.exists():
        return ""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = []
    for line in lines:
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            comment.append(line.lstrip("# "))
    title, following = (*comment, "", "")[:2]
    if following[:1].isupper() and (title[-1:].isalnum() or title.endswith(")")):
        comment[0] += "."
    return " ".join(comment)


def _wrapped(text: str, indent: int, following: int) -> list[str]:
    wrap = TextWrapper(WIDTH, " " * indent, " " * following, break_long_words=False, break_on_hyphens=False)
    return wrap.wrap(text)
