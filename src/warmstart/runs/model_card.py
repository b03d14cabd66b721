"""Write the model card (README.md) of an exported model: usage, composition, scores and command."""

import html
import math
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from warmstart.config.metrics import METRICS, TITLES, primary_of, split_of
from warmstart.evaluation.score_table import NAMES, kinds_of, known_interval, scores_of_split, statements
from warmstart.runs.card_metadata import front_matter

USE = """## Use

{opens}

```python
{imports}

folder = "."  # this folder
encoder_tokenizer = AutoTokenizer.from_pretrained(folder, subfolder="encoder_tokenizer")
decoder_tokenizer = AutoTokenizer.from_pretrained(folder)
model = {model_class}.from_pretrained(folder{dtype})

document = "The council met on Monday and voted to close the school."
source = encoder_tokenizer(document, truncation=True, max_length={max_length}, return_tensors="pt")
ids = model.generate(source.input_ids, attention_mask=source.attention_mask)
print(decoder_tokenizer.decode(ids[0], skip_special_tokens=True).strip())
```

`generate` uses the search settings in `generation_config.json`. {not_applied}{cleaned}From the command line:
`warmstart task=summarize ckpt=FOLDER input=article.txt`.
"""

USE_OF_SUMMARIZER = """## Use

How this model reads and writes ({reads}) is stored in this folder, and `warmstart.Summarizer` applies it.

```python
from warmstart import Summarizer

document = "The council met on Monday and voted to close the school."
print(Summarizer.from_pretrained(".")(document))  # this folder
```

From the command line: `warmstart task=summarize ckpt=FOLDER input=article.txt`.
"""

LICENCE = """## Licence

This card grants no licence. The licences of both pretrained checkpoints and of the training texts apply.
Read them before you share or use this model.
"""


@dataclass
class Use:
    """How to open an exported model and summarize a text with it."""

    transformers_opens: bool
    """Whether transformers' own class opens it; otherwise only warmstart's class does."""
    max_source_length: int
    """Longest source in tokens."""
    model_class: str = "EncoderDecoderModel"
    """Name of warmstart's class that opens it."""
    dtype: str = "float32"
    """Dtype of generation."""
    clean: tuple[str, ...] = ()
    """The cleaning steps of the documents (``data.clean``)."""
    base_models: list[str] = field(default_factory=list)
    """Hub ids of the pretrained weights."""
    reads: tuple[str, ...] = ()
    """Options of windows, truncation and prompts, such as ``data.source_windows=2``, which only the settings of the
    export apply: the card's code opens it with ``warmstart.Summarizer``."""
    not_applied: tuple[str, ...] = ()
    """Options of the run's search that ``generate`` of the class in the card's code does not apply."""
    converted: tuple[str, str] | None = None
    """Library and section "Use" of a model in another format than safetensors."""

    @property
    def library(self) -> str:
        """Name of the library that opens the model."""
        if self.converted:
            return self.converted[0]
        return "transformers" if self.transformers_opens else "warmstart"

    def opens(self) -> str:
        """Return one or two sentences on which library opens the model."""
        if self.transformers_opens:
            return (
                "transformers' own classes open this model. `warmstart.EncoderDecoderModel` also does, and is faster. "
                "transformers may report `encoder.pooler` as missing: no summary depends on it."
            )
        return (
            "transformers' own class cannot open this model, or would compute something else. Install warmstart, and "
            f"open it with `warmstart.{self.model_class}`."
        )

    def markdown(self) -> str:
        """Return the section "Use", with code that runs in the exported folder."""
        steps = ", ".join(code(step) for step in self.clean)
        cleaned = f"Documents were cleaned first (`data.clean`: {steps}). " if steps else ""
        if self.converted:
            return "\n".join([self.converted[1], *([f"{cleaned.strip()}\n"] if steps else [])])
        if self.reads:
            return USE_OF_SUMMARIZER.format(reads=", ".join(code(option) for option in self.reads))
        options = ", ".join(code(option) for option in self.not_applied)
        not_applied = f"Only `warmstart.Summarizer` and the command line also apply {options}. " if options else ""
        imports, model_class = "from transformers import AutoModelForSeq2SeqLM, AutoTokenizer", "AutoModelForSeq2SeqLM"
        if not self.transformers_opens:
            model_class = self.model_class
            imports = f"from transformers import AutoTokenizer\n\nfrom warmstart import {model_class}"
        return USE.format(
            opens=self.opens(),
            imports=imports,
            model_class=model_class,
            dtype="" if self.dtype == "float32" else f', dtype="{self.dtype}"',
            max_length=self.max_source_length,
            not_applied=not_applied,
            cleaned=cleaned,
        )


def model_card(result: dict[str, Any], use: Use) -> str:
    """Return the model card as Markdown.

    Args:
        result: the contents of ``result.json``; empty if the model was never evaluated, which the card then states.
        use: how to open the model.
    """
    parts = [front_matter(result, use.library, use.base_models), "# Warm-started summarizer\n"]
    if not result:
        parts.append("Not evaluated.\n")
    else:
        parts += [_made_of(result), _scores(result), _command(result)]
    return "\n".join([*parts, use.markdown(), LICENCE, *_attribution(result)])


