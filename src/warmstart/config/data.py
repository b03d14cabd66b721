"""Options of the data (conf/data): which texts, which columns, lengths, cleaning, batching."""

from dataclasses import dataclass
from enum import StrEnum

from warmstart.config.option import option


class DataKind(StrEnum):
    """Which reader opens the texts."""

    cnn_dailymail = "cnn_dailymail"
    debian = "debian"
    files = "files"
    hub = "hub"
    news = "news"
    short_descriptions = "short_descriptions"
    written = "written"


class OnBadRow(StrEnum):
    """What happens to a row that cannot be used."""

    fail = "fail"
    skip = "skip"


class SourceForm(StrEnum):
    """Which special tokens a source has."""

    plain = "plain"
    sentences = "sentences"


class TargetForm(StrEnum):
    """Whether the sentences of a target are separated."""

    plain = "plain"
    sentences = "sentences"


class Objective(StrEnum):
    """What the model learns to write from a document."""

    summary = "summary"
    prefix = "prefix"
    span_corruption = "span_corruption"
    reconstruction = "reconstruction"
    gap_sentences = "gap_sentences"


class Truncation(StrEnum):
    """Which tokens of a document are kept if it is too long."""

    head = "head"
    head_tail = "head_tail"
    lead_sentences = "lead_sentences"


BASELINES = ("lead", "copula", "nearest", "most_frequent", "source", "oracle")


@dataclass
class BatchSettings:
    """How examples form batches."""

    max_tokens: int | None = option(
        16384,
        at_least=1,
        doc="Largest training batch in tokens, padding included: examples x (longest source + longest target). Lower "
        "it when memory runs out, and raise `trainer.accumulate` by the same factor. null uses `data.batch.size`.",
    )
    size: int | None = option(
        None,
        at_least=1,
        doc="Largest training batch in examples. With `data.batch.max_tokens` set, both limits hold.",
    )
    bucket: int = option(
        100,
        at_least=1,
        doc="Number of batches that are sorted by length together. A larger number needs less padding; a smaller one "
        "shuffles better.",
    )
    workers: int = option(
        0,
        at_least=0,
        changes_result=False,
        doc="Worker processes of each data loader. 0 loads in the main process; raise it when the device waits for "
        "data.",
    )


@dataclass
class SplitSettings:
    """What the data set calls its splits."""

    train: str = option("train", doc="Name of the training split in the data set of the hub.")
    validation: str | None = option(
        "validation",
        doc="Name of the validation split in the data set of the hub. null takes 5 % of the training split, chosen by "
        "a hash of the source text, so that equal texts are never divided.",
    )
    test: str | None = option(
        "test", doc="Name of the test split in the data set of the hub; null as for `data.splits.validation`."
    )


@dataclass
class SizeSettings:
    """The published size of a data set of the hub, with which `task=check` predicts a fit before it is downloaded."""

    examples: int | None = option(None, at_least=1, doc="Number of training examples. null counts the examples.")
    document_words: float | None = option(None, at_least=0, doc="Mean number of words of a source text.")
    summary_words: float | None = option(None, at_least=0, doc="Mean number of words of a target text.")


