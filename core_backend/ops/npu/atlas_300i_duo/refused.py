"""What this chip has no operators for. The chip table refuses it before a model is loaded."""

from typing import Any, NoReturn

from torch import Tensor


def _refuse(what: str) -> NoReturn:
    raise NotImplementedError(f"the Atlas 300I Duo (310P) has no operator for {what}: use another model or chip.")


def mla_paged_attention(*args: Any, **kwargs: Any) -> None:
    """Raises NotImplementedError."""
    _refuse("latent attention (MLA)")


def mla_varlen_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    """Raises NotImplementedError."""
    _refuse("latent attention (MLA)")


def merge_attention(outs: list[Tensor], lses: list[Tensor]) -> Tensor:
    """Raises NotImplementedError."""
    _refuse("merging attention")


def quantize_per_token(x: Tensor) -> tuple[Tensor, Tensor]:
    """Raises NotImplementedError."""
    _refuse("quantization per token (W8A8 dynamic)")


def pack_quantized_weight(weight: Tensor) -> Tensor:
    """Raises NotImplementedError."""
    _refuse("quantization per token (W8A8 dynamic)")


def quantized_linear(x: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None) -> Tensor:
    """Raises NotImplementedError."""
    _refuse("quantization per token (W8A8 dynamic)")
