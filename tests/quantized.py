"""Tiny models with quantized weights, in the formats in which real ones come, and the naive formula of each.

The linear layers of the decoder are rounded to the nearest (no calibration), stored as the format packs them, and put
back into the Hugging Face model as what the integers stand for.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

Stored = dict[str, Tensor]  # what takes the place of ".weight" in the checkpoint
GROUP = 32


@dataclass(frozen=True)
class Format:
    """How one weight [output_size, input_size] is stored, and what config.json says of it."""

    name: str
    store: Callable[[Tensor], tuple[Stored, Tensor]]  # and the weight that it stands for
    config: dict[str, Any] = field(default_factory=dict)
    description: bool = False  # ModelSlim's file next to the weights
    int8_activations: bool = False

    def quantize(self, plain: Path, folder: Path) -> dict[str, Tensor]:
        """Write the model in `plain` to `folder`, quantized; returns the weights that its layers stand for."""
        shutil.copytree(plain, folder, ignore=shutil.ignore_patterns("*.safetensors"))
        stored: Stored = {}
        meant, kinds = {}, {}
        for name, tensor in load_file(plain / "model.safetensors").items():
            layer = name.removesuffix(".weight")
            if not (".layers." in name and name.endswith("_proj.weight")):
                stored[name], kinds[name] = tensor, "FLOAT"
                continue
            parts, meant[layer] = self.store(tensor)
            stored |= {f"{layer}.{part}": values.contiguous() for part, values in parts.items()}
            kinds |= {f"{layer}.{part}": "W8A8_DYNAMIC" for part in parts}
        save_file(stored, folder / "model.safetensors", {"format": "pt"})
        self._describe(folder, kinds)
        return meant

    def _describe(self, folder: Path, kinds: dict[str, str]) -> None:
        if self.description:
            header = {"model_quant_type": "W8A8_DYNAMIC", "version": "1.0.0", "group_size": 0}
            (folder / "quant_model_description.json").write_text(json.dumps(header | kinds))
            return
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"quantization_config": self.config}))


class Int8Linear(nn.Module):
    """x rounded to int8 by its largest magnitude, times the integers of the weight: in fp64, which holds the sums."""

    def __init__(self, linear: nn.Linear, weight: Tensor) -> None:
        super().__init__()
        self.bias = linear.bias
        self.scale = weight.abs().amax(1) / 127
        self.integers = (weight / self.scale[:, None]).round()

    def forward(self, x: Tensor) -> Tensor:
        scale = x.abs().amax(-1, keepdim=True) / 127
        sums = (x / scale).round().double() @ self.integers.double().t()
        out = sums.float() * self.scale * scale
        return out if self.bias is None else out + self.bias


def put_back(model: nn.Module, meant: dict[str, Tensor], int8_activations: bool) -> None:
    """Let the Hugging Face model compute what the quantized layers mean."""
    for name, weight in meant.items():
        linear = model.get_submodule(name)
        if int8_activations:
            model.set_submodule(name, Int8Linear(linear, weight))
        else:
            linear.weight.data = weight


def int8_per_output(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Integers, scales [output_size, 1], and the weight meant. Every row has a 127, which tells its scale."""
    scale = weight.abs().amax(1, keepdim=True) / 127
    integers = (weight / scale).round()
    return integers.to(torch.int8), scale, integers * scale


def in_groups(
    weight: Tensor, num_bits: int, *, symmetric: bool, groups: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Unsigned integers, scales and zero points [output_size, num_groups] in fp16's grid, and the weight meant."""
    largest, middle = 2**num_bits - 1, 2 ** (num_bits - 1)
    scales, zeros = [], []
    for group in range(int(groups.max()) + 1):
        values = weight[:, groups == group]
        low, high = values.amin(1).clamp(max=0), values.amax(1).clamp(min=0)
        span = 2 * torch.maximum(-low, high) if symmetric else high - low
        scale = (span / largest).half().float()
        scales.append(scale)
        zeros.append(torch.full_like(scale, middle) if symmetric else (-low / scale).round().clamp(1, largest))
    scale, zero = torch.stack(scales, 1), torch.stack(zeros, 1)
    integers = (weight / scale[:, groups] + zero[:, groups]).round().clamp(0, largest)
    return integers.int(), scale, zero.int(), (integers - zero[:, groups]) * scale[:, groups]


def in_order(weight: Tensor) -> Tensor:
    """Inputs 0 to 31 are group 0, and so on."""
    return torch.arange(weight.shape[1]) // GROUP


def shuffled(weight: Tensor) -> Tensor:
    """The same number of inputs in each group, in no order: as activations order them."""
    return in_order(weight)[torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(1))]


def one_group(weight: Tensor) -> Tensor:
    """All inputs."""
    return torch.zeros(weight.shape[1], dtype=torch.long)


def pack_rows(values: Tensor, num_bits: int, order: tuple[int, ...] | None = None) -> Tensor:
    """Words of 32 bits out of the unsigned integers in each row, word by word as AutoGPTQ's and AutoAWQ's loops do."""
    per_word = 32 // num_bits
    packed = torch.zeros(values.shape[0], values.shape[1] // per_word, dtype=torch.int64)
    for word in range(packed.shape[1]):
        for position, column in enumerate(order or range(per_word)):
            packed[:, word] |= values[:, word * per_word + column].long() << (position * num_bits)
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).int()


