"""What our platforms share, whatever the device."""

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from vllm.platforms.interface import Platform, PlatformEnum
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from core_backend import media, upstream_patches
from core_backend.config import BackendConfig
from core_backend.device import current_device
from core_backend.metrics import publish_device, publish_modalities
from core_backend.ops.table import operator_set_name

if TYPE_CHECKING:
    from vllm.config import VllmConfig
    from vllm.inputs.engine import EngineInput
    from vllm.utils.argparse_utils import FlexibleArgumentParser

# Ways to draft tokens that run here, by vLLM's names.
SPECULATION = ("ngram", "draft_model", "eagle")

V2_MODEL_RUNNER = "VLLM_USE_V2_MODEL_RUNNER"


class AscendPlatform(Platform):
    """Ascend NPUs; on a machine without one, the CPU."""

    # OOT on every device: vLLM's own `is_cpu()` branches would expect its compiled CPU kernels.
    _enum = PlatformEnum.OOT
    simple_compile_backend = "eager"
    worker_cls = ""
    # Of the models of this process the largest; 0 before there is one.
    vocab_size: ClassVar[int] = 0

    @classmethod
    def import_kernels(cls) -> None:
        """vLLM's compiled kernels are for other devices; ours are the operator sets."""

    @classmethod
    def check_if_supports_dtype(cls, dtype: torch.dtype) -> None:
        """Raises ValueError for a dtype that the chip does not compute in."""
        current_device().hardware.check_dtype(str(dtype).removeprefix("torch."))

    @classmethod
    def opaque_attention_op(cls) -> bool:
        return True

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return "core_backend.worker.communicator.AscendCommunicator"

    @classmethod
    def support_hybrid_kv_cache(cls) -> bool:
        return True

    @classmethod
    def get_punica_wrapper(cls) -> str:
        return "core_backend.lora.punica.AscendPunicaWrapper"

    @classmethod
    def get_attn_backend_cls(
        cls, selected_backend: Any, attn_selector_config: Any, num_heads: int | None = None
    ) -> str:
        """Our attention backend, or an error that says what the model's attention needs and it does not have."""
        if selected_backend not in (None, AttentionBackendEnum.CUSTOM):
            raise ValueError(
                f"attention backend {selected_backend.name} is not for this device: leave --attention-backend unset."
            )
        from core_backend.attention.backend import AscendAttentionBackend
        from core_backend.attention.mla import AscendMLABackend

        backend = AscendMLABackend if attn_selector_config.use_mla else AscendAttentionBackend
        if attn_selector_config.use_mla:
            current_device().hardware.check_feature("MLA")
        reasons = backend.validate_configuration(**attn_selector_config._asdict(), device_capability=None)
        if reasons:
            raise NotImplementedError(
                f"this model's attention cannot run here: {', '.join(reasons)}. Choose another model, or leave the "
                "setting that asks for it (kv_cache_dtype, block_size) unset."
            )
        return f"{backend.__module__}.{backend.__name__}"

    @classmethod
    def pre_register_and_update(cls, parser: "FlexibleArgumentParser | None" = None) -> None:
        """What must be settled before vLLM builds its configuration.

        Raises ValueError if the environment asks for vLLM's second model runner.
        """
        if os.environ.get(V2_MODEL_RUNNER) == "1":
            raise ValueError(f"{V2_MODEL_RUNNER}=1 needs Triton, which has no backend for our devices: unset it.")
        # vLLM looks for Triton by itself, and finds one where a GPU is.
        os.environ[V2_MODEL_RUNNER] = "0"
        from core_backend.quantization.register import register_quantization

        register_quantization()
        # Without a parser this is not `vllm serve`, but vLLM used as a library in somebody's own process.
        if parser is not None:
            from core_backend.tool_parsers import register_tool_parsers

            register_tool_parsers()
            upstream_patches.apply_to_configuration()

    @classmethod
    def verify_quantization(cls, quant: str) -> None:
        """Raises NotImplementedError for a format of quantized weights that has no layers here."""
        from core_backend.quantization.supported import check_method

        check_method(quant)

    @classmethod
    def check_and_update_config(cls, vllm_config: "VllmConfig") -> None:
        """What the device needs, step by step; subclasses add theirs."""
        config = BackendConfig.from_dict(vllm_config.additional_config or {})
        device = current_device()
        publish_device(device, operator_set_name())
        cls._check_model(vllm_config)
        if vllm_config.model_config is not None:
            AscendPlatform.vocab_size = max(AscendPlatform.vocab_size, vllm_config.model_config.get_vocab_size())
        _check_load_balancing(vllm_config)
        if config.moe_communication != "auto":
            device.hardware.check_moe_communication(config.moe_communication)
        _take_media(vllm_config, config)
        _use_worker(vllm_config, cls.worker_cls)
        _use_pooling_scheduler(vllm_config)
        cls._configure(vllm_config, config)

    @classmethod
    def validate_request(cls, processed_inputs: "EngineInput", params: Any) -> None:
        """Raises ValueError for token ids that the model has no embeddings for, which would end the engine core.

        vLLM 0.23 lets some pass: it asks the tokenizer, which may know more tokens than the model, and whose vocab_size
        it takes for an id (vllm/tokenizers/hf.py).
        """
        if processed_inputs["type"] != "token" or not (token_ids := processed_inputs["prompt_token_ids"]):
            return
        size = AscendPlatform.vocab_size
        if size and not (min(token_ids) >= 0 and max(token_ids) < size):
            wrong = next(token_id for token_id in token_ids if not 0 <= token_id < size)
            raise ValueError(f"token id {wrong} is out of vocabulary: the model has the ids 0 to {size - 1}.")

    @classmethod
    def _check_model(cls, vllm_config: "VllmConfig") -> None:
        """Refuse by name what the chip cannot do, before anything is loaded."""
        hardware = current_device().hardware
        if vllm_config.model_config is not None:
            hardware.check_dtype(str(vllm_config.model_config.dtype).removeprefix("torch."))
        if vllm_config.lora_config is not None:
            hardware.check_feature("LoRA")
        _check_quantization(vllm_config)
        if vllm_config.speculative_config is not None:
            check_speculation(vllm_config.speculative_config.method)

    @classmethod
    def _configure(cls, vllm_config: "VllmConfig", config: BackendConfig) -> None:
        raise NotImplementedError


