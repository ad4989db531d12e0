"""The engine core of a CPU is forked from the server's process, whatever that has computed before."""

import subprocess
import sys

SCRIPT = """
import os, signal, sys
import torch
from core_backend.platform import cpu

cpu._prepare_to_fork()
numbers = torch.ones(1_000_000)
torch.set_num_threads(2)  # as vLLM does while it processes pictures
numbers.mul(2).sum()
torch.set_num_threads(1)
child = os.fork()
if child == 0:
    signal.alarm(20)  # what waits for threads that are not there does so for ever
    torch.set_num_threads(2)
    os._exit(0 if numbers.mul(2).sum() == 2_000_000 else 1)
_, status = os.waitpid(child, 0)
torch.set_num_threads(2)
assert numbers.mul(2).sum() == 2_000_000
sys.exit(status != 0)
"""


def test_a_forked_process_has_threads_of_its_own():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
