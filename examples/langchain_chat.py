"""A LangChain chain on the embedded engine: one streamed answer, then 16 questions as one continuous batch."""

import time

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_ascend import ChatAscend

COUNTRIES = (
    *("Japan", "Germany", "Jordan", "Egypt", "Canada", "Norway", "Greece", "Poland"),
    *("Austria", "Kenya", "Peru", "Cuba", "Ireland", "Russia", "China", "Sweden"),
)

model = ChatAscend(model="smollm2-135m-instruct", temperature=0, max_tokens=64)
prompt = ChatPromptTemplate.from_template("What is the capital of {country}?")
chain = prompt | model | StrOutputParser()


def stream_one_answer() -> None:
    """Print an answer as it is generated, and the time to its first token."""
    print("What is the capital of Japan?")
    started, first = time.perf_counter(), None
    for text in chain.stream({"country": "Japan"}):
        first = first or time.perf_counter()
        print(text, end="", flush=True)
    print(f"\n(time to first token: {1000 * ((first or started) - started):.0f} ms)\n")


def answer_all_at_once() -> None:
    """Answer every question in one batch, and print the tokens per second."""
    started = time.perf_counter()
    answers = (prompt | model).batch([{"country": country} for country in COUNTRIES])
    seconds = time.perf_counter() - started
    for country, answer in zip(COUNTRIES, answers, strict=True):
        print(f"{country}: {answer.text.splitlines()[0]}")
    tokens = sum(answer.usage_metadata["output_tokens"] for answer in answers if answer.usage_metadata)
    print(f"({len(answers)} answers, {tokens} tokens in {seconds:.1f} s: {tokens / seconds:.0f} tokens/s)")


print(f"device: {model.engine_info().device}\n")
stream_one_answer()
answer_all_at_once()
