"""``topk`` of a few among very many scores, faster on a CPU.

torch's ``topk`` copies and sorts all scores with their indices (docs/performance.md has the figures). The best few are
in the few blocks whose maxima are the best.
"""

import torch
from torch import Tensor

BLOCK = 128
_FEW = 64 * BLOCK  # scores up to which torch's own is as fast


def best_candidates(scores_BX: Tensor, count: int, *, ties_as_topk: bool = True) -> tuple[Tensor, Tensor]:
    """Return the ``count`` best scores of each row and their indices, both (B, count), as ``topk`` does.

    With ``ties_as_topk``, rows with equal scores among the best go through ``topk``, so that ties are decided as
    transformers decides them. Without it they are decided in any way: scores from bfloat16 have ties in most rows.
    """
    rows, width = scores_BX.shape
    blocks = width // BLOCK
    if scores_BX.device.type != "cpu" or width < _FEW or blocks <= count:
        values, indices = scores_BX.topk(count)
        return values, indices
    inside = blocks * BLOCK
    blocks_BNX = scores_BX[:, :inside].view(rows, blocks, BLOCK)
    chosen_BC = blocks_BNX.amax(dim=-1).topk(count)[1]
    of_chosen = blocks_BNX.gather(1, chosen_BC[:, :, None].expand(-1, -1, BLOCK))
    values, found = torch.cat([of_chosen.flatten(1), scores_BX[:, inside:]], dim=1).topk(count + 1)
    if ties_as_topk and not (values[:, :-1] > values[:, 1:]).all():
        values, indices = scores_BX.topk(count)
        return values, indices
    block = chosen_BC.gather(1, (found // BLOCK).clamp(max=count - 1))
    in_block = found < count * BLOCK
    indices = torch.where(in_block, block * BLOCK + found % BLOCK, found + inside - count * BLOCK)
    return values[:, :count], indices[:, :count]
