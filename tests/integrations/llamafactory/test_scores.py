"""Reward models: a value head, which LLaMA-Factory's own engine computes."""

import pytest

from ascend_adapters.errors import RequestError
from tests.models import FAMILIES, SIZES

pytestmark = pytest.mark.usefixtures("_event_loop")


def test_a_reward_model_scores_and_does_not_chat(tmp_path, caplog):
    import torch
    from llamafactory.chat.chat_model import ChatModel
    from safetensors.torch import save_file

    FAMILIES["LLaMA"].build(tmp_path)
    generator = torch.Generator().manual_seed(0)
    head = {"v_head.summary.weight": torch.randn(1, SIZES["hidden_size"], generator=generator)}
    save_file({**head, "v_head.summary.bias": torch.zeros(1)}, tmp_path / "value_head.safetensors")
    arguments = {"model_name_or_path": str(tmp_path), "template": "empty", "stage": "rm"}
    texts = ["Paris is the capital of France.", "No.", "word " * 20]
    ours = ChatModel({**arguments, "infer_backend": "ascend"})
    scores = ours.get_scores(texts)
    assert scores == pytest.approx(ChatModel({**arguments, "infer_backend": "huggingface"}).get_scores(texts))
    assert len(set(scores)) == len(texts)
    with pytest.raises(RequestError, match="stage 'rm' is a reward model: it scores, and does not chat"):
        ours.chat([{"role": "user", "content": "Hi"}])
