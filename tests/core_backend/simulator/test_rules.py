"""Wrong calls of every kind are caught, and the message quotes the rule and where it is documented."""

import pytest
import torch

pytestmark = pytest.mark.npu

HEADS, HEAD_SIZE, BLOCK = 4, 64, 16


@pytest.fixture
def on_a2_or_a3(simulated_chip):
    if simulated_chip == "310P3":
        pytest.skip("these operators are not on 310P")


@pytest.fixture
def on_310p(simulated_chip):
    if simulated_chip != "310P3":
        pytest.skip("a rule of the 310P: ASCEND_SIMULATE=310P3")


def attention_call(**changes):
    """A right call of the fused attention, 3 requests over a paged cache, with `changes`."""
    import torch_npu

    from core_backend.ops.npu.attention import causal_mask

    block_size = changes.get("block_size", BLOCK)
    cache = torch.randn(8, block_size, HEADS * HEAD_SIZE, device="npu")
    arguments = {
        "query": torch.randn(9, HEADS, HEAD_SIZE, device="npu"),
        "key": cache,
        "value": cache,
        "atten_mask": causal_mask(torch.device("npu", 0)),
        "actual_seq_lengths": [3, 4, 9],
        "actual_seq_lengths_kv": [35, 1, 5],
        "block_table": torch.tensor([[0, 1, 2], [3, 0, 0], [4, 0, 0]], dtype=torch.int32, device="npu"),
        "num_heads": HEADS,
        "input_layout": "TND",
        "sparse_mode": 3,
        "scale": 0.1,
        "block_size": BLOCK,
    }
    arguments.update(changes)
    return torch_npu.npu_fused_infer_attention_score(**arguments)


def test_the_right_call_passes(on_a2_or_a3):
    out, _ = attention_call()
    assert out.device.type == "npu"
    assert not out.isnan().any()


WRONG_ATTENTION = {
    "lengths per request where cumulative ones are due": (
        {"actual_seq_lengths": [3, 1, 5]},
        r"query lengths are cumulative, without the leading 0.*op-plugin docs.*lengths=\[3, 1, 5\]",
    ),
    "cumulative lengths that do not cover the query": (
        {"actual_seq_lengths": [3, 4, 8]},
        "the last is the number of query tokens.*num_tokens=9",
    ),
    "cumulative lengths where those per request are due, longer than the table": (
        {"actual_seq_lengths_kv": [35, 36, 141]},
        "kv lengths are per request with a block table",
    ),
    "no lengths of keys": ({"actual_seq_lengths_kv": None}, "in TND both lists of lengths are given"),
    "a block size of 100": ({"block_size": 100}, "block_size is a multiple of 16, at most 1024.*block_size=100"),
    "a block size of 256": ({"block_size": 256}, "GQA and MHA in TND take block sizes up to 128"),
    "a block table of int64": (
        {"block_table": torch.zeros(3, 3, dtype=torch.int64)},
        "block_table must be int32",
    ),
    "a block id outside the cache": (
        {"block_table": torch.full((3, 3), 99, dtype=torch.int32)},
        "block ids lie inside the cache",
    ),
    "a mask as large as the query": (
        {"atten_mask": torch.ones(9, 9, dtype=torch.int8)},
        r"sparse_mode 2, 3 and 4 take a mask of 2048 x 2048.*mask=\(9, 9\)",
    ),
    "a mask that hides nothing": (
        {"atten_mask": torch.zeros(2048, 2048, dtype=torch.int8)},
        "the mask is 1 .hidden. above the diagonal",
    ),
    "a mask without a mode for it": ({"sparse_mode": 0}, "in TND sparse_mode 0 takes no mask"),
    "another number of heads": ({"num_heads": 2}, r"query is \[tokens, num_heads, head_size\]"),
    "heads that cannot be shared": ({"num_key_value_heads": 3}, "num_key_value_heads divides num_heads"),
    "another layout": ({"input_layout": "BSH"}, "only the layout TND is emulated"),
}


@pytest.mark.parametrize("case", WRONG_ATTENTION)
def test_a_wrong_call_of_the_fused_attention(on_a2_or_a3, case):
    changes, message = WRONG_ATTENTION[case]
    changes = {name: x.to("npu") if isinstance(x, torch.Tensor) else x for name, x in changes.items()}
    with pytest.raises(RuntimeError, match=f"npu_fused_infer_attention_score: .*{message}"):
        attention_call(**changes)


def test_a_tensor_on_the_host_among_tensors_on_the_device(on_a2_or_a3):
    with pytest.raises(RuntimeError, match="expected all tensors to be on the same device"):
        attention_call(block_table=torch.zeros(3, 3, dtype=torch.int32))


def test_a_name_that_the_schema_does_not_have(on_a2_or_a3):
    with pytest.raises(RuntimeError, match="Unknown keyword argument 'scale_value'"):
        attention_call(scale_value=1.0)


def write_kv(slots, dtype=torch.float16, caches=None):
    import torch_npu

    key = torch.randn(len(slots), 2, 16, dtype=dtype, device="npu")
    caches = [torch.zeros(4, BLOCK, 2, 16, dtype=dtype, device="npu") for _ in range(2)] if caches is None else caches
    torch_npu._npu_reshape_and_cache(key, key, *caches, slots.to("npu"))


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (torch.tensor([3, 4]), "slot_indices must be int32 .*ReshapeAndCacheOperation.*slot_indices=torch.int64"),
        (torch.tensor([3, 64], dtype=torch.int32), "slots lie inside the cache.*num_slots=64"),
        (torch.tensor([3, 3], dtype=torch.int32), "no slot is written twice"),
    ],
)
def test_wrong_slots(on_a2_or_a3, slots, message):
    with pytest.raises(RuntimeError, match=message):
        write_kv(slots)


