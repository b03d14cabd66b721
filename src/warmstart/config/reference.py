"""Print docs/reference/options.md: what each option sets, its type, default and bounds.

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
    """Return a default as a user would type it on the command line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...").removesuffix("\n")


if __name__ == "__main__":
    sys.stdout.write(page())
