"""One engine, many callers: tasks and threads at once."""

import asyncio
import threading

import pytest

from langchain_ascend import ChatAscend

pytestmark = pytest.mark.engine

# Distinct prompts: an answer that went to another caller is another answer.
QUESTIONS = [f"{n} plus one is what? Answer with a number." for n in range(72)]


@pytest.mark.claim
def test_64_tasks_and_8_threads_each_get_their_own_answer(engine):
    model = ChatAscend(backend=engine, temperature=0, max_tokens=5)
    alone = [model.invoke(question).content for question in QUESTIONS]
    answers = [""] * len(QUESTIONS)

    def in_a_thread(i):
        answers[i] = model.invoke(QUESTIONS[i]).content

    async def in_tasks():
        return await asyncio.gather(*(model.ainvoke(question) for question in QUESTIONS[:64]))

    threads = [threading.Thread(target=in_a_thread, args=(i,)) for i in range(64, 72)]
    for thread in threads:
        thread.start()
    answers[:64] = [message.content for message in asyncio.run(in_tasks())]
    for thread in threads:
        thread.join()
    assert len(set(alone)) > 10
    assert answers == alone
