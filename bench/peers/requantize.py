"""A GGUF with its weights as 16-bit floats, by llama.cpp: `requantize.py SOURCE TARGET bf16|f16`."""

import sys

import llama_cpp

TYPES = {"f16": 1, "bf16": 32}  # llama.h, enum llama_ftype


def main(source: str, target: str, kind: str) -> None:
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = TYPES[kind]
    settings.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), target.encode(), settings) != 0:
        sys.exit(f"{source} could not be written as {kind}")


if __name__ == "__main__":
    main(*sys.argv[1:])
