"""LLaMA-Factory's own tests of chat, from its source distribution, on our engine."""

import importlib.util
import subprocess
import sys
import tarfile

import pytest

from llamafactory_ascend.register import VERSION
from tests.integrations.llamafactory.test_families import build_with_marks

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("_event_loop")]


@pytest.fixture
def its_tests(tmp_path, request):
    """tests/e2e/test_chat.py, which is for a model of the hub, here of a model of the same kind on this machine."""
    request.config.addinivalue_line("markers", "runs_on: of LLaMA-Factory's tests, the devices that they are for")
    download = ["download", "--quiet", "--no-deps", "--no-binary", "llamafactory", f"llamafactory=={VERSION}"]
    subprocess.run([sys.executable, "-m", "pip", *download, "--dest", str(tmp_path)], check=True)
    (archive,) = tmp_path.glob("llamafactory-*.tar.gz")
    with tarfile.open(archive) as source:
        source.extractall(tmp_path, filter="data")
    file = tmp_path / f"llamafactory-{VERSION}" / "tests" / "e2e" / "test_chat.py"
    spec = importlib.util.spec_from_file_location("llamafactory_test_chat", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_they_pass(its_tests, tmp_path):
    folder = build_with_marks("LLaMA 3.1", tmp_path / "model")
    given = {**its_tests.INFER_ARGS, "model_name_or_path": str(folder), "max_new_tokens": 8}
    # What its own engine says, in place of the answer of the model on the hub.
    its_tests.EXPECTED_RESPONSE = its_tests.ChatModel(given).chat(its_tests.MESSAGES)[0].response_text
    assert its_tests.EXPECTED_RESPONSE
    its_tests.INFER_ARGS = {**given, "infer_backend": "ascend", "infer_dtype": "float32"}
    functions = [function for name, function in vars(its_tests).items() if name.startswith("test_")]
    assert len(functions) == 2
    for function in functions:
        function()
