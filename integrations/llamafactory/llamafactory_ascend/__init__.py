"""LLaMA-Factory on Ascend: the name is reserved, its engine is not written yet."""
