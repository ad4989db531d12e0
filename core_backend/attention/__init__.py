"""Attention for vLLM: what it is told about a step (metadata.py), and the order of operator calls (impl.py)."""
