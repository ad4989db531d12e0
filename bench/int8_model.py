"""A model's linear layers as int8, one scale per output, in compressed-tensors' form (W8A8 dynamic)."""

import json
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

INT8_MAX = 127
LAYERS = ".layers."  # embeddings and the output layer stay as they are
WEIGHTS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
CONFIG = {
    "quant_method": "compressed-tensors",
    "quantization_status": "compressed",
    "format": "int-quantized",
    "ignore": ["lm_head"],
    "config_groups": {
        "group_0": {
            "targets": ["Linear"],
            "weights": WEIGHTS,
            "input_activations": {**WEIGHTS, "strategy": "token", "dynamic": True},
        }
    },
}


def write_int8(plain: Path, folder: Path) -> Path:
    """The folder, with the model of the folder `plain` quantized and everything else that lies there."""
    folder.mkdir()
    for file in plain.iterdir():
        if file.suffix == ".safetensors":
            save_file(_quantized(file), folder / file.name, {"format": "pt"})
        elif not file.name.endswith(".index.json"):  # vLLM reads every file of weights without it
            shutil.copy(file, folder)
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": CONFIG}))
    return folder


def _quantized(file: Path) -> dict[str, torch.Tensor]:
    tensors = {}
    with safe_open(file, framework="pt") as stored:
        for name in stored.keys():  # noqa: SIM118 (it is no dict)
            tensor = stored.get_tensor(name)
            tensors[name] = tensor
            if LAYERS in name and name.endswith(".weight") and tensor.ndim == 2:
                scale = tensor.float().abs().amax(1, keepdim=True) / INT8_MAX
                tensors[name] = (tensor / scale).round().to(torch.int8)
                tensors[f"{name}_scale"] = scale
    return tensors
