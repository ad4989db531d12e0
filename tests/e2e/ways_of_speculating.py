"""How tokens are drafted in tests/e2e/speculating.py, by vLLM's speculative_config."""

from typing import Any

NUM_DRAFT_TOKENS = 3
NUM_NEW_TOKENS = 24
WAYS: dict[str, dict[str, Any]] = {
    "none": {},
    "ngram": {"method": "ngram", "prompt_lookup_max": 3, "prompt_lookup_min": 1},
    "draft model": {"method": "draft_model", "model": "draft"},
    "sampled drafts": {"method": "draft_model", "model": "draft", "draft_sample_method": "probabilistic"},
    "EAGLE": {"method": "eagle", "model": "eagle"},
}