def awq(weight: Tensor) -> tuple[Stored, Tensor]:
    """AutoAWQ's gemm."""
    integers, scale, zero, meant = in_groups(weight, 4, symmetric=False, groups=in_order(weight))
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    stored = {
        "qweight": pack_rows(integers.t(), 4, order),
        "qzeros": pack_rows(zero.t(), 4, order),
        "scales": scale.t().half(),
    }
    return stored, meant


def gptq(
    num_bits: int, *, symmetric: bool, groups: Callable[[Tensor], Tensor] = in_order, shift: int = 1
) -> Callable[[Tensor], tuple[Stored, Tensor]]:
    """AutoGPTQ's: inputs packed, zero points stored less `shift`."""

    def store(weight: Tensor) -> tuple[Stored, Tensor]:
        of_input = groups(weight)
        integers, scale, zero, meant = in_groups(weight, num_bits, symmetric=symmetric, groups=of_input)
        stored = {
            "qweight": pack_rows(integers, num_bits).t(),
            "qzeros": pack_rows(zero.t() - shift, num_bits),
            "scales": scale.t().half(),
            "g_idx": of_input.int(),
        }
        return stored, meant

    return store


def packed_by_compressed_tensors(
    num_bits: int, *, symmetric: bool = True, groups: Callable[[Tensor], Tensor] = in_order
) -> Callable[[Tensor], tuple[Stored, Tensor]]:
    """pack-quantized, by compressed-tensors' own packing of signed integers."""

    def store(weight: Tensor) -> tuple[Stored, Tensor]:
        # Not at the top: importing it warns of torch's own deprecated parts.
        from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32

        of_input, middle = groups(weight), 2 ** (num_bits - 1)
        integers, scale, zero, meant = in_groups(weight, num_bits, symmetric=symmetric, groups=of_input)
        stored = {
            "weight_packed": pack_to_int32((integers - middle).to(torch.int8), num_bits),
            "weight_scale": scale,
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            signed = (zero - middle).to(torch.int8)
            stored["weight_zero_point"] = pack_to_int32(signed, num_bits, packed_dim=0)
        if groups is shuffled:
            stored["weight_g_idx"] = of_input.int()
        return stored, meant

    return store


def w8a8(weight: Tensor) -> tuple[Stored, Tensor]:
    """int-quantized, one scale per output."""
    integers, scale, meant = int8_per_output(weight)
    return {"weight": integers, "weight_scale": scale}, meant


def modelslim(weight: Tensor) -> tuple[Stored, Tensor]:
    """W8A8_DYNAMIC."""
    stored, meant = w8a8(weight)
    return stored | {"weight_offset": torch.zeros_like(stored["weight_scale"])}, meant


def compressed_tensors(
    packing: str, weights: dict[str, Any], activations: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What llm-compressor writes into config.json."""
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations, "output_activations": None}
    return {
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "format": packing,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {"group_0": group},
    }


def integers(num_bits: int, strategy: str, **others: Any) -> dict[str, Any]:
    """Quantization arguments of compressed-tensors."""
    return {"num_bits": num_bits, "type": "int", "symmetric": True, "strategy": strategy, "dynamic": False, **others}


IN_GROUPS = {"strategy": "group", "group_size": GROUP}
PER_TOKEN = integers(8, "token", dynamic=True)
AWQ_CONFIG = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "zero_point": True, "version": "gemm"}
GPTQ_CONFIG = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}
W8A8_CONFIG = compressed_tensors("int-quantized", integers(8, "channel"), PER_TOKEN)

FORMATS = {
    format.name: format
    for format in (
        Format("compressed-tensors W8A8", w8a8, W8A8_CONFIG, int8_activations=True),
        Format("ModelSlim W8A8_DYNAMIC", modelslim, description=True, int8_activations=True),
        Format(
            "compressed-tensors W4A16",
            packed_by_compressed_tensors(4),
            compressed_tensors("pack-quantized", integers(4, **IN_GROUPS)),
        ),
        Format(
            "compressed-tensors W4A16 with zero points",
            packed_by_compressed_tensors(4, symmetric=False),
            compressed_tensors(
                "pack-quantized",
                integers(
                    4,
                    **IN_GROUPS,
                )
                | {"symmetric": False},
            ),
        ),
        Format(
            "compressed-tensors W4A16 in order of activations",
            packed_by_compressed_tensors(4, groups=shuffled),
            compressed_tensors("pack-quantized", integers(4, **IN_GROUPS, actorder="group")),
        ),
        Format(
            "compressed-tensors W8A16",
            packed_by_compressed_tensors(8, groups=one_group),
            compressed_tensors("pack-quantized", integers(8, "channel")),
        ),
        Format("AWQ", awq, AWQ_CONFIG),
        Format("GPTQ", gptq(4, symmetric=True), GPTQ_CONFIG),
        Format("GPTQ with zero points", gptq(4, symmetric=False), GPTQ_CONFIG | {"sym": False}),
        Format(
            "GPTQ v2 with zero points",
            gptq(4, symmetric=False, shift=0),
            GPTQ_CONFIG | {"sym": False, "checkpoint_format": "gptq_v2"},
        ),
        Format(
            "GPTQ in order of activations",
            gptq(4, symmetric=True, groups=shuffled),
            GPTQ_CONFIG | {"desc_act": True},
        ),
        Format(
            "GPTQ in 8 bits", gptq(8, symmetric=True, groups=one_group), GPTQ_CONFIG | {"bits": 8, "group_size": -1}
        ),
    )
}