def plain(text: Any) -> str:
    """Escape ``text`` for Markdown, so that it cannot add HTML, links, emphasis, table cells or lines."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def code(text: Any) -> str:
    """Format ``text`` as inline code that also works in a table cell."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def _made_of(result: dict[str, Any]) -> str:
    choices = result.get("choices", {})
    counts = result.get("parameters", {})
    rows = [(part, code(choices[part])) for part in ("encoder", "decoder", "data") if part in choices]
    rows += [(f"parameters, {plain(part)}", f"{count / 1e6:.1f} M") for part, count in counts.items()]
    if "generation" in result:
        search = ", ".join(f"{name}={value}" for name, value in result["generation"].items())
        rows.append(("decoded with", code(search)))
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _scores(result: dict[str, Any]) -> str:
    metrics, baselines, controls = (result.get(name, {}) for name in ("metrics", "baselines", "controls"))
    kinds, signatures = kinds_of(metrics), result.get("signatures") or []
    if not kinds:
        return "Not evaluated.\n"
    rows: dict[str, Any] = {"this model": scores_of_split(metrics)}
    rows |= {NAMES.get(name, name): row for name, row in (baselines | controls).items()}
    lines = [
        "## Scores\n",
        f"{'ROUGE F1 x 100' if set(kinds) <= set(METRICS['rouge']) else 'Scores'} with 95 % bootstrap intervals on "
        f"{rows['this model']['examples']} {split_of(metrics)} examples.\n",
    ]
    lines += ["| | " + " | ".join(TITLES[kind] for kind in kinds) + " |", "|---|" + "---|" * len(kinds)]
    for name, row in rows.items():
        lines.append(f"| {plain(name)} | " + " | ".join(_cell(row, kind) for kind in kinds) + " |")
    lines += ["", "`leadN` copies the first N sentences. `another document` is this model's summary of a different"]
    lines += ["document: the score without reading the right one.", *_about_baselines(baselines), ""]
    lines += [f"- {plain(one)}" for one in statements(metrics, baselines, controls, primary_of(signatures))]
    if signatures:
        lines += [
            "",
            "Signatures of the metrics:",
            "",
            *(f"- `{text.replace(chr(96), chr(39))}`" for text in signatures),
        ]
    return "\n".join([*lines, ""])


def _about_baselines(baselines: dict[str, Any]) -> list[str]:
    """What the baselines are, other than the lead, in a sentence each."""
    about = {
        "copula": "takes the words after the first is, are, was or were, to a comma or full stop, nine at most.",
        "nearest": "is the target of the most similar of {training_examples} training documents, by tf-idf.",
        "most_frequent": "is that of {training_examples} training examples.",
        "source": "is the document as it is.",
        "oracle": "are at most three sentences of the document, chosen with the reference: an upper bound.",
    }
    return [
        f"`{NAMES[name]}` {about[name].format(training_examples=plain(row.get('training_examples', 'the')))}"
        for name, row in baselines.items()
        if name in about
    ]


def _cell(row: dict[str, Any], kind: str) -> str:
    ends = known_interval(row, kind)
    if row.get(kind) is None or not math.isfinite(row[kind]):
        return "\N{EN DASH}"
    return f"{row[kind]:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")


def _attribution(result: dict[str, Any]) -> list[str]:
    """Whose the training texts are, if the config names them."""
    data = (result.get("config") or {}).get("data") or {}
    if not data.get("attribution"):
        return []
    return [f"Texts of {code(data.get('name'))}: {plain(data['attribution'])}.\n"]


def _command(result: dict[str, Any]) -> str:
    overrides = result.get("overrides", "")
    is_text = isinstance(overrides, str)  # in results of earlier versions
    words = [_without_folders(word) for word in ([overrides] if is_text else overrides)]
    command = words[0] if is_text else shlex.join(["python", "run.py", *words])
    versions = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", command)), default=0))
    about = [f"Seed {result['seed']}"] if "seed" in result else []
    about += [f"commit {result['git_commit']}"] if result.get("git_commit") else []
    about += [versions] if versions else []
    return "\n".join(["## Command\n", fence, command, fence, "", f"{plain('; '.join(about))}.", ""])


def _without_folders(text: str) -> str:
    """Reduce each existing absolute path to its last component: the rest would reveal this machine's folders."""

    def last(path: str) -> str:
        # Path.exists raises an error for a long text.
        return Path(path).name if os.path.isabs(path) and os.path.exists(path) else path

    option, equals, value = text.partition("=")
    whole = value.strip("'\"")  # may contain spaces
    value = value.replace(whole, last(whole)) if whole else value
    return re.sub(r"(?<![^\s=,:'\"\[({])/[^\s,:'\"\])}]+", lambda found: last(found[0]), option + equals + value)
