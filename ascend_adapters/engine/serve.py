"""What an engine runs: `vllm serve`, the one command of vLLM that imports.py imports.

Run as `python -m ascend_adapters.engine.serve serve MODEL ...`, by the launcher and by `ascend-adapters serve`.
"""

import sys

from ascend_adapters.engine.imports import import_vllm


def main() -> None:
    """As vllm.entrypoints.cli.main (0.23.0) does."""
    if (failure := import_vllm().failure) is not None:
        sys.exit(f"vllm serve: error: {failure}")
    from vllm.entrypoints.cli.serve import cmd_init
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    sys.argv[0] = "vllm"
    cli_env_setup()
    parser = FlexibleArgumentParser(prog="vllm")
    (serve,) = cmd_init()
    serve.subparser_init(parser.add_subparsers(required=True, dest="subparser"))
    options = parser.parse_args()
    serve.validate(options)
    serve.cmd(options)


if __name__ == "__main__":
    main()
