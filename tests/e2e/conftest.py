from pathlib import Path

import pytest

from tests.e2e.prompts import Reference, prompts_of


@pytest.fixture(scope="session")
def reference(chat_model_folder: Path) -> Reference:
    return Reference(chat_model_folder)


@pytest.fixture(scope="session")
def prompts(reference: Reference) -> list[list[int]]:
    """32 prompts of 5 to 900 tokens."""
    return prompts_of([5 + i * 895 // 31 for i in range(32)], reference)


@pytest.fixture(scope="session")
def expected(reference: Reference, prompts: list[list[int]]) -> list[list[int]]:
    """What Hugging Face answers to each of the 32 prompts."""
    return reference.greedy_of_each(prompts)
