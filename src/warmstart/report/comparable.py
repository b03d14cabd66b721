"""Whether numbers of two runs can be compared: likelihoods need the same labels, validation scores the same texts.

Both are decided by the recorded options. Where they cannot tell, as with two paths of equal texts, the answer is no.
"""

from warmstart.config.model import SELECTOR, Embeddings
from warmstart.config.schema import DEFAULTS
from warmstart.report.collect import Run

# What determines a trained tokenizer, which replaces a tokenizer that is not available.
TRAINING_TEXTS = tuple(
    f"data.{key}"
    for key in (
        *("kind", "path", "train_path", "subset", "revision", "splits.train", "document_column", "summary_column"),
        *("join", "objective", "clean", "limit_train", "raw_targets", "raw_splits"),
        *("validation_path", "test_path", "split_at_least"),  # decide what is left for training
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
    unit, need = "nats/token", "the same decoder tokenizer, max_target_length and target_form"
    keys: list[str] = ["data.max_target_length", "data.target_form"]
    if selects_sentences(a):
        unit, need = "nats/sentence", "the same encoder tokenizer and options of the source"
        keys = list(_SENTENCES)
    if all(_value(run, "data.target_form") == "sentences" for run in (a, b)):
        keys.append("data.language")  # decides where the sentences of a target end
    may_be_trained = all(run.choices.get(f"{_writer(run)}.weights") == "random" for run in (a, b))
    keys += TRAINING_TEXTS if may_be_trained else ()
    differing = [key for key in keys if _value(a, key) != _value(b, key)]
    if differing := sorted(differing + _of_tokenizers(a, b, may_be_trained=may_be_trained)):
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


def _writer(run: Run) -> str:
    """Return the submodel whose tokenizer decides the labels; a selector's are of what the encoder reads."""
    copies = _value(run, "bridge.embeddings") == Embeddings.copy.value
    return "encoder" if copies or selects_sentences(run) else "decoder"


def _of_tokenizers(a: Run, b: Run, *, may_be_trained: bool) -> list[str]:
    """Return the options in which the tokenizers of two runs' labels differ."""
    (first, left), (second, right) = ((_writer(run), _tokenizer(run, may_be_trained)) for run in (a, b))
    differing = [key for key in left | right if left.get(key) != right.get(key)]
    if differing and first != second:
        return ["bridge.embeddings"]
    return [f"{first}.{key}".removesuffix(".name") for key in differing]  # the choice, such as decoder=gpt2


def _tokenizer(run: Run, may_be_trained: bool) -> dict[str, str | None]:
    """Return the recorded options that determine the tokenizer of the labels, without the name of the submodel."""
    choices, role = run.choices, _writer(run)
    if choices.get(f"{role}.tokenizer", "None") != "None":
        of = ["tokenizer"]
    else:
        of = [key for key in ("path", "revision") if f"{role}.{key}" in choices]
    found = {key: choices[f"{role}.{key}"] for key in of} or {"name": choices.get(f"{role}.name") or chosen(run, role)}
    of_trained = ("model_type", "architecture.vocab_size") if may_be_trained else ()
    return found | {key: _value(run, f"{role}.{key}") for key in ("scale", *of_trained)}
