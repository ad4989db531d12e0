"""Mixture of experts for vLLM: which experts a token goes to, the experts of this rank, and the way to those of others."""
