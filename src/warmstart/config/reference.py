"""Print docs/reference/options.md: what each option sets, its type, default and bounds.

python -m warmstart.config.reference > docs/reference/options.md
"""

import sys
from collections.abc import Iterator
from textwrap import fill, indent
from typing import Any

import yaml

from warmstart.config.option import Option
from warmstart.config.schema import GROUPS, GROUPS_WITHOUT_CHOICES, OPTIONS, docs_of_groups

COMMAND = "python -m warmstart.config.reference"
_INTRODUCTION = f"""\
# Options

For everyone who writes a command line or a config file: what each option sets, and which values it accepts. Set an
option on the command line:

```bash
python run.py encoder=bert decoder=gpt2 data.max_source_length=256
```

- The **default** is used if neither the command line nor a chosen config file sets the option. Files under `conf/` set
  some options: `generation=beam` sets `generation.length_penalty` to 2. To print every value that a command uses, add
  `--cfg job` to it.
- A **required** option has no default. Each file under `conf/encoder`, `conf/decoder` and `conf/data` sets those of its
  group.
- **Bounds** limit numbers; null is allowed if the type lists it.
- Two runs count as the same if their config hashes are equal. An option that **does not change results** is not part
  of that hash. All others are.

This page is written by `{COMMAND} > docs/reference/options.md`.
"""


def page() -> str:
    """Return the page in Markdown: options outside any group first, then the options of each group."""
    docs = docs_of_groups()
    sections = [_INTRODUCTION]
    for names, found in _sections():
        first, *others = names or ["The run"]
        sections.append(f"## {' and '.join(f'`{name}`' for name in names) or first}\n")
        sections += [f"`{name}`: {docs[name]}\n" if others else f"{docs[name]}\n" for name in names]
        sections += [f"`{name}` has the same options as `{first}`, under `{name}.`\n" for name in others]
        sections += [
            f"### `{one.key}`\n\n{_wrapped('; '.join(_facts(one, '`')))}\n\n{_wrapped(one.doc)}\n" for one in found
        ]
    return "\n".join(sections)


def listing(width: int) -> str:
    """Return the same content as plain text with lines of at most ``width`` characters, for a terminal."""
    lines = []
    for names, found in _sections():
        if others := names[1:]:
            lines.append(f"{' and '.join(others)} has the same options as {names[0]}.\n")
        for one in found:
            paragraphs = ["; ".join(_facts(one)), *one.doc.split("\n\n")]
            lines += [one.key, *(indent(_wrapped(text, width - 4), "    ") for text in paragraphs), ""]
    return "\n".join(lines).rstrip("\n")


def _sections() -> Iterator[tuple[list[str], list[Option]]]:
    """Yield the groups that have the same options, and these options under the name of the first group."""
    yield [], [one for key, one in OPTIONS.items() if "." not in key]
    groups: dict[type, list[str]] = {}
    for name, kind in (GROUPS | GROUPS_WITHOUT_CHOICES).items():
        groups.setdefault(kind, []).append(name)
    for names in groups.values():
        yield names, [one for key, one in OPTIONS.items() if key.startswith(f"{names[0]}.")]


def _facts(one: Option, mark: str = "") -> list[str]:
    """Return what is declared about an option, with the default between two ``mark``."""
    facts = [one.type, "required" if one.default == "???" else f"default {mark}{_as_yaml(one.default)}{mark}"]
    facts += [str(one.bounds)] if one.bounds else []
    return facts if one.changes_result else [*facts, "does not change results"]


def _wrapped(text: str, width: int = 120) -> str:
    paragraphs = text.split("\n\n")
    return "\n\n".join(fill(one, width=width, break_long_words=False, break_on_hyphens=False) for one in paragraphs)


def _as_yaml(value: Any) -> str:
    """Return a default as a user would type it on the command line."""
    # Only in double quotes does YAML write a line break as \n.
    style = '"' if isinstance(value, str) and "\n" in value else None
    text = yaml.safe_dump(value, default_flow_style=True, default_style=style, width=1000)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")


if __name__ == "__main__":
    sys.stdout.write(page())
