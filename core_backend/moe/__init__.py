"""Mixture of experts: who is chosen, the experts of this rank, and the way to those of other ranks."""
