"""What LLaMA-Factory's template makes of messages, to the body of a request."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ascend_adapters.contract import Body
from ascend_adapters.errors import RequestError
from llamafactory_ascend.media import Media, Message

if TYPE_CHECKING:
    from llamafactory.data.template import Template
    from transformers import PreTrainedTokenizer

# A chat template of the engine's that changes nothing: the text has been through LLaMA-Factory's.
AS_IT_IS = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@dataclass(frozen=True)
class Prompt:
    """Token ids, and what the marks of pictures, videos and sounds among them stand for."""

    token_ids: list[int]
    media: Body  # as Media.body has it; empty for text alone

    def body(self, tokenizer: "PreTrainedTokenizer") -> Body:
        """The fields of a request that hold the prompt: of a completion, or of a chat, which alone takes media.

        Raises RequestError if token ids that go with media are not what the tokenizer makes of their text.
        """
        if not self.media:
            return {"prompt": self.token_ids}
        text = tokenizer.decode(self.token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if tokenizer.encode(text, add_special_tokens=False) != self.token_ids:
            raise RequestError(
                "the template's tokens cannot be sent as text, which they must with pictures, videos or sounds: give "
                "the template that the model was trained with, or use infer_backend=huggingface."
            )
        parts, told = self.media["parts"], {name: value for name, value in self.media.items() if name != "parts"}
        message = {"role": "user", "content": [{"type": "text", "text": text}, *parts]}
        return {"messages": [message], "chat_template": AS_IT_IS, "add_generation_prompt": False, **told}


def make_prompt(
    template: "Template",
    tokenizer: "PreTrainedTokenizer",
    processor: Any,
    messages: list[Message],
    system: str | None,
    tools: str | None,
    media: Media,
) -> Prompt:
    """As LLaMA-Factory's own vLLM engine makes it: one mark for each medium, which the engine replaces.

    Raises RequestError if there are no messages, or media that the template or the model does not take.
    """
    if not messages:
        raise RequestError("there are no messages: give at least one of the user.")
    plugin = template.mm_plugin
    try:
        marked = plugin.process_messages(media.marked(messages), media.images, media.videos, media.audios, processor)
        paired = [*marked, {"role": "assistant", "content": ""}]
        token_ids, _ = template.encode_oneturn(tokenizer, paired, system, tools)
    except (
        ValueError,
        RuntimeError,
        NotImplementedError,
        KeyError,
        TypeError,
    ) as error:  # as of tools that are no JSON
        raise RequestError(f"the template cannot write these messages: {error}") from error
    return Prompt(token_ids, media.body(plugin, processor) if media else {})
