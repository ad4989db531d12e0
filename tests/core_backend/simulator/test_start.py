"""The simulated device as a device: what it says, what it reaches, and that it is there in every thread and process."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from tests.npu import new_cache

pytestmark = pytest.mark.npu


def test_it_names_itself_wherever_the_device_is_named(simulated_chip):
    assert torch.npu.get_device_name(0) == f"simulated {simulated_chip}"


def test_no_function_of_cann_that_runs_operators_is_ever_reached():
    """From the stand-in's own list of calls, after operators of torch, torch_npu and ATB.

    aclnn's functions torch_npu looks up in libopapi.so, which is not there: reaching for one raises.
    """
    from core_backend.device import current_device
    from core_backend.ops.table import operators
    from core_backend.simulator.start import cann_calls

    x = torch.randn(4, 64, dtype=torch.float16, device="npu")
    operators().rms_norm(operators().silu_and_mul(torch.cat((x, x), -1)) @ x.t() @ x, x[0], 1e-5)
    key = x.view(4, 4, 16)
    shape = current_device().hardware.kv_cache_shape(1, 16, 4, 16)[1:]
    caches = [new_cache(shape, torch.float16) for _ in range(2)]
    operators().write_kv(key, key, *caches, torch.arange(4, dtype=torch.int32, device="npu"))
    reached = cann_calls()
    assert {"aclrtMalloc", "aclrtSetDevice"} & set(reached)
    assert not [name for name in reached if name.startswith(("aclnn", "aclop", "_ZN3atb"))]
    assert "libopapi" not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda x: x[:, 1].sum().item(), 12.0),
        (lambda x: x.t().contiguous().tolist(), [[0.0, 3.0, 6.0], [1.0, 4.0, 7.0], [2.0, 5.0, 8.0]]),
        (lambda x: torch.add(x, 1, out=torch.empty(0, device="npu")).sum().item(), 45.0),
        (lambda x: x.clone().index_put_((torch.tensor([0], device="npu"),), x[1]).sum().item(), 45.0),
        (lambda x: (x.view(9)[::2].mul_(0), x.sum().item())[1], 16.0),
        (lambda x: x.to(torch.bfloat16).to("cpu", torch.float32).sum().item(), 36.0),
        (lambda x: torch.nn.functional.linear(x, x).cpu().sum().item(), 450.0),
        (lambda x: [t.sum().item() for t in x.chunk(3)], [3.0, 12.0, 21.0]),
        (lambda x: x[x > 6].tolist(), [7.0, 8.0]),
    ],
)
def test_operators_of_torch_see_the_device_s_bytes(compute, expected):
    assert compute(torch.arange(9.0, device="npu").view(3, 3)) == expected


def test_the_generator_of_the_device_is_seeded():
    def draw():
        torch.npu.manual_seed_all(5)
        return torch.empty(3, device="npu").exponential_().tolist(), torch.randn(3, device="npu").tolist()

    assert draw() == draw()
    assert draw()[1] != torch.randn(3, device="npu").tolist()


def test_other_threads_and_inference_mode_compute_there_too():
    results = []

    @torch.inference_mode()
    def compute():
        x = torch.ones(3, device="npu")
        x[1:].add_(1)
        results.append((x.device.type, x.tolist()))

    thread = threading.Thread(target=compute)
    thread.start()
    thread.join()
    assert results == [("npu", [1.0, 2.0, 2.0])]


def test_memory_is_counted_and_limited():
    free, total = torch.npu.mem_get_info()
    block = torch.empty(100 << 20, dtype=torch.uint8, device="npu")
    assert free - torch.npu.mem_get_info()[0] >= 100 << 20
    assert total == int(os.environ["ASCEND_SIMULATE_MEMORY_GB"]) << 30
    with pytest.raises(RuntimeError, match="NPU out of memory"):
        torch.empty(total, dtype=torch.uint8, device="npu")
    del block


def python(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    return done.stdout + done.stderr


def test_without_the_variable_nothing_is_simulated():
    code = "import sys, torch; print('torch_npu' in sys.modules, torch.accelerator.is_available())"
    assert python(code, ASCEND_SIMULATE="").split() == ["False", "False"]


def test_an_unknown_chip_is_named_with_those_there_are():
    shown = python("import torch", ASCEND_SIMULATE="910X")
    assert "ASCEND_SIMULATE='910X' is not a chip that is simulated: 910B3, 910_9391, 310P3 are" in shown


def test_several_devices_and_no_more():
    code = "import torch; print(torch.npu.device_count()); torch.npu.set_device(2)"
    shown = python(code, ASCEND_SIMULATE_DEVICES="2")
    assert shown.startswith("2") or "\n2\n" in shown
    assert "ASCEND_SIMULATE_DEVICES sets how many there are" in shown


COLLECTIVES = """
import sys, torch, torch.distributed as dist
rank = int(sys.argv[1])
torch.npu.set_device(rank)
dist.init_process_group("hccl", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
x = torch.full((4,), rank + 1.0, device=f"npu:{rank}")
dist.all_reduce(x)
gathered = torch.empty(8, device=x.device)
dist.all_gather_into_tensor(gathered, x + rank)
exchanged = torch.empty(4, device=x.device)
dist.all_to_all_single(exchanged, torch.arange(4.0, device=x.device) + 10 * rank)
print(x.device, x.tolist(), gathered.tolist(), exchanged.tolist())
"""


def test_hccl_is_gloo(tmp_path):
    environment = {**os.environ, "ASCEND_SIMULATE_DEVICES": "2"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", COLLECTIVES, str(rank), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in range(2)
    ]
    shown = [rank.communicate(timeout=120)[0].strip() for rank in ranks]
    gathered = [3.0] * 4 + [4.0] * 4
    assert shown == [
        f"npu:{rank} {[3.0] * 4} {gathered} {[2.0 * rank, 2.0 * rank + 1, 10.0 + 2 * rank, 11.0 + 2 * rank]}"
        for rank in range(2)
    ]
