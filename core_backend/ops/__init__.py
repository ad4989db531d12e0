"""One operator vocabulary (vocabulary.py), and the operator sets that run it (cpu, npu)."""
