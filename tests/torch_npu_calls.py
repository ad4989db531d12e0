"""The calls of torch_npu in the source of core_backend, read without importing it."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "core_backend"
OPERATOR = re.compile(r"(?:torch_npu|torch_npu\.atb|torch\.ops\.npu|torch\.ops\.atb)\.(_?npu_\w+(?:\.\w+)?)")


@dataclass(frozen=True)
class Call:
    """One call of an operator."""

    place: str  # file:line
    operator: str  # name, or name.overload
    num_positional: int
    keywords: frozenset[str]


def calls_in(*parts: str) -> list[Call]:
    """The operator calls in a folder or file below core_backend."""
    return [call for file in _files(FOLDER.joinpath(*parts)) for call in _calls(file)]


def mentions(file: Path) -> list[str]:
    """Every place in `file` that reaches torch_npu: imports, and attributes of torch.npu or its operators."""
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        found += [
            f"{file.relative_to(FOLDER)}:{node.lineno}"
            for name in names
            if re.match(r"torch_npu\b|torch\.npu\b|torch\.ops\.(npu|atb)\b", name)
        ]
    return found


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


def _calls(file: Path) -> Iterator[Call]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and (match := OPERATOR.fullmatch(ast.unparse(node.func))):
            splatted = any(isinstance(arg, ast.Starred) for arg in node.args) or any(
                k.arg is None for k in node.keywords
            )
            assert not splatted, f"{file}:{node.lineno}: a call that hides its arguments cannot be checked"
            yield Call(
                place=f"{file.relative_to(FOLDER)}:{node.lineno}",
                operator=match[1],
                num_positional=len(node.args),
                keywords=frozenset(keyword.arg for keyword in node.keywords if keyword.arg),
            )
