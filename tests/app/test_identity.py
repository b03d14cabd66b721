"""Two runs have one hash exactly when their numbers have to be the same; a failed run says so."""

import pytest

from warmstart.app import fit
from warmstart.app.identity import config_hash
from warmstart.errors import UserError
from warmstart.evaluation.result import read_result


def test_names_and_places_do_not_change_the_hash(settings_of):
    base = config_hash(settings_of("debug=tiny"))
    for same in ("name=other", "output_root=elsewhere", "logger=wandb", "trainer.log_every=3", "data.batch.workers=2"):
        assert config_hash(settings_of("debug=tiny", same)) == base, same
    for other in ("seed=2", "encoder=roberta", "optim.encoder_rate=1e-3", "generation.max_new_tokens=9"):
        assert config_hash(settings_of("debug=tiny", other)) != base, other


def test_a_failed_fit_says_so_and_leaves_no_earlier_result(settings_of, tmp_path):
    fit.run(settings_of("debug=tiny"), tmp_path)
    done = read_result(tmp_path)
    assert done["status"] == "complete"
    assert done["rows"]["train_examples"] > 0
    assert len(done["config_hash"]) == 16
    with pytest.raises(UserError):
        fit.run(settings_of("debug=tiny", "trainer.validations_per_epoch=0"), tmp_path)
    failed = read_result(tmp_path)
    assert failed["status"] == "failed"
    assert "validations_per_epoch" in failed["error"]
    assert "metrics" not in failed
