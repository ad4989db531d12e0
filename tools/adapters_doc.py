"""Writes the table of docs/adapters.md from runs of every feature on our classes and on others': `make adapters`."""

import json
import re
import subprocess
import tempfile
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ascend_adapters import EmbeddedBackend, ServerBackend
from ascend_adapters.bridge import run_sync
from ascend_adapters.config import EngineSettings
from ascend_adapters.models import CATALOGUE, pull
from ascend_adapters.progress import Progress
from tests import thinking
from tests.adapters import save_adapter
from tests.conftest import CHAT_MODEL
from tests.engines import serve
from tests.integrations.conftest import SETTINGS
from tests.integrations.features import on_langchain, on_llama_index
from tests.integrations.features.columns import Outcome, ascend, chat_ascend, chat_hugging_face, chat_openai, outcomes
from tests.integrations.features.subject import LORA
from tools.marked_table import with_table

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "adapters.md"
# Where llama-index-llms-openai-like is installed, by `make adapters`.
OPENAI_LIKE = ROOT / ".venv-openai-like" / "bin" / "python"
Where = dict[str, Any]
Column = dict[str, Outcome]


def main() -> None:
    """Run everything; minutes."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        columns = _columns(Path(folder), stack)
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(), "features", _table(columns) + _versions()))


def _columns(folder: Path, stack: ExitStack) -> dict[str, Column]:
    progress = Progress("features")
    model = pull(CATALOGUE[CHAT_MODEL], progress)
    adapter = str(save_adapter(model, folder / "adapter", seed=1))
    thinks = str(thinking.build_thinking_model(folder / "thinking"))
    columns: dict[str, Column] = {}

    def run(name: str, *args: Any) -> None:
        progress.step(name)
        columns[name] = outcomes(*args)

    here: Where = {"model": CHAT_MODEL, **SETTINGS}
    here_it_thinks: Where = {"model": thinks, **thinking.SETTINGS}
    engine = EmbeddedBackend(**here)
    run_sync(engine.load_lora(LORA, adapter))
    run("`ChatAscend` here", on_langchain.FEATURES, chat_ascend(engine, here, here_it_thinks))
    run("`Ascend` here", on_llama_index.FEATURES, ascend(engine, here, here_it_thinks))
    for backend in (engine, EmbeddedBackend(**here_it_thinks)):  # two cores are no room for engine and server
        run_sync(backend.close())
    there = _serve(CHAT_MODEL, SETTINGS, folder / "log", stack)
    there_it_thinks = _serve(thinks, thinking.SETTINGS, folder / "log of the one that thinks", stack)
    server = ServerBackend(**there)
    run_sync(server.load_lora(LORA, adapter))
    run("`ChatAscend`, a server", on_langchain.FEATURES, chat_ascend(server, there, there_it_thinks))
    run("`Ascend`, a server", on_llama_index.FEATURES, ascend(server, there, there_it_thinks))
    run("`ChatOpenAI`, our server", on_langchain.FEATURES, chat_openai(there, there_it_thinks))
    progress.step("OpenAILike")
    columns["`OpenAILike`, our server"] = _openai_like({"where": there, "where_it_thinks": there_it_thinks})
    run("`ChatHuggingFace`", on_langchain.FEATURES, chat_hugging_face(str(model)))
    progress.done("run")
    return columns


def _serve(model: str, settings: Where, log: Path, stack: ExitStack) -> Where:
    server = serve(model, log, *EngineSettings.from_dict(settings).arguments())
    stack.callback(server.stop)
    return {"base_url": server.url, "api_key": server.api_key, "model": model}


def _openai_like(where: dict[str, Where]) -> Column:
    command = [str(OPENAI_LIKE), "-m", "tests.integrations.features", json.dumps(where)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return {name: Outcome(**outcome) for name, outcome in json.loads(done.stdout.splitlines()[-1]).items()}


def _table(columns: dict[str, Column]) -> str:
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    reasons: dict[str, int] = {}
    for feature in on_langchain.FEATURES:
        cells = [_cell(column.get(feature), reasons) for column in columns.values()]
        lines.append(f"| {feature} | " + " | ".join(cells) + " |")
    notes = [f"{number}. {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", *notes]) + "\n"


def _cell(outcome: Outcome | None, reasons: dict[str, int]) -> str:
    if outcome is None:
        return ""  # its framework has no notion of it
    if not outcome.why:
        return outcome.cell
    return f"{outcome.cell} ({reasons.setdefault(_shortened(outcome.why), len(reasons) + 1)})"


def _shortened(reason: str) -> str:
    reason = re.sub(r"HTTPSConnectionPool\(.*", "the internet is asked", reason)
    return reason if len(reason) <= 160 else f"{reason[:157]}..."


def _versions() -> str:
    ours = [f"{name} {version(name)}" for name in ("langchain-openai", "langchain-huggingface", "transformers")]
    asked = "import importlib.metadata as m; print(m.version('llama-index-llms-openai-like'))"
    like = subprocess.run([OPENAI_LIKE, "-c", asked], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    return f"\n{', '.join(ours)}, llama-index-llms-openai-like {like}.\n"


if __name__ == "__main__":
    main()
