"""Runs on disk with known scores, and texts that contain HTML."""

import json
import os

import pytest
from omegaconf import OmegaConf

_ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">&amp;"


@pytest.fixture
def attack():
    return _ATTACK


@pytest.fixture
def write_run(tmp_path):
    """``write_run(name, seed=.., encoder=.., scores=(10, 20), status=..)``: the folder of a run.

    ``data`` is of its config, ``result`` of its result; ``finished`` is when that was written.
    """

    def write(
        name,
        *,
        seed=1,
        encoder="bert",
        weights="pretrained",
        scores=(10.0, 20.0),
        status="complete",
        text="a b",
        lead=30.0,
        nll=None,
        bits=None,
        decoder="gpt2",
        data=None,
        result=None,
        finished=None,
        named=None,
        model_type="gpt2",
    ):
        folder = tmp_path / "sweep" / name
        (folder / ".hydra").mkdir(parents=True)
        config = {
            "task": "fit",
            "seed": seed,
            "name": named,
            "encoder": {"name": encoder, "path": f"hub/{encoder}", "weights": weights},
            "decoder": {"name": decoder, "weights": "pretrained", "model_type": model_type},
            "bridge": {"share": "none"},
        } | ({"data": data} if data else {})
        OmegaConf.save(OmegaConf.create(config), folder / ".hydra" / "config.yaml")
        mean = sum(scores) / len(scores)
        rows = [
            {"id": str(i), "document": f"{text} one. Two.", "reference": text, "prediction": text}
            | dict.fromkeys(("rouge1", "rouge2", "rougeL", "rougeLsum"), score)
            | ({"nll": nll[i]} if nll else {})
            | ({"bits_per_byte": bits[i]} if bits and bits[i] is not None else {})
            for i, score in enumerate(scores)
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "metrics.csv").write_text("step,train/loss,validation/loss\n1,3.0,\n2,,2.5\n3,2.0,\n4,1.")
        kinds = ("rouge1", "rouge2", "rougeL", "rougeLsum")
        over = {
            "rouge1": lead,
            "rouge1_difference": mean - lead,
            "rouge1_difference_ci": [mean - lead - 1, mean - lead + 1],
        }
        metrics = {f"test/{kind}": mean for kind in kinds}
        if nll:
            metrics["test/nll"] = None if None in nll else sum(nll) / len(nll)
        if bits:
            kept = [one for one in bits if one is not None]
            of_bits = {"bits_per_byte": sum(kept) / len(kept), "bits_per_byte_examples": len(kept)}
            metrics |= {"test/examples": len(scores)} | {f"test/{name}": value for name, value in of_bits.items()}
        whole = {
            "status": status,
            "seed": seed,
            "metrics": metrics,
            "baselines": {"lead1": dict.fromkeys(kinds, lead) | over},
            "controls": {"shuffled_document": over, "decoder_alone": over},
            "parameters": {"total": 1000, "trainable": 900, "pretrained": 800, "new": 200},
            "seconds": {"fit": 10.0 * seed, "test": 1.0},
        }
        if status == "failed":
            whole = {"status": "failed", "error": f"UserError: {text}", "seed": seed}
        if status != "partial":
            (folder / "result.json").write_text(json.dumps(whole | (result or {})))
            if finished is not None:
                os.utime(folder / "result.json", (finished, finished))
        return folder

    return write
