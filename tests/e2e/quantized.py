"""One quantized model after the other, through Hugging Face with the naive formula and through the engine.

Run as `python -m tests.e2e.quantized FOLDER [FORMAT...]`: builds the models below FOLDER and prints one JSON line for
each, as tests/e2e/families.py does.
"""

import json
import sys
import traceback
from dataclasses import asdict
from pathlib import Path

from tests.e2e.as_library import use_vllm_as_library
from tests.e2e.families import HuggingFace, Result, ask_engine, prompts
from tests.models import FAMILIES, Family
from tests.quantized import FORMATS, Format, put_back

# Layers with biases; all others are LLaMA's.
ON_QWEN2 = ("ModelSlim W8A8_DYNAMIC", "AWQ", "GPTQ with zero points")


def compare(format: Format, family: Family, folder: Path) -> Result:
    """Both answers to the same prompts. What the engine refuses is a result too."""
    result = Result(format.name)
    plain = folder / family.name
    if not plain.exists():
        family.build(plain)
    quantized = folder / result.family
    weights = format.quantize(plain, quantized)
    reference = HuggingFace(
        family, plain, quantized, change=lambda model: put_back(model, weights, format.int8_activations)
    )
    try:
        ask_engine(family, quantized, reference.answers(prompts()), result)
    except Exception as error:
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {error}"
    return result


def main() -> None:
    use_vllm_as_library()
    from core_backend import upstream_patches
    from core_backend.device import current_device

    upstream_patches.inspect_model_in_process()  # no process of its own for every architecture
    if current_device().type == "npu":
        upstream_patches.npu_memory_for_accelerator()  # which is cleared also where no worker came to be
    for name in sys.argv[2:] or FORMATS:
        family = FAMILIES["Qwen2" if name in ON_QWEN2 else "LLaMA"]
        print(json.dumps(asdict(compare(FORMATS[name], family, Path(sys.argv[1])))), flush=True)


if __name__ == "__main__":
    main()
