"""The model runner: vLLM's, without what only a CUDA device has."""

from typing import TYPE_CHECKING, Any

import torch
from vllm.config import CUDAGraphMode, VllmConfig
from vllm.distributed import get_pp_group
from vllm.model_executor.models import supports_lora
from vllm.v1.kv_cache_interface import KVCacheConfig
from vllm.v1.outputs import LogprobsTensors
from vllm.v1.utils import CpuGpuBuffer
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from core_backend import upstream_patches
from core_backend.attention.mla import split_latent_cache
from core_backend.device import current_device, npu
from core_backend.lora.loading import AscendWorkerLoRAManager
from core_backend.ops.table import operator_set_name
from core_backend.worker.graphs import AclGraphWrapper
from core_backend.worker.recorded_steps import RecordedModel
from core_backend.worker.sampler import AscendSampler

if TYPE_CHECKING:
    from vllm.v1.core.sched.output import GrammarOutput


RECORDABLE = ("cpu_avx512", "cpu_amx")  # operator sets


class AscendModelRunner(GPUModelRunner):
    """Runs the model's steps on the process's device."""

    num_prompt_logprobs: dict[str, int]  # vLLM's; by request, until its prompt is done

    def __init__(self, vllm_config: VllmConfig, device: torch.device) -> None:
        with upstream_patches.without_cuda_events():
            super().__init__(vllm_config, device)
        self.sampler = AscendSampler(self.model_config.logprobs_mode, self.model_config.use_fp64_gumbel)
        self._share_host_buffers()

    def _share_host_buffers(self) -> None:
        """Where the device is the host, one copy of every input buffer is enough."""
        if self.device.type != "cpu":
            return
        block_tables = self.input_batch.block_table.block_tables
        for owner in (self, *block_tables):
            for buffer in vars(owner).values():
                if isinstance(buffer, CpuGpuBuffer):
                    buffer.gpu = buffer.cpu

    def _init_device_properties(self) -> None:
        """vLLM reads the number of multiprocessors here, for kernels of its own."""

    def _sync_device(self) -> None:
        if self.device.type == "npu":
            torch.accelerator.synchronize()

    def _to_list(self, sampled_token_ids: torch.Tensor) -> list[list[int]]:
        if self.device.type == "npu":
            return super()._to_list(sampled_token_ids)
        token_ids: list[list[int]] = sampled_token_ids.tolist()
        return token_ids

    def sample_tokens(self, grammar_output: "GrammarOutput | None") -> Any:
        """What is sampled in the midst of a prompt is discarded, so it must not advance the request's generator.

        vLLM turns the generator back by the offset that only a device's has; here it is not used at all.
        """
        generators = self.input_batch.generators
        discarded = self.discard_request_mask.np[: self.input_batch.num_reqs].nonzero()[0].tolist()
        unused = {index: generators.pop(index) for index in discarded if index in generators}
        try:
            return super().sample_tokens(grammar_output)
        finally:
            generators.update(unused)

    def _allocate_kv_cache_tensors(self, kv_cache_config: KVCacheConfig) -> dict[str, torch.Tensor]:
        if current_device().hardware.kv_layout == "nd":
            return super()._allocate_kv_cache_tensors(kv_cache_config)
        # Only their sizes are of use: memory in NZ is allocated once the shapes are known.
        return {
            layer: torch.empty(tensor.size, dtype=torch.int8, device="meta")
            for tensor in kv_cache_config.kv_cache_tensors
            for layer in tensor.shared_by
        }

    def _reshape_kv_cache_tensors(
        self, kv_cache_raw_tensors: dict[str, torch.Tensor], kernel_block_sizes: list[int]
    ) -> dict[str, Any]:
        caches = super()._reshape_kv_cache_tensors(kv_cache_raw_tensors, kernel_block_sizes)
        if self.model_config.use_mla:
            latent_size = self.model_config.hf_text_config.kv_lora_rank
            return {layer: split_latent_cache(cache, latent_size) for layer, cache in caches.items()}
        if current_device().hardware.kv_layout == "nd":
            return caches
        return {
            layer: tuple(npu.zeros_in_nz(half.shape, half.dtype) for half in cache) for layer, cache in caches.items()
        }

    def load_model(self, load_dummy_weights: bool = False) -> None:
        with upstream_patches.graphs_of_ours(AclGraphWrapper):
            super().load_model(load_dummy_weights=load_dummy_weights)
        self._forget_recorded_steps()

    def _forget_recorded_steps(self) -> None:
        self.recorded_model = RecordedModel(self.model) if self._can_record() else None

    def _can_record(self) -> bool:
        """Whether the model's operators are all that happens in a step.

        Not so with adapters, which come and go, with other ranks or caches elsewhere, and with pictures, of which some
        models keep something from one step for the next.
        """
        return (
            operator_set_name() in RECORDABLE
            and self.lora_config is None
            and self.vllm_config.kv_transfer_config is None
            and self.parallel_config.world_size == 1
            and not self.supports_mm_inputs
            and not self.is_pooling_model
        )

    def reload_weights(self, *args: Any, **kwargs: Any) -> None:
        super().reload_weights(*args, **kwargs)
        self._forget_recorded_steps()

    def _model_forward(
        self,
        input_ids: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
        intermediate_tensors: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        **model_kwargs: Any,
    ) -> Any:
        forward = self.recorded_model or self.model
        return forward(
            input_ids=input_ids,
            positions=positions,
            intermediate_tensors=intermediate_tensors,
            inputs_embeds=inputs_embeds,
            **model_kwargs,
        )

    def load_lora_model(self, model: torch.nn.Module, vllm_config: VllmConfig, device: torch.device) -> torch.nn.Module:
        """Raises ValueError for a model that vLLM has no LoRA for."""
        if not supports_lora(model):
            raise ValueError(f"vLLM has no LoRA for {type(model).__name__}: leave enable_lora unset.")
        self.lora_manager = AscendWorkerLoRAManager(vllm_config, device, model.embedding_modules)
        return self.lora_manager.create_lora_manager(model, vllm_config)

    def _get_prompt_logprobs_dict(
        self, hidden_states: torch.Tensor, num_scheduled_tokens: dict[str, int]
    ) -> dict[str, LogprobsTensors | None]:
        """One request after the other, each with its adapter: vLLM (0.23) takes those of the rows it samples from."""
        if self.lora_config is None:
            return super()._get_prompt_logprobs_dict(hidden_states, num_scheduled_tokens)
        wanted = self.num_prompt_logprobs
        found: dict[str, LogprobsTensors | None] = {}
        for req_id in [req_id for req_id in wanted if req_id in num_scheduled_tokens]:
            self.num_prompt_logprobs = {req_id: wanted[req_id]}
            lora_id = int(self.input_batch.request_lora_mapping[self.input_batch.req_id_to_index[req_id]])
            with self.lora_manager.logits_of(lora_id):
                found.update(super()._get_prompt_logprobs_dict(hidden_states, num_scheduled_tokens))
            if not self.num_prompt_logprobs:  # the prompt is done
                del wanted[req_id]
        self.num_prompt_logprobs = wanted
        return found

    def capture_model(self) -> int:
        with upstream_patches.graphs_of_ours(AclGraphWrapper):
            return int(super().capture_model())

    def run_eagerly(self) -> None:
        """No graphs from now on."""
        if isinstance(self.model, AclGraphWrapper):
            self.model.give_up()

    def warm_up(self) -> None:
        """One step with as many requests as fit, and its sampling."""
        num_reqs = min(self.scheduler_config.max_num_seqs, self.scheduler_config.max_num_batched_tokens)
        hidden_states, last_hidden_states = self._dummy_run(
            num_reqs, cudagraph_runtime_mode=CUDAGraphMode.NONE, force_attention=True, skip_eplb=True
        )
        if not get_pp_group().is_last_rank:
            return
        if self.is_pooling_model:
            self._dummy_pooler_run(hidden_states)
        else:
            self._dummy_sampler_run(last_hidden_states)
