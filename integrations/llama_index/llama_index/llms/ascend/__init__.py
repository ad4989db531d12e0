"""LlamaIndex on Ascend: the name is reserved, its classes are not written yet."""
