"""Questions about this project, answered by a LangChain chain from its own README and docs, with the sources.

Two embedded engines in this process: one embeds the texts and ranks them, the other answers.

    python examples/langchain_rag.py                  keeps the vectors in memory
    python examples/langchain_rag.py --chroma FOLDER  keeps them in a Chroma database (pip install langchain-chroma)
"""

import argparse
import time
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from langchain_ascend import AscendEmbeddings, AscendRerank, ChatAscend

ROOT = Path(__file__).parents[1]
QUESTIONS = ("Which weight formats does quantization support?", "How are LoRA adapters loaded?")
MIB = 2**20

# The memory plan, in bytes: one question of at most 2,048 tokens is answered at a time (47 MB of keys and values in
# bfloat16), and a model of embeddings keeps nothing from one step to the next.
model = ChatAscend(
    model="smollm2-135m-instruct",
    max_model_len=2048,
    kv_cache_memory_bytes=128 * MIB,
    temperature=0,
    max_tokens=64,
)
EMBEDDING: dict[str, Any] = {"model": "all-minilm-l6-v2", "kv_cache_memory_bytes": 16 * MIB}
embeddings = AscendEmbeddings(**EMBEDDING, truncate_prompt_tokens=-1)  # of each text as much as the model takes
rerank = AscendRerank(**EMBEDDING, truncate_prompt_tokens=-1, top_n=2)  # the same settings, the same engine

prompt = ChatPromptTemplate.from_template("Answer from this text:\n\n{texts}\n\nQuestion: {question}")
answer = prompt | model | StrOutputParser()


def paragraphs() -> list[Document]:
    """The README and the docs of this project, each paragraph a document."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [
        Document(text, metadata={"file": str(file.relative_to(ROOT))})
        for file in files
        for text in file.read_text().split("\n\n")
        if len(text) > 80 and not text.startswith("|")
    ]


def open_store(folder: str | None) -> VectorStore:
    """The paragraphs and their vectors, embedded now unless they are in the Chroma database already."""
    if folder is None:
        store: Any = InMemoryVectorStore(embeddings)
    else:
        from langchain_chroma import Chroma  # type: ignore[import-not-found]

        store = Chroma("docs", embeddings, persist_directory=folder)
        if store.get(limit=1)["ids"]:
            return store
    started, documents = time.perf_counter(), paragraphs()
    store.add_documents(documents)
    print(f"{len(documents)} paragraphs embedded in {time.perf_counter() - started:.1f} s\n")
    return store


def ask(store: VectorStore, question: str) -> None:
    """Print the answer as it comes, and where it comes from."""
    sources = rerank.compress_documents(store.similarity_search(question, k=8), question)
    print(question, "\n ", end="")
    for text in answer.stream({"texts": "\n\n".join(s.page_content for s in sources), "question": question}):
        print(text, end="", flush=True)
    print()
    for source in sources:
        beginning = " ".join(source.page_content.split())[:70]
        print(f"  [{source.metadata['relevance_score']:.2f}] {source.metadata['file']}: {beginning}...")
    print()


arguments = argparse.ArgumentParser()
arguments.add_argument("--chroma", metavar="FOLDER", help="of a Chroma database, made if it is not there")
for name, part in (("chat", model), ("embeddings", embeddings), ("reranker", rerank)):
    started = time.perf_counter()
    device = part.engine_info().device
    print(f"{name} ready after {time.perf_counter() - started:.1f} s on {device}")
store = open_store(arguments.parse_args().chroma)
for question in QUESTIONS:
    ask(store, question)
