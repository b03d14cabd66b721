"""A faster ``topk`` on a CPU for a few of many scores.

torch's ``topk`` copies all scores with their indices (docs/performance.md has the figures). Here the scores are split
into blocks; the k best scores lie in the k blocks with the highest maxima.
"""

import torch
from torch import Tensor

BLOCK = 128
_FEW = 64 * BLOCK  # up to this number of scores torch's topk is as fast


def best_candidates(scores_BX: Tensor, count: int, *, ties_as_topk: bool = True) -> tuple[Tensor, Tensor]:
    """Find the ``count`` highest scores of each row, as ``topk`` does.

    Args:
        scores_BX: Scores (B, any).
        count: Number of scores to find.
        ties_as_topk: Use ``topk`` if there are equal scores among the best, so that ties are ordered as in
            transformers. Otherwise any order is possible; bfloat16 logits have ties in most rows.

    Returns:
        The scores and their indices, both (B, count).
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
