import importlib.metadata

import core_backend


def test_the_platform_is_found_by_vllm():
    (entry_point,) = importlib.metadata.entry_points(group="vllm.platform_plugins", name="ascend_adapters")
    assert entry_point.load()() == "core_backend.platform.cpu.CpuPlatform"


def test_another_vllm_is_refused_with_the_remedy(monkeypatch, caplog):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.31.2")
    assert core_backend.register() is None
    assert "written for vLLM 0.23.x and found 0.31.2. Install vllm==0.23.0" in caplog.text
