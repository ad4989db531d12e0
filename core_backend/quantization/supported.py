"""Which quantized models run here, and how those that do not are refused: by name, before anything is loaded."""

from typing import NoReturn

import torch
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from core_backend.hardware import Hardware

ACTIVATION_DTYPES = [torch.bfloat16, torch.float16, torch.float32]

# vLLM's name of a format -> what of it runs here.
SUPPORTED = {
    "compressed-tensors": "int8 weights with int8 activations scaled per token, or int4 and int8 weights alone",
    "awq": "int4",
    "gptq": "int4 and int8",
    "auto_gptq": "vLLM's name for gptq",
    "ascend": "ModelSlim's W8A8_DYNAMIC",
}
REMEDY = {
    "gguf": "give the .gguf file to ascend-adapters as the model, which converts it once",
    "awq_marlin": "leave quantization unset: it is awq with a GPU's kernels",
    "gptq_marlin": "leave quantization unset: it is gptq with a GPU's kernels",
}
OTHERWISE = "use the unquantized model, or one that is quantized so"


def refuse(what: str, remedy: str = OTHERWISE) -> NoReturn:
    """Raises NotImplementedError that says what runs here instead."""
    formats = "; ".join(f"{name} ({what_of_it})" for name, what_of_it in SUPPORTED.items() if name != "auto_gptq")
    raise NotImplementedError(f"{what} is not supported here: {remedy}. Supported are {formats}.")


def check_method(name: str) -> None:
    """Raises NotImplementedError for a format that has no layers here, by vLLM's name for it."""
    if name not in SUPPORTED:
        refuse(f"quantization {name}", REMEDY.get(name, OTHERWISE))


def refuse_experts(name: str) -> NoReturn:
    """Raises NotImplementedError for a quantized mixture of experts."""
    refuse(f"a mixture of experts quantized by {name}", "use the unquantized model")


def check_chip(quantization: QuantizationConfig | None, hardware: Hardware) -> None:
    """Raises NotImplementedError if the chip does not have what the model's layers need."""
    for feature in getattr(quantization, "chip_features", ()):
        hardware.check_feature(feature)
