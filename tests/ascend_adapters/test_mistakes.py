import json

import pytest

from ascend_adapters.mistakes import AnswerMistakes


async def answers(error, *, after_start=False):
    """What is sent when the application fails."""
    sent = []

    async def app(scope, receive, send):
        if after_start:
            await send({"type": "http.response.start", "status": 200})
        raise error

    async def send(message):
        sent.append(message)

    await AnswerMistakes(app)({"type": "http"}, None, send)
    return sent


async def test_a_mistake_of_the_caller_is_answered_with_its_reason():
    start, body = await answers(ValueError("no picture"))
    assert start["status"] == 400
    assert json.loads(body["body"])["error"]["message"] == "no picture"


async def test_other_failures_are_left_to_the_server():
    with pytest.raises(RuntimeError):
        await answers(RuntimeError("broken"))


async def test_an_answer_that_has_begun_is_not_begun_again():
    with pytest.raises(ValueError, match="late"):
        await answers(ValueError("late"), after_start=True)
