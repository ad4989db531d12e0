"""Attention of one sequence by its formula, which all attention operators of the device share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(
    query: Tensor, key: Tensor, value: Tensor, scale: float, hidden: Tensor | None, sink: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """softmax(scale * query key^T) value, in fp32.

    query       [num_queries, num_heads, head_size]
    key, value  [num_keys, num_kv_heads, head size of each]
    hidden      [num_queries, num_keys] bool, or None: everything is visible
    sink        [num_heads]: one more score in the denominator, or None
    returns     [num_queries, num_heads, value head size] in query's dtype, and lse [num_queries, num_heads, 1] fp32.
                A query that sees nothing gets 0 and an lse of +inf.
    """
    num_heads, num_kv_heads = query.shape[1], key.shape[1]
    heads = query.float().unflatten(1, (num_kv_heads, num_heads // num_kv_heads))
    scores = torch.einsum("qhgd,khd->hgqk", heads, key.float()) * scale
    if hidden is not None:
        scores = scores.masked_fill(hidden, float("-inf"))
    rows = scores
    if sink is not None:
        rows = torch.cat((scores, sink.float().view(num_kv_heads, -1, 1, 1).expand(*scores.shape[:3], 1)), dim=-1)
    lse = rows.logsumexp(-1)
    sees_nothing = lse == float("-inf")
    weights = rows.softmax(-1)[..., : scores.shape[-1]].masked_fill(sees_nothing.unsqueeze(-1), 0)
    out = torch.einsum("hgqk,khd->qhgd", weights, value.float()).flatten(1, 2)
    lse = lse.masked_fill(sees_nothing, float("inf"))
    return out.to(query.dtype), lse.permute(2, 0, 1).reshape(-1, num_heads, 1)


def attend_fast(query: Tensor, key: Tensor, value: Tensor, scale: float, hidden: Tensor | None) -> Tensor:
    """The same without lse and sink, by torch's kernel. No query may see nothing."""
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in (query, key, value))
    mask = None if hidden is None else ~hidden
    out = F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
    )
    return out.squeeze(0).transpose(0, 1)
