"""From texts to batches, and resuming a fit from any of its checkpoints, with Lightning's real loop."""

from collections import Counter

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn

from warmstart.config.data import BatchSettings, DataKind, DataSettings
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.errors import UserError


def settings(workers=0, **kwargs):
    batch = BatchSettings(max_tokens=700, bucket=2, workers=workers)
    options = {"batch": batch, "max_source_length": 64, "max_target_length": 24, "evaluation_max_tokens": 500}
    return DataSettings(name="written", kind=DataKind.written, **options | kwargs)


@pytest.fixture
def datamodule(pair):
    return SummarizationDataModule(settings(), pair, seed=3)


def indices(loader):
    return [i for batch in loader for i in batch["index"].tolist()]


def test_batches_contain_the_examples_of_their_index(datamodule, pair):
    seen = []
    for batch in datamodule.train_dataloader():
        assert set(batch) == {"input_ids", "attention_mask", "labels", "index", "buckets"}
        rows, width = batch["input_ids"].shape
        assert rows * (width + batch["labels"].shape[1]) <= 700
        some = [datamodule.examples("train")[i] for i in batch["index"].tolist()]
        ids = pair.encode_sources([e.document for e in some], 64)
        assert [x[m == 1].tolist() for x, m in zip(batch["input_ids"], batch["attention_mask"], strict=True)] == ids
        labels = pair.encode_targets([e.summary for e in some], 24)
        assert [x[x != -100].tolist() for x in batch["labels"]] == labels
        seen += batch["index"].tolist()
    assert sorted(seen) == list(range(32))


def test_a_limit_chooses_the_same_examples_for_every_seed_and_has_a_token_cache_of_its_own(pair, tmp_path):
    def limited(seed, **limits):
        return SummarizationDataModule(settings(cache_dir=str(tmp_path), **limits), pair, seed=seed)

    few, again, more = (limited(seed, limit_train=n, limit_test=4) for seed, n in ((1, 5), (2, 5), (1, 9)))
    chosen = [[example.id for example in one.examples("train")] for one in (few, again, more)]
    assert chosen[0] == chosen[1]
    assert set(chosen[0]) < set(chosen[2])
    assert list(few.examples("test")) == list(again.examples("test")) == list(more.examples("test"))
    folders = [one.tokenized("train").folder for one in (few, again, more)]
    assert folders[0] == folders[1] != folders[2]
    assert few.tokenized("test").folder == more.tokenized("test").folder


def test_number_of_batches_and_padding(datamodule):
    datamodule.settings.max_target_length = 40  # at 24 nearly all summaries reach it
    assert (
        datamodule.batches_in_epoch() == len(datamodule.train_dataloader()) == len(list(datamodule.train_dataloader()))
    )
    assert datamodule.batches_in_epoch(world_size=3) == -(-datamodule.batches_in_epoch() // 3)
    padded = real = cut = 0
    for batch in datamodule.train_dataloader():
        padded += batch["input_ids"].numel() + sum(rows * longest for rows, longest in batch["buckets"])
        cut += len(batch["buckets"]) > 1
        real += int(batch["attention_mask"].sum()) + int((batch["labels"] != -100).sum())
    assert datamodule.padding_fraction() == pytest.approx(1 - real / padded)
    assert cut


def test_evaluation_batches_have_no_target_length_buckets(datamodule):
    source = datamodule.tokenized("train").source_lengths
    for loader in (datamodule.eval_dataloader("train"), datamodule.val_dataloader(), datamodule.test_dataloader()):
        assert all("buckets" not in batch for batch in loader)
    for batch in datamodule.eval_dataloader("train"):
        lengths = source[batch["index"].numpy()].tolist()
        assert lengths == sorted(lengths, reverse=True)


def test_evaluation_loaders(datamodule):
    for split in ("validation", "test", "train"):
        assert sorted(indices(datamodule.eval_dataloader(split))) == list(range(len(datamodule.examples(split))))
    assert (
        sorted(indices(datamodule.val_dataloader())) == sorted(indices(datamodule.test_dataloader())) == list(range(8))
    )


@pytest.mark.parametrize("done", [(), (1, 4, 6)])
def test_ranks_divide_the_batches_of_one_process(done, datamodule):
    datamodule.settings.evaluation_max_tokens = 120
    whole = [batch["index"].tolist() for batch in datamodule.eval_dataloader("train", done=done)]
    assert len(whole) > 4
    shares = [
        [batch["index"].tolist() for batch in datamodule.eval_dataloader("train", done=done, rank=rank, world_size=3)]
        for rank in range(3)
    ]
    assert sorted(batch for share in shares for batch in share) == sorted(whole)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_exchanged_documents_keep_their_summaries(datamodule):
    order = np.roll(np.arange(8), 3)
    rows = {i: item for i, *item in (datamodule.tokenized("test")[i] for i in range(8))}
    seen = []
    for batch in datamodule.eval_dataloader("test", documents=order):
        names = ("index", "input_ids", "attention_mask", "labels")
        for i, source, mask, labels in zip(*(batch[name] for name in names), strict=True):
            assert source[mask == 1].tolist() == rows[int(order[i])][0].tolist()
            assert labels[labels != -100].tolist() == rows[int(i)][1].tolist()
            seen.append(int(i))
    assert sorted(seen) == list(range(8))


def test_ranks_share_the_epoch(datamodule):
    class Trainer:
        world_size, current_epoch = 3, 0

    train, validation = [], []
    for rank in range(3):
        datamodule.trainer = Trainer()
        datamodule.trainer.global_rank = rank
        train += indices(datamodule.train_dataloader())
        validation += indices(datamodule.val_dataloader())
    assert sorted(train) == list(range(32))
    assert sorted(validation) == list(range(8))


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (BatchSettings(max_tokens=None), "both null"),
        (BatchSettings(max_tokens=0), r"data\.batch\.max_tokens=0"),
        (BatchSettings(bucket=0), r"data\.batch\.bucket=0"),
    ],
)
def test_settings_without_a_possible_batch_are_refused(batch, message, pair):
    with pytest.raises(UserError, match=message):
        SummarizationDataModule(settings(batch=batch), pair, seed=0)


