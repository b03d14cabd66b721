"""Print docs/reference/options.md: what every option sets, its type, default and bounds.

python -m warmstart.config.reference > docs/reference/options.md
"""

import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from textwrap import fill
from typing import Any, get_type_hints

import yaml

from warmstart.config.option import Option
from warmstart.config.schema import OPTIONS, Config

COMMAND = "python -m warmstart.config.reference"
_INTRODUCTION = f"""\
# Options

For everyone who writes a command line or a config file: what every option sets, and what it may be. Set an option on
the command line:

```bash
python run.py encoder=bert decoder=gpt2 data.max_source_length=256
```

- **Default** is the value where neither the command line nor a chosen config file sets one. Files under `conf/` set
  others: `generation=beam` sets `generation.length_penalty` to 2. Add `--cfg job` to a command to print every value
  that it uses.
- **Required** options have no default. Each file under `conf/encoder`, `conf/decoder` and `conf/data` sets its own.
- **Bounds** hold for numbers; null is allowed where the type names it.
- An option that **does not change results** is not part of the config hash, which decides whether a run is the same as
  an earlier one. All others are.

This page is written by `{COMMAND} > docs/reference/options.md`.
"""


def page() -> str:
    """Return the page, in Markdown: the options of a run first, then those of each group."""
    kinds, docs = get_type_hints(Config), {one.name: one.metadata["doc"] for one in fields(Config)}
    own = [one for key, one in OPTIONS.items() if "." not in key]
    sections = [_INTRODUCTION, "## The run\n", *_entries(own)]
    groups: dict[type, list[str]] = {}
    for name, kind in kinds.items():
        if is_dataclass(kind):
            groups.setdefault(kind, []).append(name)  # type: ignore[arg-type]
    for names in groups.values():
        first, *others = names
        sections.append(f"## {' and '.join(f'`{name}`' for name in names)}\n")
        sections += [f"`{name}`: {docs[name]}\n" if others else f"{docs[name]}\n" for name in names]
        sections += [f"`{name}` has the same options as `{first}`, under `{name}.`\n" for name in others]
        sections += _entries([one for key, one in OPTIONS.items() if key.startswith(f"{first}.")])
    return "\n".join(sections)


def _entries(found: list[Option]) -> Iterator[str]:
    for one in found:
        facts = [one.type, "required" if one.default == "???" else f"default `{_as_yaml(one.default)}`"]
        facts += [str(one.bounds)] if one.bounds else []
        facts += [] if one.changes_result else ["does not change results"]
        yield f"### `{one.key}`\n\n{_wrapped('; '.join(facts))}\n\n{_wrapped(one.doc)}\n"


def _wrapped(text: str) -> str:
    paragraphs = text.split("\n\n")
    return "\n\n".join(fill(one, width=120, break_long_words=False, break_on_hyphens=False) for one in paragraphs)


def _as_yaml(value: Any) -> str:
    """Return a default as it is typed on a command line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")


if __name__ == "__main__":
    sys.stdout.write(page())
