"""task=replay finds the module that a skipped batch first goes wrong in."""

import json

import torch


def test_a_skipped_batch_is_replayed(run_py, tmp_path):
    outcome = run_py("debug=tiny", "name=r", "encoder=bert", "decoder=bert", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    run = tmp_path / "runs" / "r"
    outcome = run_py("task=replay", "ckpt=runs/r", cwd=tmp_path)
    assert outcome.returncode == 2
    assert "a run that skipped batches" in outcome.stderr

    (run / "nonfinite.jsonl").write_text(json.dumps({"step": 1, "epoch": 0, "examples": [0, 3]}) + "\n")
    outcome = run_py("task=replay", "ckpt=runs/r", cwd=tmp_path)
    assert outcome.returncode == 0, outcome.stderr
    assert "fp32: finite: loss" in outcome.stdout
    held = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    held["state_dict"]["model.encoder.encoder.layer.1.output.dense.weight"].fill_(torch.inf)
    torch.save(held, run / "checkpoints" / "nonfinite.ckpt")
    outcome = run_py("task=replay", "ckpt=runs/r", cwd=tmp_path)
    assert "first non-finite output: encoder.encoder.layer.1.output.dense" in outcome.stdout
