from ascend_adapters.progress import Progress


def test_each_step_is_told_once_and_the_seconds_at_the_end(capsys):
    progress = Progress("engine")
    progress.step("importing vLLM")
    progress.step("importing vLLM")
    progress.step("loading weights")
    progress.done("ready")
    assert capsys.readouterr().err.splitlines() == [
        "engine: importing vLLM ...",
        "engine: loading weights ...",
        "engine: ready (0.0 s: importing vLLM 0.0, loading weights 0.0)",
    ]


def test_quiet_says_nothing(capsys):
    progress = Progress("engine", quiet=True)
    progress.step("importing vLLM")
    progress.done("ready")
    assert capsys.readouterr().err == ""
