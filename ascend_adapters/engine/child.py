"""The embedded engine's own process: vLLM's command line, which ends when its owner does.

Run as `python -m ascend_adapters.engine.child OWNER_PID FOLDER serve MODEL ...`. Nothing else imports it.
"""

import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable


def main() -> None:
    """Watch the owner, then be `vllm serve`."""
    owner_pid, folder = int(sys.argv[1]), sys.argv[2]
    print("vllm", *sys.argv[3:], flush=True)  # the log's first line, seconds before vLLM's own
    if os.getppid() != owner_pid:
        sys.exit("the engine's owner ended before the engine began.")
    _when_ended(owner_pid, lambda: _end_all(folder))
    # The engine core is forked from this process, and must not outlive it either.
    server_pid = os.getpid()
    os.register_at_fork(after_in_child=lambda: _when_ended(server_pid, lambda: os._exit(1)))
    try:
        from vllm.entrypoints.cli.main import main as vllm
    except Exception as error:
        sys.exit(f"vllm serve: error: {_why_not_importable(error)}")

    sys.argv = ["vllm", *sys.argv[3:]]
    vllm()


def _why_not_importable(error: Exception) -> str:
    """The faults of this machine, if the doctor finds any: where CANN is missing, importing torch fails."""
    from ascend_adapters.doctor import examine, faults

    found = faults(examine())
    reason = f"vLLM cannot be imported: {error}"
    return f"this machine is not ready: {found} ({reason})" if found else reason


def _when_ended(pid: int, action: Callable[[], None]) -> None:
    """Call `action` when the parent `pid` ends, however it ends. Source: pidfd_open(2), Linux 5.3."""

    def watch() -> None:
        try:
            poll = select.poll()
            poll.register(os.pidfd_open(pid), select.POLLIN)
            poll.poll()
        except OSError:  # ended already, or an older kernel
            while os.getppid() == pid:
                time.sleep(0.2)
        action()

    threading.Thread(target=watch, name="watch-owner", daemon=True).start()


def _end_all(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