@dataclass
class DataSettings:
    """Texts and how they become batches."""

    name: str = option(
        "???",
        changes_result=False,
        doc="Short name of the data set. It appears in tables and in names of runs.",
    )
    kind: DataKind = option(
        DataKind.cnn_dailymail,
        doc="Which reader is used. `hub` reads any data set of the Hugging Face hub or a copy of it in a folder, "
        "`cnn_dailymail` is `hub` with the columns of that data set, `files` reads your own files, `news`, "
        "`short_descriptions` and `debian` read texts that are installed without the hub, and `written` are the "
        "synthetic texts for tests.",
    )
    attribution: str | None = option(
        None,
        changes_result=False,
        doc="Authors and licence of the texts. The model card names them.",
    )
    path: str | None = option(
        None,
        doc="Where the texts are: the hub id or a folder with a copy (`hub`), a file or a folder with all splits "
        "(`files`), the file of a package (`news`, `short_descriptions`), or a folder of apt's indexes (`debian`). A "
        "copy is a folder in the layout of the hub, one that `save_to_disk` wrote, or the original files of "
        "CNN/DailyMail or XSum. A file or folder of your own sets `data=files`, unless the command line names a data "
        "set, an experiment or a sweep.",
    )
    revision: str = option(
        "main",
        doc="Branch, tag or commit of the hub data set. Set a commit if others should be able to reproduce the "
        "results.",
    )
    subset: str | None = option(None, doc="Configuration name of the hub data set, such as 3.0.0.")
    splits: SplitSettings = option(default_factory=SplitSettings, doc="Names of the splits, with `data.kind=hub`.")
    size: SizeSettings = option(
        default_factory=SizeSettings, changes_result=False, doc="The published size of the data set."
    )
    train_path: str | None = option(
        None,
        doc="File or folder of the training split, with `data=files`. It takes precedence over `data.path`.",
    )
    validation_path: str | None = option(
        None,
        doc="File or folder of the validation split, with `data=files`. Without it, the validation file in the folder "
        "`data.path` is read; if there is none, 5 % of the training split become the validation split, chosen by a "
        "hash of the source text.",
    )
    test_path: str | None = option(
        None,
        doc="File or folder of the test split, with `data=files`. Without it, the test file in the folder `data.path` "
        "is read; if there is none, 5 % of the training split become the test split, chosen by a hash of the source "
        "text.",
    )
    split_at_least: int = option(
        1,
        at_least=1,
        doc="Least number of different documents in a validation or test split that is taken from the training split. "
        "More than 5 % are taken if that is needed. It makes the scores of a small file less uncertain.",
    )
    document_column: str = option(
        "document",
        doc="Column that holds the source text. Dots lead into nested values: `translation.de`, `turns.text` (of each "
        "turn), `versions.0` (the first). `+` joins columns: `title + body`.",
    )
    summary_column: str = option(
        "summary",
        doc="Column that holds the target text, written like `data.document_column`. `data=news` has `subtitle` "
        "(standfirst) and `title` (headline).",
    )
    join: str = option(
        "\n", doc="What stands between the items of a list, such as sentences or turns, and between joined columns."
    )
    delimiter: str | None = option(
        None,
        doc="What separates the columns of csv and tsv files: one character, or `tab`. null finds it in the first "
        "line, and the log names an unusual one. `task=summarize` uses it if the command line sets it.",
    )
    encoding: str = option(
        "utf-8",
        doc="Encoding of your own text files, such as `cp1252` (Western Windows), `cp1251` (Cyrillic Windows) or "
        "`utf-16`. `task=summarize` uses it for tables if the command line sets it; what it writes is UTF-8.",
    )
    raw_targets: bool = option(
        False,
        doc="Whether the targets of `data=short_descriptions` keep years that their source lacks. false cuts or drops "
        "them in every split. true is for studies of what such targets teach.",
    )
    raw_splits: list[str] = option(
        default_factory=lambda: ["train", "validation", "test"],
        doc="Splits in which `data.raw_targets=true` keeps them. With `[train,validation]` the test split is the "
        "cleaned one, so that models trained on raw and on cleaned targets are scored on the same examples.",
    )
    objective: Objective = option(
        Objective.summary,
        doc="Which target the model learns to write. `summary` is the data set's own. The others make source and "
        "target from the document, in every split, and ignore the summary: `prefix` (its continuation), "
        "`span_corruption` (missing words, T5 and UL2), `reconstruction` (its opening sentences, from a text that "
        "lacks three words of ten) and `gap_sentences` (the sentences most like the rest, PEGASUS). With them a run "
        "adapts a model to texts without summaries, and `ckpt_weights` starts the next fit from it. For files without "
        "a column of summaries, set `data.summary_column` to the document's column.",
    )
    id_column: str | None = option(
        None,
        doc="Column that holds a unique id. null takes the column `id` of a hub data set; without one, and in files, "
        "it numbers the rows. Text files have their names as ids. An id of a hub data set that repeats within a split "
        "gets its row number, such as `a-7`.",
    )
    on_bad_row: OnBadRow = option(
        OnBadRow.fail,
        doc="What happens to a row that cannot be used: invalid JSON, no text, an empty summary, a duplicate id, or "
        "bytes that are not in `data.encoding`. `fail` ends the run and names the file and row. `skip` leaves the row "
        "out, logs it, and counts it in `result.json`.",
    )
    baselines: list[str] = option(
        default_factory=lambda: ["lead"],
        choices=BASELINES,
        doc="What the model is compared with on the scored split. `lead` is the first sentence of the source, and the "
        "first `evaluation.lead_sentences`. `copula` is a rule for English descriptions: the words after the first is, "
        "are, was or were (and an article, if one follows), up to a comma or full stop, nine at most. `nearest` is the "
        "target of the most similar training source (tf-idf), `most_frequent` the most frequent training target; both "
        "read at most 20000 training examples, a random sample that is the same for every seed. `source` is the whole "
        "source, for translation. `oracle` are the sentences of the source, three at most, that are closest to the "
        "target (chosen greedily by ROUGE-1 + ROUGE-2): an upper bound of extractive summaries.",
    )
    language: str = option(
        "en",
        doc="ISO 639 code of the language of the targets, such as de, hi or zh. It decides how metrics and baselines "
        "find sentences, words and stems. With `en`, ROUGE counts only the letters a to z and digits, as rouge-score "
        "does, and references of which more than 10 % are other letters are refused.",
    )
    clean: list[str] = option(
        default_factory=list,
        doc="Names of cleaning steps, applied in this order to source texts and to training targets; some drop "
        "training examples. An unknown name ends the run with a list of all. References of validation and test are "
        "never changed.",
    )
    source_form: SourceForm = option(
        SourceForm.plain,
        doc="Which special tokens a source has. `plain` are those of the encoder's tokenizer. `sentences` puts the "
        "start token ([CLS]) before each sentence and the separator ([SEP]) after it, and gives the sentences the "
        "segment ids 0 and 1 in turn if the encoder has segments, as in BertSum.",
    )
    target_form: TargetForm = option(
        TargetForm.plain,
        doc="Whether the model learns where the sentences of a target end. `sentences` puts a token of its own between "
        "them, which becomes a line break in the summary, as in BertSum.",
    )
    max_source_length: int = option(
        512,
        at_least=2,
        doc="Longest source in tokens, special tokens included; with `data.source_windows`, the longest window. Longer "
        "sources are cut as `data.truncation` says.",
    )
    source_windows: int = option(
        1,
        at_least=1,
        doc="Largest number of windows of `data.max_source_length` tokens that a long source is cut into. The encoder "
        "reads each window by itself, and the decoder attends to the states of all of them (Fusion-in-Decoder). 1 is "
        "the usual encoder-decoder model.",
    )
    window_overlap: int = option(
        0,
        at_least=0,
        doc="Number of tokens at the end of a window that the next window of the source repeats, so that no sentence "
        "is only read in two pieces. Needs `data.source_windows` above 1.",
    )
    truncation: Truncation = option(
        Truncation.head,
        doc="What is kept of a source that is too long. `head` keeps its first tokens, `head_tail` as many of its "
        "first tokens as of its last ones, and `lead_sentences` the first sentences that fit whole, split by the rules "
        "of `data.language`.",
    )
    max_target_length: int = option(
        128,
        at_least=2,
        doc="Longest target in tokens, the end token included. Longer targets are cut off at the end. Generated "
        "summaries are limited by `generation.max_new_tokens` instead.",
    )
    prompt: str | None = option(
        None,
        doc="Text that the decoder reads before it writes, such as `Summarize: `. It stands before every target, in "
        "training and in generation; the model does not learn to write it, and summaries do not contain it.",
    )
    prompt_as_chat: bool = option(
        False,
        doc="Whether `data.prompt` is the user's message in the chat template of the decoder's tokenizer, so that the "
        "target is the assistant's answer. For instruction-tuned decoders.",
    )
    start_tokens: list[str] = option(
        default_factory=list,
        doc="Tokens of the decoder with which every target begins, in training and in generation, such as `[de_DE]` "
        "(mBART) or `[</s>,de_DE]` (mBART-50). `language` stands for the token of `data.language`. An empty list is "
        "the tokenizer's start token.",
    )
    limit_train: int | None = option(
        None,
        at_least=1,
        doc="Number of training examples to use. They are drawn at random, and are the same for every `seed`. null "
        "uses all.",
    )
    limit_validation: int | None = option(
        None,
        at_least=1,
        doc="Number of validation examples to use, sampled as by `data.limit_train`. null uses all.",
    )
    limit_test: int | None = option(
        None,
        at_least=1,
        doc="Number of test examples to use, sampled as by `data.limit_train`. null uses all.",
    )
    batch: BatchSettings = option(default_factory=BatchSettings, doc="How training examples form batches.")
    evaluation_max_tokens: int = option(
        16384,
        at_least=1,
        doc="Largest validation or test batch in tokens, padding included. Lower it when an evaluation runs out of "
        "memory.",
    )
    cache_dir: str | None = option(
        None,
        changes_result=False,
        doc="Folder of the caches of texts, tokens and summaries. null uses $WARMSTART_CACHE or, if that is not set, "
        "~/.cache/warmstart.",
    )
    processes: int | None = option(
        None,
        at_least=1,
        changes_result=False,
        doc="Number of threads that tokenize. null uses one for each CPU core.",
    )