class Recorder(L.LightningModule):
    """Trains one number and records the examples of each epoch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, _):
        self.seen.append((self.current_epoch, tuple(batch["index"].tolist())))
        return self.weight * 1.0

    def validation_step(self, batch, _):
        self.log("validation/loss", float(len(batch["index"])))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAlways(L.Callback):
    """Saves a checkpoint whenever one may be saved."""

    def __init__(self, folder):
        self.folder = folder

    def save(self, trainer, moment):
        name = f"{moment}-epoch={trainer.current_epoch}-step={trainer.global_step}.ckpt"
        trainer.save_checkpoint(self.folder / name)

    def on_train_batch_end(self, trainer, *_):
        self.save(trainer, "batch")

    def on_validation_end(self, trainer, *_):
        if not trainer.sanity_checking:
            self.save(trainer, "validation")

    def on_train_epoch_end(self, trainer, *_):
        self.save(trainer, "end")


def fit(pair, folder, epochs, workers=0, resume=None, **kwargs):
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[SaveAlways(folder)],
        enable_checkpointing=False,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **kwargs,
    )
    module = Recorder()
    datamodule = SummarizationDataModule(settings(workers), pair, seed=3)
    trainer.fit(module, datamodule, ckpt_path=resume, weights_only=True)
    return module.seen, datamodule


def test_each_epoch_has_each_example_once_in_another_order(pair, tmp_path):
    seen, datamodule = fit(pair, tmp_path, epochs=3)
    for epoch in range(3):
        assert Counter(i for e, batch in seen if e == epoch for i in batch) == Counter(range(32))
        assert sum(e == epoch for e, _ in seen) == datamodule.batches_in_epoch()
    assert [b for e, b in seen if e == 0] != [b for e, b in seen if e == 1]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("error:.*not resumable.*")
def test_resuming_from_any_checkpoint_trains_on_the_remaining_examples(workers, pair, tmp_path):
    whole, datamodule = fit(pair, tmp_path / "whole", epochs=3)
    per_epoch = datamodule.batches_in_epoch()
    assert per_epoch > 2
    checkpoints = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(checkpoints) == 3 * per_epoch + 6
    if workers:  # only a few checkpoints, as each loader starts a process
        wanted = {per_epoch - 1, per_epoch, per_epoch + 1, 2 * per_epoch}
        checkpoints = [c for c in checkpoints if torch.load(c, weights_only=True)["global_step"] in wanted]
    for checkpoint in checkpoints:
        step = torch.load(checkpoint, weights_only=True)["global_step"]
        left, _ = fit(pair, tmp_path / "again", epochs=3, workers=workers, resume=checkpoint)
        assert left == whole[step:], checkpoint.name


def test_a_complete_fit_resumes_with_the_next_epoch(pair, tmp_path):
    whole, _ = fit(pair, tmp_path / "whole", epochs=3)
    short, _ = fit(pair, tmp_path / "short", epochs=1)
    (end,) = (tmp_path / "short").glob("end-*.ckpt")
    left, _ = fit(pair, tmp_path / "again", epochs=3, resume=end)
    assert short + left == whole


def test_limited_epochs_end_where_the_limit_is(pair, tmp_path):
    whole, _ = fit(pair, tmp_path / "whole", epochs=3, limit_train_batches=2)
    (end,) = (tmp_path / "whole").glob("end-epoch=0*.ckpt")
    left, _ = fit(pair, tmp_path / "again", epochs=3, resume=end, limit_train_batches=2)
    assert left == whole[2:]
