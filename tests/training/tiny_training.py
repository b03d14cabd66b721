"""A tiny model that trains in milliseconds, very unequal batches, and a module that records its gradients."""

import lightning as L
import torch
from torch.utils.data import DataLoader
from transformers import BertConfig

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.config.training import OptimSettings, TrainerSettings
from warmstart.data.target_buckets import target_buckets
from warmstart.training.module import SummarizationModule
from warmstart.training.trainer import build_trainer

SIZE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
STILL = OptimSettings(encoder_rate=0.0, decoder_rate=0.0, new_rate=0.0)  # gradients alone


class Letters:
    """Decodes ids to letters."""

    source_pad_id = 0

    def decode(self, ids):
        rows = ids.tolist() if isinstance(ids, torch.Tensor) else ids
        return [" ".join(chr(97 + i % 26) for i in row if i > 2) for row in rows]


class Recorder(SummarizationModule):
    """Keeps the gradients that each optimizer step applies."""

    def configure_gradient_clipping(self, *args, **kwargs):
        super().configure_gradient_clipping(*args, **kwargs)
        gradients = {name: p.grad.clone() for name, p in self.model.named_parameters() if p.grad is not None}
        self.gradients = [*getattr(self, "gradients", []), gradients]


def tiny_model(seed=0):
    torch.manual_seed(seed)
    ids = {"decoder_start_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    halves = {"encoder": BertConfig(**SIZE), "decoder": BertConfig(**SIZE)}
    return EncoderDecoderModel(EncoderDecoderConfig(**halves, **ids)).train()


def rows(count=8):
    generator = torch.Generator().manual_seed(1)
    source = torch.randint(3, 40, (count, 6), generator=generator)
    labels = torch.randint(3, 40, (count, 9), generator=generator)
    for i in range(count):
        labels[i, 1 + i % 8 :] = -100  # 1 to 8 label tokens: batches of very different weight
    mask = torch.ones_like(source)
    mask[::3, 4:] = 0
    return {"input_ids": source, "attention_mask": mask, "labels": labels, "index": torch.arange(count)}


def batches(size, data=None):
    data = rows() if data is None else data
    return [{k: v[i : i + size] for k, v in data.items()} for i in range(0, len(data["index"]), size)]


def in_parts(batch):
    """The batch as the training loader gives it: its rows are in the order of their labels' lengths already."""
    lengths = (batch["labels"] != -100).sum(1).tolist()
    return batch | {"buckets": target_buckets(batch["input_ids"].shape[1], lengths)}


def fit(
    run_dir,
    size,
    accumulate,
    *,
    optim=STILL,
    loggers=(),
    callbacks=(),
    module=None,
    ckpt_path=None,
    train=None,
    validation=None,
    **settings,
):
    """A recorded fit of the tiny pair on batches of ``size`` rows (or ``train``), validated on all rows at once (or
    ``validation``).

    In double precision where none is asked for: how a sum is cut moves fp32 by more than some machines' tolerance.
    """
    model = tiny_model() if "precision" in settings or "extra" in settings else tiny_model().double()
    module = module or Recorder(model, Letters(), optim, {"max_new_tokens": 4}, total_steps=4, hparams={})
    chosen = {"max_epochs": 1, "accelerator": "cpu", "progress_bar": False, "log_every": 1} | settings
    trainer = build_trainer(TrainerSettings(accumulate=accumulate, **chosen), run_dir, list(loggers), list(callbacks))
    train, validation = (
        DataLoader(part, batch_size=None) for part in (train or batches(size), validation or batches(8))
    )
    trainer.fit(module, train, validation, ckpt_path=ckpt_path)
    return module, trainer


def weights_of(module):
    return {name: p.detach().clone() for name, p in module.model.named_parameters()}


def assert_same(found, expected, atol=1e-9, rtol=1e-7):
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(
            tensor, expected[name].to(tensor.dtype), atol=atol, rtol=rtol, msg=lambda m, n=name: f"{n}: {m}"
        )


class Rows(L.pytorch.loggers.Logger):
    """Keeps what is logged."""

    name, version = "rows", "0"

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_hyperparams(self, *args, **kwargs):
        pass

    def log_metrics(self, metrics, step=None):
        self.rows.append({"step": step, **metrics})

    def of(self, name):
        return [row[name] for row in self.rows if name in row]