def _check_load_balancing(vllm_config: "VllmConfig") -> None:
    """Raises ValueError for a way to balance the load of experts that has not been tried on our devices."""
    parallel_config = vllm_config.parallel_config
    if not parallel_config.enable_eplb:
        return
    eplb_config = parallel_config.eplb_config
    if eplb_config.use_async:
        raise ValueError(
            "eplb_config: use_async=True is not supported: set it to false (--eplb-config.use_async=false)."
        )
    if eplb_config.communicator != "torch_gloo":
        raise ValueError(f"eplb_config: communicator={eplb_config.communicator!r} is not supported: leave it unset.")


def _check_quantization(vllm_config: "VllmConfig") -> None:
    """ModelSlim's folders are recognized. Raises NotImplementedError for what the chip does not have."""
    from core_backend.quantization.modelslim import recognize
    from core_backend.quantization.supported import check_chip

    recognize(vllm_config)
    check_chip(vllm_config.quant_config, current_device().hardware)


def check_speculation(method: str | None) -> None:
    """Raises NotImplementedError for a way of drafting that was not seen to run, ModuleNotFoundError without numba."""
    if method not in SPECULATION:
        raise NotImplementedError(
            f"speculative decoding by {method} is refused: it has not been made to run on this device. Set the method "
            f"in speculative_config to one of {', '.join(SPECULATION)}."
        )
    if method == "ngram" and find_spec("numba") is None:
        raise ModuleNotFoundError("speculative decoding by ngram needs numba: pip install 'ascend-adapters[engine]'.")


def _take_media(vllm_config: "VllmConfig", config: BackendConfig) -> None:
    """What comes with requests besides text is bounded, and made known."""
    model = vllm_config.model_config
    if model is None:
        return
    publish_modalities(media.modalities(model))
    if model.is_multimodal_model:
        media.bound(config)


def _use_worker(vllm_config: "VllmConfig", worker_cls: str) -> None:
    # Without compiled kernels for it there is no second stream to run shared experts on.
    os.environ["VLLM_DISABLE_SHARED_EXPERTS_STREAM"] = "1"
    parallel_config = vllm_config.parallel_config
    if parallel_config.worker_cls == "auto":
        parallel_config.worker_cls = worker_cls
    parallel_config.disable_custom_all_reduce = True
    if vllm_config.model_config is not None:
        vllm_config.model_config.disable_cascade_attn = True


def _use_pooling_scheduler(vllm_config: "VllmConfig") -> None:
    model_config, scheduler_config = vllm_config.model_config, vllm_config.scheduler_config
    if model_config is None or model_config.runner_type != "pooling" or scheduler_config.scheduler_cls is not None:
        return
    scheduler_config.scheduler_cls = "core_backend.pooling_scheduler.PoolingScheduler"
    scheduler_config.async_scheduling = False  # vLLM's default for pooling models; ours is not that kind of scheduler


def run_eagerly(vllm_config: "VllmConfig") -> None:
    """No torch.compile and no graph capture."""
    from vllm.config import CompilationMode, CUDAGraphMode

    if vllm_config.model_config is not None:
        vllm_config.model_config.enforce_eager = True
    compilation = vllm_config.compilation_config
    compilation.mode = CompilationMode.NONE
    compilation.cudagraph_mode = CUDAGraphMode.NONE
    compilation.cudagraph_capture_sizes = []
    compilation.compile_sizes = []
    compilation.custom_ops = ["all"]
