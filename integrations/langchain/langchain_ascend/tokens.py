"""Token counts by the model's own tokenizer, for whatever generates: nothing is fetched from a network."""

from ascend_adapters.bridge import run_sync
from ascend_adapters.contract import Body
from langchain_ascend.connection import Connected


class CountsTokens(Connected):
    """get_token_ids and what core builds on it."""

    def get_token_ids(self, text: str) -> list[int]:
        """The ids of a text's tokens, without those that begin or end a prompt. Starts the engine if need be."""
        return self._token_ids({"prompt": text, "add_special_tokens": False}) if text else []

    def get_num_tokens(self, text: str) -> int:
        """How many tokens a text has."""
        return len(self.get_token_ids(text))

    def _token_ids(self, body: Body) -> list[int]:
        return list(run_sync(self._backend.tokenize(body))["tokens"])