def test_a_cache_that_is_not_in_nz_on_310p(on_310p):
    from core_backend.device import npu

    caches = [npu.zeros_in_nz((4, BLOCK, 2, 16), torch.float16) for _ in range(2)]
    with pytest.raises(RuntimeError, match="on 310P a cache is NZ"):
        write_kv(torch.tensor([3], dtype=torch.int32), caches=caches)


def test_a_cache_in_nz_s_shape_but_not_in_its_memory_on_310p(on_310p):
    caches = [torch.zeros(4, 2, BLOCK, 16, dtype=torch.float16, device="npu") for _ in range(2)]
    with pytest.raises(
        RuntimeError, match=r"key_cache is not in FRACTAL_NZ: allocate it with torch_npu\.empty_with_format"
    ):
        write_kv(torch.tensor([3], dtype=torch.int32), caches=caches)


def test_bfloat16_on_310p(on_310p):
    import torch_npu

    x = torch.ones(2, 32, dtype=torch.bfloat16, device="npu")
    with pytest.raises(RuntimeError, match="npu_swiglu: input must be one of float16, float32 on 310P"):
        torch_npu.npu_swiglu(x)


def test_an_operator_that_310p_does_not_have(on_310p):
    import torch_npu

    x = torch.ones(1, 64, device="npu")
    with pytest.raises(RuntimeError, match="npu_mrope does not exist on 310P, only on 910B, 910_93"):
        torch_npu.npu_mrope(torch.zeros(1, dtype=torch.int64, device="npu"), x, x, x, 64)


def test_lengths_on_the_device_where_the_operator_reads_them_on_the_host(on_310p):
    from core_backend.ops.table import operators

    plan = operators().plan_attention([0, 3], [3], None, block_size=128, causal=True)
    plan.query_lens = plan.query_lens.to("npu")
    x = torch.zeros(3, 2, 64, dtype=torch.float16, device="npu")
    with pytest.raises(RuntimeError, match=r"seq_len is read on the host.*tensor\.hostData is null"):
        operators().varlen_attention(x, x, x, plan, scale=1.0, sliding_window=None, out=x)


def test_a_second_table_of_the_operator_that_keeps_the_first(on_310p):
    import torch_npu

    from core_backend.simulator.emulation import rotary

    rotary._first_table.clear()
    x, positions = torch.ones(1, 64, dtype=torch.float16, device="npu"), torch.zeros(1, dtype=torch.int64, device="npu")
    tables = [torch.ones(4, 64, dtype=torch.float16, device="npu") for _ in range(2)]
    torch_npu._npu_rotary_embedding(positions, x, x, 64, tables[0], True)
    with pytest.raises(RuntimeError, match="a process has one cos_sin_cache: the first is kept"):
        torch_npu._npu_rotary_embedding(positions, x, x, 64, tables[1], True)
    rotary._first_table.clear()


def test_groups_that_do_not_sum_to_the_rows():
    import torch_npu

    x, weight = (torch.ones(*shape, dtype=torch.float16, device="npu") for shape in ((5, 16), (2, 16, 16)))
    groups = torch.tensor([1, 2], device="npu")
    with pytest.raises(RuntimeError, match=r"the groups sum to the rows of x.*rows=5"):
        torch_npu.npu_grouped_matmul(
            x=[x], weight=[weight], split_item=2, group_type=0, group_list=groups, group_list_type=1
        )


def test_a_weight_of_experts_has_a_limit_on_the_axis_that_is_last_in_memory():
    import torch_npu

    x = torch.ones(1, 16, dtype=torch.float16, device="npu")
    weight = torch.ones(1, 16, 65536, dtype=torch.float16, device="npu")
    settings = {"split_item": 2, "group_type": 0, "group_list": torch.tensor([1], device="npu"), "group_list_type": 1}
    with pytest.raises(RuntimeError, match=r"the last axis of x, and of weight.*less than 65536.*weight=65536"):
        torch_npu.npu_grouped_matmul(x=[x], weight=[weight], **settings)
    (out,) = torch_npu.npu_grouped_matmul(x=[x], weight=[weight.mT.contiguous().mT], **settings)
    assert out.shape == (1, 65536)


def test_what_the_device_leaves_undefined_is_nan():
    import torch_npu

    x, ids = (
        torch.ones(2, 8, dtype=torch.float16, device="npu"),
        torch.tensor([[0], [3]], dtype=torch.int32, device="npu"),
    )
    rows, _, _, _ = torch_npu.npu_moe_init_routing_v2(
        x,
        ids,
        active_num=2,
        expert_num=4,
        expert_tokens_num_type=1,
        expert_tokens_num_flag=True,
        active_expert_range=[0, 2],
    )
    assert rows.isnan().all(-1).tolist() == [False, True]


def test_an_operator_without_an_emulation_fails_by_name():
    import torch_npu

    with pytest.raises(NotImplementedError, match="npu::npu_fast_gelu has no emulation"):
        torch_npu.npu_fast_gelu(torch.ones(3, device="npu"))
