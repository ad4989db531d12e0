import json

from tools.vllm_names import TARGET, names


def test_the_list_of_names_is_that_of_the_installed_vllm():
    """If not: run `make vllm-names`."""
    assert json.loads(TARGET.read_text()) == json.loads(json.dumps(names()))
