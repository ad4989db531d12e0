"""LoRA: which rows of a step belong to which adapter, and what an adapter must be to be served."""
