"""`llamafactory-ascend`: llamafactory-cli, to which infer_backend=ascend is known, and `infer`."""

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

            llamafactory()
    except AscendError as error:
        sys.exit(f"llamafactory-ascend: {error}")
