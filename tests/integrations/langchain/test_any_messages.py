"""Whatever the messages hold, there is an answer or one clear error, and the engine serves on."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage

from ascend_adapters.errors import RequestError
from ascend_adapters.testing import FakeBackend
from langchain_ascend import ChatAscend

pytestmark = pytest.mark.filterwarnings("ignore:OpenAI may require a filename")  # core's own, of a file

NUM_LISTS, AT_ONCE = 1000, 100
CLEAR = (RequestError, ValueError)  # core raises the second for a picture that it cannot show in a trace


def any_messages():
    """The strategy of hypothesis, which is imported with the first test: not while they are collected."""
    from hypothesis import strategies as st

    text = st.one_of(
        st.text(max_size=40),
        st.sampled_from(["", "\ud800", "\x00", "‮abc", "<|im_end|>", "<tool_call>", "{{ messages }}", "a " * 3000]),
    )
    value = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | text,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=5,
    )
    part = st.one_of(
        text,
        text.map(lambda t: {"type": "text", "text": t}),
        st.sampled_from(["image", "image_url", "audio", "video", "file", "reasoning", "tool_use", "json"]).flatmap(
            lambda kind: st.dictionaries(
                st.sampled_from(
                    ["url", "base64", "mime_type", "image_url", "reasoning", "json", "id", "name", "input"]
                ),
                value,
                max_size=3,
            ).map(lambda rest: {**rest, "type": kind})
        ),
        st.dictionaries(st.text(max_size=5), value, max_size=3),
    )
    content = text | st.lists(part, max_size=3)
    call = st.fixed_dictionaries({"name": text, "args": st.dictionaries(st.text(max_size=5), value), "id": text})
    message = st.one_of(
        st.builds(SystemMessage, content=content),
        st.builds(HumanMessage, content=content),
        st.builds(AIMessage, content=content, tool_calls=st.lists(call, max_size=2)),
        st.builds(ToolMessage, content=content, tool_call_id=text),
    )
    return st.lists(message, max_size=4)


def test_there_is_an_answer_or_a_clear_error():
    from hypothesis import HealthCheck, given, settings

    @settings(max_examples=NUM_LISTS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(any_messages())
    def check(given_messages):
        model = ChatAscend(backend=FakeBackend("ok", modalities=("text", "image", "audio", "video", "file")))
        (answer,) = model.batch([given_messages], return_exceptions=True)
        assert str(answer) if isinstance(answer, CLEAR) else answer.content == "ok", repr(answer)

    check()


@pytest.mark.engine
@pytest.mark.slow
def test_the_engine_serves_on(tool_engine):
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st

    @settings(max_examples=NUM_LISTS // AT_ONCE, deadline=None, suppress_health_check=list(HealthCheck))
    @given(many=st.lists(any_messages(), min_size=AT_ONCE, max_size=AT_ONCE))
    def check(many):
        model = ChatAscend(backend=tool_engine, max_tokens=1, temperature=0)
        for answer in model.batch(many, return_exceptions=True):
            assert isinstance(answer, (AIMessage, *CLEAR)), repr(answer)
        assert model.invoke("Hello").response_metadata["finish_reason"] == "length"

    check()
