"""Adapters on their way into an engine that serves: vLLM's managers, with what they do not check."""

from contextlib import AbstractContextManager
from pathlib import Path

from vllm.distributed import get_pp_group
from vllm.lora.lora_model import LoRAModel
from vllm.lora.model_manager import DEFAULT_LANGUAGE_WRAPPER_KEY, LRUCacheLoRAModelManager
from vllm.lora.request import LoRARequest
from vllm.lora.utils import get_adapter_absolute_path
from vllm.lora.worker_manager import LRUCacheWorkerLoRAManager
from vllm.model_executor.layers.fused_moe import FusedMoE

from core_backend.lora.adapter import check_config, check_folder
from core_backend.lora.rows import NO_ADAPTER
from core_backend.lora.targets import targets, why_not_fitting

NUM_SHOWN = 3  # of the layers that do not fit


class AscendLoRAModelManager(LRUCacheLoRAModelManager):
    """The adapters in the engine's slots."""

    def _match_target_modules(self, module_name: str) -> bool:
        """Experts have no LoRA: the other layers of such a model do, and an adapter for experts is refused."""
        return bool(super()._match_target_modules(module_name)) and not isinstance(
            self.model.get_submodule(module_name), FusedMoE
        )

    def activate_adapter(self, lora_id: int) -> bool:
        """vLLM (0.23) keeps the last step's mapping while the ids are the same, although slots may have changed."""
        has_new_slot = bool(super().activate_adapter(lora_id))
        if has_new_slot:
            self._last_mapping = None
        return has_new_slot

    def logits_of(self, lora_id: int) -> AbstractContextManager[None]:
        """All logits that are computed meanwhile are of one adapter, or of none (0)."""
        prefix = self.mm_mapping.language_model[0] if self.supports_mm else DEFAULT_LANGUAGE_WRAPPER_KEY
        slot = self.lora_index_to_id.index(lora_id) if lora_id else NO_ADAPTER
        context: AbstractContextManager[None] = self.punica_wrapper_mapping[prefix].logits_of(slot)
        return context

    def check_fits(self, lora: LoRAModel) -> None:
        """Raises ValueError for an adapter that changes layers which are not here, or have other sizes.

        vLLM looks at the last part of a name only, and copies smaller matrices into a part of its own.
        """
        known = targets(self.modules, self.packed_modules)
        if self.is_pooling_model:  # vLLM finds their layers with and without the prefix
            known.update({name.removeprefix("model."): sizes for name, sizes in known.items()})
        # A rank of a pipeline has a part of the layers.
        unknown = sorted(set(lora.loras) - set(known)) if get_pp_group().world_size == 1 else []
        faults = [f"this model has no layer {name} that adapters may change" for name in unknown]
        for name, weights in lora.loras.items():
            if (sizes := known.get(name)) and (fault := why_not_fitting(name, weights, sizes)):
                faults.append(fault)
        if faults:
            more = f", and {len(faults) - NUM_SHOWN} more" if len(faults) > NUM_SHOWN else ""
            raise ValueError(f"{'; '.join(faults[:NUM_SHOWN])}{more}: was it made for another model?")


class AscendWorkerLoRAManager(LRUCacheWorkerLoRAManager):
    """Loads adapters, and says by name why one is not served."""

    _manager_cls = AscendLoRAModelManager

    def logits_of(self, lora_id: int) -> AbstractContextManager[None]:
        """All logits that are computed meanwhile are of one adapter, or of none (0)."""
        context: AbstractContextManager[None] = self._adapter_manager.logits_of(lora_id)
        return context

    def _load_adapter(self, lora_request: LoRARequest) -> LoRAModel:
        """Raises ValueError; the engine serves on."""
        try:
            if lora_request.load_inplace:
                raise ValueError(
                    "load_inplace would leave what the prefix cache holds of its predecessor: unload that one, and "
                    "load this."
                )
            folder = Path(get_adapter_absolute_path(lora_request.lora_path))
            check_config(check_folder(folder), self.lora_config)
            lora = super()._load_adapter(lora_request)
            self._adapter_manager.check_fits(lora)
        except Exception as error:
            raise ValueError(f"LoRA adapter {lora_request.lora_name!r} cannot be served: {error}") from error
        return lora
