"""Our readers and kernels of quantized weights, through vLLM's hooks for them."""

from functools import cache

from vllm.model_executor.kernels.linear import register_linear_kernel
from vllm.model_executor.layers.quantization import register_quantization_config
from vllm.platforms import PlatformEnum

from core_backend.quantization.awq import AscendAWQConfig
from core_backend.quantization.compressed_tensors import AscendCompressedTensorsConfig
from core_backend.quantization.gptq import AscendGPTQConfig
from core_backend.quantization.modelslim import ModelSlimConfig
from core_backend.quantization.w8a8 import PerTokenInt8Kernel
from core_backend.quantization.weight_only import DequantizedKernel


@cache
def register_quantization() -> None:
    """Let vLLM take them in this process; later calls do nothing."""
    register_quantization_config("compressed-tensors")(AscendCompressedTensorsConfig)
    register_quantization_config("awq")(AscendAWQConfig)
    register_quantization_config("auto_gptq")(AscendGPTQConfig)
    register_quantization_config("gptq")(AscendGPTQConfig)
    register_quantization_config("ascend")(ModelSlimConfig)
    register_linear_kernel(PerTokenInt8Kernel, PlatformEnum.OOT, "int8")
    register_linear_kernel(DequantizedKernel, PlatformEnum.OOT, "mp")
