"""The one set of versions that is tested together. CANN's is the one that torch_npu documents for itself."""

TESTED = {
    "torch": "2.11.0",
    "torch-npu": "2.11.0.post3",
    "vllm": "0.23.0",
    "transformers": "5.5",
    "CANN": "9.2",
}


def matches(found: str, wanted: str) -> bool:
    """Whether a version is `wanted` or a release of it; what follows a + says how it was built."""
    release = found.split("+")[0]
    return release == wanted or release.startswith((f"{wanted}.", f"{wanted}-"))
