"""`llamafactory-ascend`: llamafactory-cli, to which infer_backend=ascend is known, and `infer`."""

import os
import secrets
import sys

from ascend_adapters.errors import AscendError
from llamafactory_ascend.register import register


def main() -> None:
    """Every command of llamafactory-cli passes through."""
    try:
        register()
        if sys.argv[1:2] == ["infer"]:
            from llamafactory_ascend.infer import main as infer

            del sys.argv[1]
            infer()
        else:
            from llamafactory.cli import main as llamafactory

            _serve_privately()
            llamafactory()
    except AscendError as error:
        sys.exit(f"llamafactory-ascend: {error}")


def _serve_privately() -> None:
    """LLaMA-Factory's servers listen at every address, and its API asks for no key, unless the environment says so."""
    os.environ.setdefault("API_HOST", "127.0.0.1")
    os.environ.setdefault("GRADIO_SERVER_NAME", "127.0.0.1")
    if sys.argv[1:2] == ["api"] and "API_KEY" not in os.environ:
        os.environ["API_KEY"] = secrets.token_urlsafe(24)
        print(f"API key: {os.environ['API_KEY']}", file=sys.stderr)
