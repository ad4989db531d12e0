"""Quantized weights: which formats are read, and what their layers compute with our operators."""
