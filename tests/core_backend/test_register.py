import importlib.metadata
import threading

import core_backend
from core_backend import plugins


def test_the_platform_is_found_by_vllm():
    (entry_point,) = importlib.metadata.entry_points(group="vllm.platform_plugins", name="ascend_adapters")
    assert entry_point.load()() == "core_backend.platform.cpu.CpuPlatform"


def test_another_vllm_is_refused_with_the_remedy(monkeypatch, caplog):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.31.2")
    assert core_backend.register() is None
    assert "written for vLLM 0.23.x and found 0.31.2. Install vllm==0.23.0" in caplog.text


def test_beside_vllm_ascend_it_stands_aside_with_one_line_unless_it_is_chosen(monkeypatch, caplog):
    monkeypatch.setattr(plugins, "others", lambda: {"ascend": "vllm_ascend"})
    assert core_backend.register() is None
    assert "vllm_ascend is installed too, and vLLM takes one platform only" in caplog.text
    monkeypatch.setenv("VLLM_PLUGINS", "ascend_adapters")
    assert core_backend.register() == "core_backend.platform.cpu.CpuPlatform"


def test_engine_processes_are_prepared_under_the_same_name_and_others_left_alone():
    (entry_point,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="ascend_adapters")
    threads = threading.enumerate()
    entry_point.load()()
    assert threading.enumerate() == threads
