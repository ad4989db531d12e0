"""The command line: models, a server, and what is wrong with the machine."""

import os
import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from ascend_adapters.errors import AscendError

app = typer.Typer(
    name="ascend-adapters",
    help="Run models on Huawei Ascend NPUs, and on a plain CPU.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
models_app = typer.Typer(help="Small real models that packages carry.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")


@models_app.command("list")
def list_models() -> None:
    """The models known by name, and whether they are ready."""
    from ascend_adapters.models import CATALOGUE, folder_of

    for model in CATALOGUE.values():
        state = "ready" if folder_of(model).is_dir() else "not pulled"
        typer.echo(f"{model.name:<24} {model.task:<6} {state:<11} {model.description}")


@models_app.command("pull")
def pull_model(name: Annotated[str, typer.Argument(help="A name that `models list` shows.")]) -> None:
    """Download and prepare a model; the last line printed is its folder."""
    from ascend_adapters.errors import ModelError
    from ascend_adapters.models import CATALOGUE, pull
    from ascend_adapters.progress import Progress

    if name not in CATALOGUE:
        raise ModelError(f"model {name!r} is not in the catalogue: it holds {', '.join(CATALOGUE)}.")
    typer.echo(pull(CATALOGUE[name], Progress(name)))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A catalogue name, a Hugging Face folder, a GGUF file, or a hub id.")],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="ASCEND_API_KEY", help="What clients must send; made up and shown if not given."),
    ] = None,
) -> None:
    """Serve MODEL to OpenAI clients. Further options are those of `vllm serve`."""
    from ascend_adapters.config import EngineSettings, asks_for_lora, engine_environment
    from ascend_adapters.models import locate, prepare
    from ascend_adapters.progress import Progress
    from ascend_adapters.tool_calls import tool_call_settings

    located = locate(model)
    folder = prepare(located, Progress(model))
    if api_key is None:
        api_key = secrets.token_urlsafe(24)
        typer.echo(f"API key: {api_key}", err=True)
    typer.echo(f"serving {model} at http://{host}:{port}/v1", err=True)
    command = [
        sys.executable,
        "-P",
        "-m",
        "ascend_adapters.engine.serve",
        "serve",
        folder,
        "--served-model-name",
        model,
    ]
    command += ["--host", host, "--port", str(port), *EngineSettings().arguments(tool_call_settings(folder))]
    # vLLM asks for the key under /v1 only; this asks for it everywhere.
    command += ["--middleware", "ascend_adapters.api_key.RequireApiKey", *context.args]
    # Who has the key may also load adapters.
    environment = engine_environment(located.is_local, enable_lora=asks_for_lora(context.args))
    # By environment, not as an argument: any user of the machine can read a process's arguments.
    os.execve(sys.executable, command, {**environment, "VLLM_API_KEY": api_key})  # noqa: S606


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    root: Annotated[
        Path | None,
        typer.Option(help="Look for driver, devices and CANN below this folder; packages stay this machine's."),
    ] = None,
) -> None:
    """Check this machine: versions, CANN, driver, devices, operators. Exits with 1 if something is wrong."""
    import json
    from dataclasses import asdict

    from ascend_adapters.doctor import examine, faults, table

    findings = examine(root)
    typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1) if as_json else table(findings))
    if faults(findings):
        raise typer.Exit(1)


def main() -> None:
    """Entry point `ascend-adapters`."""
    try:
        app()
    except AscendError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
