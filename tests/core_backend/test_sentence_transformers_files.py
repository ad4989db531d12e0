"""What sentence-transformers writes today says to vLLM what it said in older files; what vLLM lacks is refused."""

import pytest

from core_backend.sentence_transformers_files import as_vllm_reads


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("sentence_transformers.base.modules.transformer.Transformer", "sentence_transformers.models.Transformer"),
        ("sentence_transformers.sentence_transformer.modules.pooling.Pooling", "sentence_transformers.models.Pooling"),
        ("sentence_transformers.models.Normalize", "sentence_transformers.models.Normalize"),
        ("pylate.models.Dense.Dense", "pylate.models.Dense.Dense"),  # another library's
    ],
)
def test_modules_have_the_class_paths_of_older_releases(written, read):
    assert as_vllm_reads("modules.json", [{"path": "1_X", "type": written}]) == [{"path": "1_X", "type": read}]


def test_a_module_that_would_be_left_out_is_refused():
    path = "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm"
    with pytest.raises(ValueError, match=r"names LayerNorm .*does not compute: it has Transformer.*Use another model"):
        as_vllm_reads("modules.json", [{"type": path}])


@pytest.mark.parametrize(
    "written",
    [
        {"pooling_mode": "lasttoken"},
        {"pooling_mode": ["lasttoken"]},
        {"pooling_mode_cls_token": False, "pooling_mode_lasttoken": True},
    ],
)
def test_the_pooling_mode_is_a_flag(written):
    flags = {key: value for key, value in as_vllm_reads("1_Pooling/config.json", written).items() if value is True}
    assert flags == {"pooling_mode_lasttoken": True}


@pytest.mark.parametrize(
    ("written", "modes"),
    [
        ({"pooling_mode": "weightedmean"}, "weightedmean"),
        ({"pooling_mode": ["cls", "max"]}, "cls and max"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "mean and cls"),
        ({"pooling_mode_max_tokens": True}, "pooling_mode_max_tokens"),
    ],
)
def test_pooling_that_vllm_does_not_have_is_refused(written, modes):
    with pytest.raises(ValueError, match=f"pools its tokens by {modes}, and the engine by one of cls, mean, lasttoken"):
        as_vllm_reads("1_Pooling/config.json", written)


def test_other_files_stay_as_they_are():
    assert as_vllm_reads("config.json", {"hidden_size": 4}) == {"hidden_size": 4}
    assert as_vllm_reads("modules.json", None) is None


def test_texts_that_become_chat_messages_are_refused():
    with pytest.raises(ValueError, match=r"puts every text into a chat message.*take message out"):
        as_vllm_reads("sentence_bert_config.json", {"modality_config": {"text": {}, "message": {}}})
    assert as_vllm_reads("sentence_bert_config.json", {"max_seq_length": 8}) == {"max_seq_length": 8}
