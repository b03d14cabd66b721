"""Whether numbers of two runs can be compared: likelihoods need the same labels, validation scores the same texts.

Both are decided by the recorded options. Where they cannot tell, as with two paths of equal texts, the answer is no.
"""

from warmstart.config.model import SELECTOR
from warmstart.config.schema import DEFAULTS
from warmstart.report.collect import Run

# What determines a trained tokenizer, which replaces a tokenizer that is not available.
TRAINING_TEXTS = tuple(
    f"data.{key}"
    for key in (
        *("kind", "path", "train_path", "subset", "revision", "splits.train", "document_column", "summary_column"),
        *("join", "objective", "clean", "limit_train", "raw_targets", "raw_splits"),
    )
)
# What determines, with the encoder's tokenizer, which sentences a selector reads and labels.
_SENTENCES = tuple(
    f"data.{key}"
    for key in ("max_source_length", "truncation", "source_windows", "window_overlap", "language", "clean")
)
_VALIDATION_TEXTS = tuple(
    f"data.{key}" for key in ("kind", "revision", "subset", "document_column", "summary_column", "join", "objective")
)
# What a validation split is taken from if it has no path of its own.
_ORIGINS = tuple(f"data.{key}" for key in ("path", "train_path", "splits.train", "splits.validation", "split_at_least"))


def selects_sentences(run: Run) -> bool:
    """Return whether the labels of a run's model are those of its document's sentences."""
    return run.choices.get("decoder.model_type") == SELECTOR


def other_labels(a: Run, b: Run) -> str | None:
    """Return why the likelihoods of two runs are not comparable; None if they are."""
    if selects_sentences(a) != selects_sentences(b):
        return "nats/token is omitted: one of these rows selects sentences, so its likelihoods are those of sentences."
    role, unit, need = "decoder", "nats/token", "the same decoder tokenizer, max_target_length and target_form"
    if selects_sentences(a):
        role, unit, need = "encoder", "nats/sentence", "the same encoder tokenizer and options of the source"
    keys = [f"{role}.scale", *(_SENTENCES if role == "encoder" else ("data.max_target_length", "data.target_form"))]
    if all(_value(run, "data.target_form") == "sentences" for run in (a, b)):
        keys.append("data.language")  # decides where the sentences of a target end
    if all(run.choices.get(f"{role}.weights") == "random" for run in (a, b)):
        keys += TRAINING_TEXTS  # both tokenizers may have been trained on them
    left, right = ({key: _value(run, key) for key in keys} | _tokenizer(run, role) for run in (a, b))
    if differing := sorted(key for key in left | right if left.get(key) != right.get(key)):
        return f"{unit} is omitted: it is comparable only with {need}, but these rows differ in {', '.join(differing)}."
    return None


def chosen(run: Run, role: str) -> str:
    """Return the name of the config of an encoder or decoder."""
    return str(run.result.get("choices", {}).get(role, "?"))


def validation_texts(run: Run, *, of_samples: bool) -> dict[str, str | None]:
    """Return the recorded options that determine the texts of a validation score.

    Args:
        run: The run.
        of_samples: Whether the score is that of the summaries at each validation of the fit.
    """
    keys = [*_VALIDATION_TEXTS, "data.limit_validation", "data.validation_path"]
    keys += _ORIGINS if _value(run, "data.validation_path") == "None" else []
    keys += ["data.clean"] if _value(run, "data.objective") != "summary" else []  # targets are parts of the document
    keys += ["trainer.validation_samples"] if of_samples else []
    is_raw = _value(run, "data.raw_targets") == "True" and "'validation'" in str(_value(run, "data.raw_splits"))
    return {key: _value(run, key) for key in keys} | {"data.raw_targets": str(is_raw)}


def _value(run: Run, key: str) -> str | None:
    # A run of an earlier release lacks the options that are newer, and was fitted with their defaults.
    return run.choices.get(key, DEFAULTS.get(key))


def _tokenizer(run: Run, role: str) -> dict[str, str | None]:
    """Return the recorded options that determine the tokenizer of an encoder or decoder."""
    choices = run.choices
    if choices.get(f"{role}.tokenizer", "None") != "None":
        of = [f"{role}.tokenizer"]
    else:
        of = [key for key in (f"{role}.path", f"{role}.revision") if key in choices]
    return {key: choices[key] for key in of} or {role: choices.get(f"{role}.name") or chosen(run, role)}
