"""The features of llama-index-llms-openai-like, in an environment of its own: it does not install beside vLLM.

python -m tests.integrations.features takes {"where": ..., "where_it_thinks": ...} as JSON, and writes the outcomes.
"""

import json
import sys
from dataclasses import asdict

from tests.integrations.features.columns import openai_like, outcomes
from tests.integrations.features.on_llama_index import FEATURES

if __name__ == "__main__":
    found = outcomes(FEATURES, openai_like(**json.loads(sys.argv[1])))
    print(json.dumps({name: asdict(outcome) for name, outcome in found.items()}))
