"""The chip table: what each kind of device can do, and how it wants its data. All limits of a chip are in its row.

Sources: the documentation of torch_npu 2.11 (op-plugin), of CANN's ATB operators and of vllm-ascend 0.23. No row has
been verified on hardware.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

OperatorSetName = Literal["cpu", "npu", "npu_310p"]
KvLayout = Literal["nd", "nz"]
MoeWay = Literal["mc2", "all_to_all", "all_gather"]
NZ_COLUMNS = 16  # elements of 2 bytes in one row of a FRACTAL_NZ block


@dataclass(frozen=True, slots=True)
class ExpertShape:
    """What decides which ways the tokens of a layer of experts can take."""

    num_ranks: int
    num_experts: int
    top_k: int
    hidden_size: int


@dataclass(frozen=True, slots=True)
class MoeCommunication:
    """A way for tokens to reach experts on other ranks, and when it is taken. The first that fits is."""

    name: MoeWay
    num_ranks: tuple[int, ...] | range | None = None
    max_tokens: int | None = None  # per rank and step
    max_local_experts: int | None = None
    max_top_k: int | None = None
    hidden_sizes: range | None = None
    equal_shares: bool = False  # every rank has as many experts as the others

    def fits(self, shape: ExpertShape, num_tokens: int) -> bool:
        """Whether this way may be taken."""
        local_experts = -(-shape.num_experts // shape.num_ranks)
        return (
            (self.num_ranks is None or shape.num_ranks in self.num_ranks)
            and (self.max_tokens is None or num_tokens <= self.max_tokens)
            and (self.max_local_experts is None or local_experts <= self.max_local_experts)
            and (self.max_top_k is None or shape.top_k <= self.max_top_k)
            and (self.hidden_sizes is None or shape.hidden_size in self.hidden_sizes)
            and (not self.equal_shares or shape.num_experts % shape.num_ranks == 0)
        )


class LatentSizes(NamedTuple):
    """Elements of latent attention's vectors."""

    latent: int  # kv_lora_rank
    rope: int
    nope: int
    value: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """One row: a kind of chip."""

    name: str
    products: str
    operator_set: OperatorSetName
    dtypes: tuple[str, ...]  # of weights and activations; the first is what to use instead of another
    kv_layout: KvLayout = "nd"
    block_sizes: tuple[int, ...] | None = None  # KV slots per block, the default first; None: multiples of 16
    max_block_elements: int | None = None  # block size times head size
    head_sizes: tuple[int, ...] | None = None  # of attention over the paged cache; None: see max_head_size
    max_head_size: int | None = None  # multiples of 16 up to this, for heads that share keys; None: all
    max_heads_per_kv_head: int | None = None
    latent_sizes: LatentSizes | None = None  # of latent attention; None: all
    moe_communication: tuple[MoeCommunication, ...] = (MoeCommunication("all_gather"),)
    moe_communication_if_asked: tuple[MoeWay, ...] = ()  # besides those
    mc2_sends_weights: bool = False  # the experts' weights travel with the tokens
    has_graphs: bool = False
    streams: int = 0  # that graphs may take
    is_experimental: bool = False
    refused: Mapping[str, str] = field(default_factory=dict, hash=False)  # feature -> why, with the remedy

    def kv_cache_shape(
        self, num_blocks: int, block_size: int, num_kv_heads: int, head_size: int
    ) -> tuple[int, int, int, int, int]:
        """Keys and values of one layer.

        nd  [2, num_blocks, block_size, num_kv_heads, head_size]
        nz  [2, num_blocks, num_kv_heads * head_size / 16, block_size, 16]; feature f is at [f // 16, slot, f % 16]
        """
        if self.kv_layout == "nz":
            return (2, num_blocks, num_kv_heads * head_size // NZ_COLUMNS, block_size, NZ_COLUMNS)
        return (2, num_blocks, block_size, num_kv_heads, head_size)

    def check_dtype(self, dtype: str) -> None:
        """Raises ValueError for a dtype that this chip does not compute in."""
        if dtype not in self.dtypes:
            raise ValueError(
                f"dtype {dtype} does not run on {self.name} ({self.products}): use {' or '.join(self.dtypes)} "
                f"(--dtype {self.dtypes[0]})."
            )

    def check_feature(self, feature: str) -> None:
        """Raises NotImplementedError for what this chip is known not to have."""
        if feature in self.refused:
            raise NotImplementedError(
                f"{feature} is refused on {self.name} ({self.products}): {self.refused[feature]}."
            )

    def check_block(self, block_size: int, head_size: int) -> None:
        """Raises ValueError for a KV block that the attention operators of this chip do not take."""
        if self.block_sizes is None:
            return
        limit = self.max_block_elements
        fitting = [size for size in self.block_sizes if limit is None or size * head_size <= limit]
        if block_size not in fitting:
            remedy = f"set --block-size {fitting[0]}" if fitting else "choose another model"
            raise ValueError(
                f"block_size {block_size} with heads of {head_size} does not run on {self.name}: its attention takes "
                f"{' or '.join(map(str, fitting)) or 'no block of such heads'}; {remedy}."
            )

    def check_heads(self, num_heads: int, num_kv_heads: int, head_size: int) -> None:
        """Raises NotImplementedError for heads that the attention operators of this chip do not take."""
        shared = num_heads // num_kv_heads
        if self.max_heads_per_kv_head is not None and shared > self.max_heads_per_kv_head:
            raise NotImplementedError(
                f"{num_heads} heads on {num_kv_heads} kv heads do not run on {self.name}: its attention lets at most "
                f"{self.max_heads_per_kv_head} share one. Use another model, or a larger tensor_parallel_size."
            )
        if self.max_head_size is None:
            return
        if head_size in (self.head_sizes or ()):
            return
        may_be_any = shared > 1 or self.head_sizes is None
        if not (may_be_any and head_size % 16 == 0 and head_size <= self.max_head_size):
            any_size = f"multiples of 16 up to {self.max_head_size}"
            taken = any_size
            if self.head_sizes is not None:
                taken = f"{' or '.join(map(str, self.head_sizes))}, and {any_size} where heads share keys"
            raise NotImplementedError(
                f"heads of {head_size} elements do not run on {self.name}: its attention takes {taken}. "
                "Use another model."
            )

    def check_latent_sizes(self, latent: int, rope: int, nope: int, value: int) -> None:
        """Raises NotImplementedError for latent attention of other sizes than the operators of this chip take."""
        if self.latent_sizes not in (None, (latent, rope, nope, value)):
            raise NotImplementedError(
                f"latent attention with kv_lora_rank {latent}, rotary {rope}, other {nope} and value {value} elements "
                f"does not run on {self.name}: its attention takes {', '.join(map(str, self.latent_sizes or ()))}. "
                "Use another model."
            )

    def check_moe_communication(self, way: MoeWay) -> None:
        """Raises ValueError for a way between ranks that this chip does not have."""
        ways = dict.fromkeys([*(known.name for known in self.moe_communication), *self.moe_communication_if_asked])
        if way not in ways:
            raise ValueError(
                f"moe_communication={way!r} is not for {self.name}: it has {', '.join(ways)}. Leave it unset, and the "
                "chip table chooses."
            )

    def check_moe_layer(self, way: MoeWay, shape: ExpertShape, num_tokens: int) -> None:
        """Raises ValueError for a layer of experts beyond the limits of the way that was asked for.

        num_tokens: the most that one rank sends in a step
        """
        limits = next((known for known in self.moe_communication if known.name == way), None)
        if limits is not None and not limits.fits(shape, num_tokens):
            raise ValueError(
                f"moe_communication={way!r} does not take {shape} with {num_tokens} tokens per rank and step on "
                f"{self.name}: its limits are {limits}. Lower --max-num-batched-tokens if the tokens are too many, or "
                "leave moe_communication unset, and the chip table chooses."
            )

    def choose_moe_communication(self, shape: ExpertShape, num_tokens: int) -> MoeWay:
        """The first way between ranks that fits."""
        return next(way.name for way in self.moe_communication if way.fits(shape, num_tokens))


ALL_GATHER = MoeCommunication("all_gather")

NO_SOFT_CAP = "its attention operators have none; use another model, or the CPU (ASCEND_OP_SET=cpu)"

CPU = Hardware(
    name="CPU",
    products="any x86_64 or aarch64 machine",
    operator_set="cpu",
    dtypes=("bfloat16", "float16", "float32"),
    moe_communication_if_asked=("all_to_all",),
    refused={
        "graphs": "there are no launches to save on a CPU; leave npu_graphs unset",
    },
)

# How CANN's name of a chip begins -> row.
CHIPS: dict[str, Hardware] = {
    "Ascend310P": Hardware(
        name="310P",
        products="Atlas 300I Duo",
        operator_set="npu_310p",
        dtypes=("float16",),
        kv_layout="nz",
        block_sizes=(128, 64),
        max_block_elements=16384,
        max_head_size=256,
        is_experimental=True,
        refused={
            "MLA": "it has no operators for latent attention; use a model without MLA, or an Atlas 800I A2",
            "LoRA": "it is not supported there; merge the adapter into the weights first",
            "graphs": "it cannot capture them; leave npu_graphs unset",
            "sliding window attention": "its attention operators have none; use another model, or an Atlas 800I A2",
            "attention sinks": "its attention operators have none; use another model, or an Atlas 800I A2",
            "W8A8 dynamic": "its matmul takes no scales per token; use the float16 weights",
            "soft-capped attention": NO_SOFT_CAP,
        },
    ),
    "Ascend910B": Hardware(
        name="910B",
        products="Atlas 800I A2, Atlas A2 training",
        operator_set="npu",
        dtypes=("bfloat16", "float16"),
        block_sizes=(128, 64, 32, 16),
        head_sizes=(64, 128),
        max_head_size=256,
        max_heads_per_kv_head=64,
        latent_sizes=LatentSizes(latent=512, rope=64, nope=128, value=128),
        moe_communication=(
            MoeCommunication(
                "mc2",
                num_ranks=(16, 32, 64, 128, 256),
                max_tokens=256,
                max_local_experts=24,
                max_top_k=16,
                hidden_sizes=range(32, 7168 + 1, 32),
                equal_shares=True,
            ),
            ALL_GATHER,
        ),
        moe_communication_if_asked=("all_to_all",),
        mc2_sends_weights=True,
        has_graphs=True,
        streams=1800,
        refused={"soft-capped attention": NO_SOFT_CAP},
    ),
    "Ascend910_93": Hardware(
        name="910_93",
        products="Atlas 800I A3, Atlas A3 training",
        operator_set="npu",
        dtypes=("bfloat16", "float16"),
        block_sizes=(128, 64, 32, 16),
        head_sizes=(64, 128),
        max_head_size=256,
        max_heads_per_kv_head=64,
        latent_sizes=LatentSizes(latent=512, rope=64, nope=128, value=128),
        moe_communication=(
            MoeCommunication(
                "mc2",
                num_ranks=range(2, 768 + 1),
                max_tokens=512,
                max_top_k=16,
                hidden_sizes=range(1024, 8192 + 1),
                equal_shares=True,
            ),
            MoeCommunication("all_to_all"),
        ),
        moe_communication_if_asked=("all_gather",),
        has_graphs=True,
        streams=1800,
        refused={"soft-capped attention": NO_SOFT_CAP},
    ),
}
UNTRIED = {
    "Ascend950": "the 950 has other operators and cache layouts, which nobody has run with this project yet",
}


def hardware_of(soc_name: str) -> Hardware:
    """The row of a chip, by CANN's name for it: Ascend910B3.

    Raises RuntimeError for a chip that has none, or that is known and not supported.
    """
    for beginning, hardware in CHIPS.items():
        if soc_name.startswith(beginning):
            return hardware
    supported = "; ".join(f"{hardware.name} ({hardware.products})" for hardware in CHIPS.values())
    reason = next(
        (why for beginning, why in UNTRIED.items() if soc_name.startswith(beginning)), "this project does not know it"
    )
    raise RuntimeError(
        f"the chip {soc_name} is not supported: {reason}. Supported are {supported}. "
        "Set ASCEND_OP_SET=cpu to run on the CPU of this machine."
    )
