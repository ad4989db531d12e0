"""The chip table: what a chip refuses is said by its row, with the remedy."""

import pytest

from core_backend.hardware import CHIPS, CPU, ExpertShape, hardware_of


def row(name):
    return next(hardware for hardware in CHIPS.values() if hardware.name == name)


@pytest.mark.parametrize(
    ("soc_name", "name"),
    [("Ascend310P3", "310P"), ("Ascend910B3", "910B"), ("Ascend910B4-1", "910B"), ("Ascend910_9391", "910_93")],
)
def test_a_chip_is_found_by_its_name(soc_name, name):
    assert hardware_of(soc_name).name == name


@pytest.mark.parametrize(
    ("soc_name", "reason"),
    [
        ("Ascend950PR_9599", "the 950 has other operators.*nobody has run"),
        ("Ascend910A", "this project does not know it"),
    ],
)
def test_another_chip_is_refused_with_the_reason_and_what_is_supported(soc_name, reason):
    message = f"the chip {soc_name} is not supported: {reason}.*Supported are 310P.*ASCEND_OP_SET=cpu"
    with pytest.raises(RuntimeError, match=message):
        hardware_of(soc_name)


def test_a_dtype_that_a_chip_does_not_compute_in_is_refused_with_those_it_does():
    with pytest.raises(ValueError, match=r"dtype bfloat16 does not run on 310P .*use float16 \(--dtype float16\)"):
        row("310P").check_dtype("bfloat16")
    with pytest.raises(ValueError, match=r"dtype float32 does not run on 910B .*use bfloat16 or float16"):
        row("910B").check_dtype("float32")
    CPU.check_dtype("float32")


def test_the_kv_cache_of_310p_is_in_nz():
    assert row("910B").kv_cache_shape(7, 128, 2, 64) == (2, 7, 128, 2, 64)
    assert row("310P").kv_cache_shape(7, 128, 2, 64) == (2, 7, 8, 128, 16)


@pytest.mark.parametrize(
    ("name", "block_size", "head_size", "remedy"),
    [
        ("910B", 100, 64, "its attention takes 128 or 64 or 32 or 16; set --block-size 128"),
        ("310P", 128, 256, "its attention takes 64; set --block-size 64"),
        ("310P", 16, 64, "its attention takes 128 or 64; set --block-size 128"),
    ],
)
def test_a_block_that_the_attention_operators_do_not_take(name, block_size, head_size, remedy):
    message = f"block_size {block_size} with heads of {head_size} does not run on {name}: {remedy}"
    with pytest.raises(ValueError, match=message):
        row(name).check_block(block_size, head_size)


@pytest.mark.parametrize("feature", ["graphs", "LoRA", "sliding window attention", "attention sinks"])
def test_310p_refuses_by_name_what_it_does_not_have(feature):
    with pytest.raises(NotImplementedError, match=f"{feature} is refused on 310P .Atlas 300I Duo.: .*;"):
        row("310P").check_feature(feature)
    row("910B").check_feature(feature)


# Ranks, experts, top_k and hidden size of a layer; tokens per rank.
@pytest.mark.parametrize(
    ("chip", "shape", "tokens", "way"),
    [
        ("910B", (16, 384, 8, 4096), 256, "mc2"),
        ("910B", (8, 128, 8, 4096), 32, "all_gather"),  # too few ranks
        ("910B", (32, 256, 8, 4096), 257, "all_gather"),  # too many tokens
        ("910B", (16, 400, 8, 4096), 32, "all_gather"),  # too many experts on a device
        ("910B", (16, 128, 8, 4096 + 16), 32, "all_gather"),  # no multiple of 32
        ("910_93", (2, 128, 8, 4096), 512, "mc2"),
        ("910_93", (2, 128, 8, 4096), 513, "all_to_all"),
        ("910_93", (2, 128, 8, 512), 32, "all_to_all"),  # tokens too small
        ("910_93", (3, 128, 8, 4096), 32, "all_to_all"),  # unequal shares
        ("910_93", (2, 128, 17, 4096), 32, "all_to_all"),  # too many choices
        ("310P", (2, 16, 4, 4096), 32, "all_gather"),
    ],
)
def test_how_tokens_reach_experts_follows_from_the_row(chip, shape, tokens, way):
    assert row(chip).choose_moe_communication(ExpertShape(*shape), tokens) == way


def test_a_way_that_a_chip_does_not_have_is_refused_by_name():
    with pytest.raises(ValueError, match="moe_communication='mc2' is not for CPU: it has all_gather, all_to_all"):
        CPU.check_moe_communication("mc2")
    row("910B").check_moe_communication("all_to_all")


@pytest.mark.parametrize(("num_ranks", "tokens"), [(8, 32), (16, 257)])
def test_a_way_that_is_asked_for_keeps_its_limits(num_ranks, tokens):
    row("910B").check_moe_layer("mc2", ExpertShape(16, 128, 8, 4096), 256)
    row("910B").check_moe_layer("all_to_all", ExpertShape(8, 128, 8, 4096), 10_000)
    with pytest.raises(ValueError, match=f"num_ranks={num_ranks}.* {tokens} tokens .* 910B: .*leave moe_communication"):
        row("910B").check_moe_layer("mc2", ExpertShape(num_ranks, 128, 8, 4096), tokens)


def test_latent_attention_of_other_sizes_is_refused_by_name():
    row("910B").check_latent_sizes(512, 64, 128, 128)
    CPU.check_latent_sizes(256, 32, 64, 64)
    with pytest.raises(NotImplementedError, match=r"kv_lora_rank 256, .* does not run on 910B: .* takes 512, 64, 128"):
        row("910B").check_latent_sizes(256, 32, 64, 64)


@pytest.mark.parametrize(
    ("name", "heads", "message"),
    [
        (
            "910B",
            (32, 32, 80),
            "heads of 80 elements do not run on 910B: its attention takes 64 or 128, and multiples of 16",
        ),
        ("910B", (71, 1, 64), "71 heads on 1 kv heads do not run on 910B: its attention lets at most 64 share one"),
        ("310P", (4, 4, 40), "heads of 40 elements do not run on 310P: its attention takes multiples of 16 up to 256"),
    ],
)
def test_heads_that_the_attention_operators_do_not_take(name, heads, message):
    with pytest.raises(NotImplementedError, match=message):
        row(name).check_heads(*heads)


@pytest.mark.parametrize(("name", "heads"), [("910B", (9, 3, 64)), ("910B", (32, 8, 80)), ("310P", (4, 4, 80))])
def test_heads_that_they_do_take(name, heads):
    row(name).check_heads(*heads)
