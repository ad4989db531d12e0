"""`infer_backend: ascend` is known to LLaMA-Factory once registered, and to nobody before."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError

import pytest

from ascend_adapters.errors import SettingError
from llamafactory_ascend import register
from llamafactory_ascend.register import add_engine_name, check_version, route_chat_model


def test_it_may_be_called_again():
    from llamafactory.chat.chat_model import ChatModel
    from llamafactory.extras.constants import EngineName

    register()
    constructor = ChatModel.__init__
    register()
    assert ChatModel.__init__ is constructor
    assert [name.value for name in EngineName].count("ascend") == 1
    assert EngineName("ascend") is EngineName.ASCEND == "ascend"


def test_another_version_is_refused(monkeypatch):
    # By the module's name: the package has a function of that name.
    monkeypatch.setattr(sys.modules["llamafactory_ascend.register"], "version", lambda name: "0.9.6")
    with pytest.raises(SettingError, match=r"0\.9\.6 is installed, and this package was made for 0\.9\.5: pip install"):
        check_version()


def test_without_llamafactory_its_installation_is_named(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(sys.modules["llamafactory_ascend.register"], "version", absent)
    with pytest.raises(SettingError, match=r"not installed: pip install 'ascend-adapters\[llamafactory\]'"):
        check_version()


def test_code_that_has_moved_is_refused(monkeypatch):
    from llamafactory.chat.chat_model import ChatModel

    monkeypatch.setattr(ChatModel, "__init__", lambda self, args=None: None)
    with pytest.raises(SettingError, match="ChatModel is not what it is in version"):
        route_chat_model()
    members = {"HF": "huggingface"}
    monkeypatch.setattr("llamafactory.extras.constants.EngineName", type("EngineName", (), {"__members__": members}))
    with pytest.raises(SettingError, match="EngineName is not what it is in version"):
        add_engine_name()


def run(*arguments):
    command = [sys.executable, "-m", "llamafactory_ascend", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.claim
def test_commands_of_llamafactory_pass_through():
    done = run("version")
    assert "Welcome to LLaMA Factory, version 0.9.5" in done.stdout


def test_a_misspelt_backend_is_refused_with_those_there_are(tmp_path):
    config = tmp_path / "chat.yaml"
    config.write_text("model_name_or_path: nowhere\ntemplate: qwen\ninfer_backend: ascent\n")
    done = run("chat", str(config))
    assert done.returncode != 0
    assert "infer_backend='ascent' is unknown: use huggingface, vllm, sglang, ascend" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.claim
def test_an_unknown_template_is_refused(tmp_path, chat_model_folder):
    config = tmp_path / "chat.yaml"
    config.write_text(f"model_name_or_path: {chat_model_folder}\ntemplate: quen\ninfer_backend: ascend\n")
    done = run("chat", str(config))
    assert done.returncode != 0
    assert "template='quen' is unknown: LLaMA-Factory has qwen" in done.stderr
    assert "Traceback" not in done.stderr
