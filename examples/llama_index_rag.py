"""Questions about this project, answered by LlamaIndex from its own README and docs, with the sources.

Two embedded engines in this process: one embeds the texts and ranks them, the other answers.
"""

import time
from pathlib import Path
from typing import Any

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.query_engine import BaseQueryEngine
from llama_index.core.schema import NodeWithScore
from llama_index.embeddings.ascend import AscendEmbedding
from llama_index.llms.ascend import Ascend
from llama_index.postprocessor.ascend_rerank import AscendRerank

ROOT = Path(__file__).parents[1]
QUESTIONS = (
    "Which weight formats does quantization support?",
    "How are LoRA adapters loaded?",
)

# The memory plan, in bytes. An engine would take 1 GiB for its cache of keys and values; here one question of at most
# 2,048 tokens is answered at a time (47 MB in bfloat16), and a model of embeddings keeps nothing from one step to the
# next.
MIB = 2**20
ANSWERING: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "max_model_len": 2048,
    "kv_cache_memory_bytes": 128 * MIB,
}
EMBEDDING: dict[str, Any] = {"model": "all-minilm-l6-v2", "kv_cache_memory_bytes": 16 * MIB}

llm = Ascend(**ANSWERING, temperature=0, max_tokens=64)
embedding = AscendEmbedding(**EMBEDDING, embed_batch_size=64)
# The catalogue has no cross-encoder, so that the embedding model ranks: the same settings, the same engine. With the
# folder of a cross-encoder as `model`, the ranking would be a second opinion.
rerank = AscendRerank(**EMBEDDING, top_n=2)


def texts() -> list[Document]:
    """The README and the docs of this project."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [Document(text=file.read_text(), metadata={"file": str(file.relative_to(ROOT))}) for file in files]


def build_index() -> VectorStoreIndex:
    """The texts in pieces that the embedding model takes whole (256 tokens), and their vectors."""
    started = time.perf_counter()
    splitter = SentenceSplitter(chunk_size=160, chunk_overlap=16, tokenizer=llm.tokenizer)
    index = VectorStoreIndex.from_documents(texts(), embed_model=embedding, transformations=[splitter])
    print(f"{len(index.docstore.docs)} pieces embedded in {time.perf_counter() - started:.1f} s\n")
    return index


def ask(engine: BaseQueryEngine, question: str) -> None:
    """Print the answer, and where it comes from."""
    started = time.perf_counter()
    response = engine.query(question)
    print(f"{question}\n  {str(response).strip()}")
    for source in response.source_nodes:
        print(f"  [{source.score:.2f}] {described(source)}")
    print(f"  ({time.perf_counter() - started:.1f} s)\n")


def described(source: NodeWithScore) -> str:
    """The file, and how the piece begins."""
    return f"{source.metadata['file']}: {' '.join(source.text.split())[:70]}..."


print(f"device: {llm.engine_info().device}")
query_engine = build_index().as_query_engine(llm=llm, similarity_top_k=8, node_postprocessors=[rerank])
for question in QUESTIONS:
    ask(query_engine, question)
