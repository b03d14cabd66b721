"""Parameters that stay in float32 cannot be sharded with others in 16 bits; the error says what to do."""

import pytest
import torch
import torch.distributed
import transformers
from torch.distributed.device_mesh import init_device_mesh

from warmstart import EncoderDecoderConfig, EncoderDecoderModel
from warmstart.compatibility.tiny_configs import tiny_config
from warmstart.errors import UserError
from warmstart.model.dtypes import to_dtype
from warmstart.training.distributed.fsdp import shard


@pytest.fixture
def mesh(tmp_path):
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("decoder", "refused"), [("axk1", True), ("llama", False)])
def test_parameters_of_several_dtypes_in_a_layer_are_refused(decoder, refused, mesh):
    bert = transformers.BertConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    ids = {"decoder_start_token_id": 1, "pad_token_id": 0}
    model = EncoderDecoderModel(EncoderDecoderConfig.from_encoder_decoder_configs(bert, tiny_config(decoder), **ids))
    to_dtype(model, torch.bfloat16)
    if refused:
        message = r"trainer.precision=bf16-true: mlp\.gate\.weight stays in float32.*Set trainer.precision=bf16-mixed"
        with pytest.raises(UserError, match=message):
            shard(model, mesh, torch.device("cpu"))
    else:
        shard(model, mesh, torch.device("cpu"))
