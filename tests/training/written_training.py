"""A tiny fit as it really is: written texts, trained tokenizers, token-budget batches, dropout."""

import functools

import torch

from warmstart import EncoderDecoderModel
from warmstart.config.data import BatchSettings, DataKind, DataSettings
from warmstart.config.model import BridgeSettings, Scale, SubmodelSettings, Weights
from warmstart.config.training import OptimSettings, TrainerSettings
from warmstart.data.datamodule import SummarizationDataModule
from warmstart.data.sources.load import load_source
from warmstart.data.tokenization.pair import load_pair
from warmstart.model.build import build_model
from warmstart.training.module import SummarizationModule
from warmstart.training.trainer import build_trainer

HALF = SubmodelSettings("bert", "google-bert/bert-base-uncased", "bert", weights=Weights.random, scale=Scale.tiny)
TOTAL = 9


@functools.cache
def pair():
    texts = load_source(DataSettings(name="written", kind=DataKind.written)).split("train")
    return load_pair(HALF, HALF, lambda: (text for example in texts for text in example[1:]))


def run(
    folder,
    cache,
    *,
    ckpt=None,
    loggers=(),
    callbacks=(),
    unfreeze_after=0,
    score=None,
    halves=(HALF, HALF),
    bridge=None,
    max_tokens=320,
    samples=3,
    hparams=None,
    **settings,
):
    data = DataSettings(
        name="written",
        kind=DataKind.written,
        max_source_length=48,
        max_target_length=16,
        limit_validation=4,
        batch=BatchSettings(max_tokens=max_tokens),
        cache_dir=str(cache),
    )
    module_data = SummarizationDataModule(data, pair(), seed=1)
    torch.manual_seed(0)
    sizes = {"encoder_vocab_size": len(pair().source), "decoder_vocab_size": len(pair().target)}
    model = build_model(*halves, bridge or BridgeSettings(), special_ids=pair().special_ids(), **sizes)
    if bridge is None:
        assert model.config.decoder.hidden_dropout_prob > 0  # resuming repeats what dropout drew, too
        model = EncoderDecoderModel(model.config)  # of which the bridge alone counts as new
    module = SummarizationModule(
        model.train(),
        pair(),
        OptimSettings(warmup_steps=2),
        {"max_new_tokens": 4},
        total_steps=TOTAL,
        hparams={"model_config": model.config.to_dict(), "config": {"seed": 1}} | (hparams or {}),
        references=["a summary"] * samples,
        score=score or (lambda samples: {"length": float(len(samples[0]["prediction"]))}),
        unfreeze_after=unfreeze_after,
    )
    chosen = {"max_epochs": 9, "max_steps": TOTAL, "accelerator": "cpu", "progress_bar": False, "log_every": 1}
    trainer = build_trainer(TrainerSettings(**(chosen | settings)), folder, list(loggers), list(callbacks))
    trainer.fit(module, datamodule=module_data, ckpt_path=ckpt)
    return module, trainer


def weights(module):
    return {name: p.detach() for name, p in module.model.named_parameters()}
