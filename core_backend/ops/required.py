"""The operators of torch_npu that each operator set calls: what must be there before a model is loaded.

A test holds this list equal to the calls in the source, and docs/hardware.md equal to this list.
"""

COMMON = (
    "_npu_reshape_and_cache",
    "npu_add_rms_norm",
    "npu_format_cast",
    "npu_geglu",
    "npu_grouped_matmul",
    "npu_moe_init_routing_v2",
    "npu_rms_norm",
    "npu_swiglu",
)
REQUIRED: dict[str, tuple[str, ...]] = {
    "cpu": (),
    "npu": (
        *COMMON,
        "_npu_fused_infer_attention_score_get_max_workspace",
        "npu_attention_update",
        "npu_dynamic_quant",
        "npu_fused_infer_attention_score",
        "npu_fused_infer_attention_score.out",
        "npu_fused_infer_attention_score_v2.out",
        "npu_fusion_attention",
        "npu_moe_distribute_combine_v2",
        "npu_moe_distribute_dispatch_v2",
        "npu_moe_gating_top_k",
        "npu_moe_token_unpermute",
        "npu_mrope",
        "npu_quant_matmul",
        "npu_top_k_top_p",
    ),
    "npu_310p": (
        *COMMON,
        "_npu_flash_attention_unpad",
        "_npu_flash_attention_v3",
        "_npu_paged_attention",
        "_npu_paged_attention_splitfuse_v2",
        "_npu_rotary_embedding",
        "npu_moe_gating_top_k_softmax",
    ),
}
