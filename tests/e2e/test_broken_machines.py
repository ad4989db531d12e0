"""Machines that something is wrong with: the doctor and the engine's start name it, and what to do.

Each is staged with environment variables, packages of a false version, and files below another root.
"""

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import CHAT_MODEL

pytestmark = [
    pytest.mark.npu,
    pytest.mark.engine,
    pytest.mark.claim,
    pytest.mark.timeout(900),
    pytest.mark.skipif("ASCEND_SIMULATE" not in os.environ, reason="staged where there is no real NPU"),
]

START = """
import sys
from ascend_adapters import EmbeddedBackend
from ascend_adapters.bridge import run_sync
run_sync(EmbeddedBackend(sys.argv[1], **eval(sys.argv[2])).info())
"""


@dataclass
class Machine:
    """One broken machine. Texts are regular expressions; None: this one cannot know."""

    doctor: str | None
    engine: str | None
    environment: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)  # distributions with a false version
    plugin: str = ""  # a module that says it is vllm-ascend
    at_start: str = ""  # what every Python process runs first
    files: dict[str, str] = field(default_factory=dict)  # below the doctor's root
    settings: dict[str, object] = field(default_factory=dict)
    wheel_only: bool = False  # torch_npu is installed, and CANN is not


SIMULATED = {"ASCEND_SIMULATE": "910B3"}
INFO = "x86_64-linux/ascend_toolkit_install.info"
MACHINES = {
    "no CANN": Machine(
        doctor=r"fault +CANN +not installed \(wanted 9\.2\)\n.*install CANN 9\.2.*source its set_env\.sh(.|\n)*libhccl",
        engine=r"this machine is not ready:.*CANN: not installed, wanted 9\.2: install CANN 9\.2",
        wheel_only=True,
    ),
    "CANN is there, its environment is not loaded": Machine(
        doctor=r"fault +CANN +9\.2\.0 in /usr/local/Ascend/cann, but its environment is not loaded\n"
        r".*source /usr/local/Ascend/cann/set_env\.sh",
        engine=None,  # it looks at this machine's files, where there is none
        files={f"usr/local/Ascend/cann/{INFO}": "version=9.2.0\n"},
        environment={"ASCEND_OP_SET": "npu"},
    ),
    "another CANN": Machine(
        doctor=r"fault +CANN +8\.0\.RC3 \(wanted 9\.2\)\n.*install CANN 9\.2",
        engine=r"not ready for the NPU: CANN: found 8\.0\.RC3, wanted 9\.2: install CANN 9\.2",
        files={INFO: "version=8.0.RC3\n"},
        environment={**SIMULATED, "ASCEND_TOOLKIT_HOME": "{root}"},
    ),
    "ATB's environment is not loaded": Machine(
        doctor=r"fault +ATB +its environment is not loaded.*\n.*set_env\.sh of nnal/atb",
        engine=r"ATB: found its environment is not loaded.*set_env\.sh of nnal/atb",
        environment={**SIMULATED, "ATB_HOME_PATH": ""},
    ),
    "another torch_npu": Machine(
        doctor=r"fault +torch-npu +2\.5\.1 \(wanted 2\.11\.0\.post3\)\n.*install --no-deps torch-npu==2\.11\.0\.post3",
        engine=r"torch-npu: found 2\.5\.1, wanted 2\.11\.0\.post3: pip install --no-deps torch-npu==2\.11\.0\.post3",
        environment=SIMULATED,
        at_start="import torch, torch_npu; torch_npu.__version__ = '2.5.1'",
    ),
    "a torch_npu without an operator": Machine(
        doctor=r"fault +operators +torch_npu without npu_mrope\n.*install torch-npu 2\.11\.0\.post3",
        engine=r"operators: found torch_npu without npu_mrope: install torch-npu 2\.11\.0\.post3",
        environment=SIMULATED,
        at_start="import torch, torch_npu; del torch_npu.npu_mrope",
    ),
    "another transformers": Machine(
        doctor=r"fault +transformers +5\.7\.0 \(wanted 5\.5\)\n.*pip install 'transformers>=5\.5\.1,<5\.6'",
        engine=r"transformers: found 5\.7\.0, wanted 5\.5: pip install 'transformers>=5\.5\.1,<5\.6'",
        environment=SIMULATED,
        packages={"transformers": "5.7.0"},
    ),
    "another vLLM": Machine(
        doctor=r"fault +vllm +0\.24\.0 \(wanted 0\.23\.0\)\n.*build vllm==0\.23\.0",
        engine=r"written for vLLM 0\.23\.x and found 0\.24\.0\. Install vllm==0\.23\.0",
        packages={"vllm": "0.24.0"},
    ),
    "two plugins": Machine(
        doctor=r"fault +platform plugins +ascend_adapters, vllm_ascend \(wanted one\)\n.*VLLM_PLUGINS=ascend_adapters",
        engine=r"vllm_ascend is installed too, and vLLM takes one platform only\. Set VLLM_PLUGINS=ascend_adapters",
        plugin="vllm_ascend",
    ),
    "no device node": Machine(
        doctor=r"fault +device nodes +no /dev/davinci\*\n.*load the driver",
        engine=r"op_set=npu was asked for, but there is no NPU to use.*`ascend-adapters doctor`",
        files={"usr/local/Ascend/driver/version.info": "package_version=25.3.rc1\n"},
        environment={"ASCEND_OP_SET": "npu"},
    ),
    "a container without the managers": Machine(
        doctor=r"ok +driver +25\.3\.rc1(.|\n)*fault +device nodes +no davinci_manager, devmm_svm, hisi_hdc\n"
        r".*--device /dev/davinci_manager",
        engine=None,
        files={"usr/local/Ascend/driver/version.info": "package_version=25.3.rc1\n", "dev/davinci0": ""},
    ),
    "a driver that does not answer": Machine(
        doctor=r"fault +npu-smi +dcmi module initialize failed\. ret is -8005\n.*pass the devices and mount",
        engine=None,
        files={"bin/npu-smi": "#!/bin/sh\necho 'dcmi module initialize failed. ret is -8005'\n"},
    ),
    "a 310P asked for bfloat16": Machine(
        doctor=None,
        engine=r"dtype bfloat16 does not run on 310P \(Atlas 300I Duo\): use float16 \(--dtype float16\)",
        environment={"ASCEND_SIMULATE": "310P3"},
        settings={"dtype": "bfloat16"},
    ),
    "a 310P asked for LoRA": Machine(
        doctor=None,
        engine=r"LoRA is refused on 310P \(Atlas 300I Duo\): .*merge the adapter into the weights first",
        environment={"ASCEND_SIMULATE": "310P3"},
        settings={"dtype": "float16", "enable_lora": True},
    ),
    "forked processes": Machine(
        doctor=None,
        engine=r"VLLM_WORKER_MULTIPROC_METHOD=fork does not work with an NPU.*unset it, or set it to spawn",
        environment={**SIMULATED, "VLLM_WORKER_MULTIPROC_METHOD": "fork"},
    ),
}


def stage(machine: Machine, folder: Path) -> tuple[dict[str, str], Path]:
    """The environment of its processes, and the doctor's root."""
    packages, root = folder / "packages", folder / "root"
    packages.mkdir(parents=True)
    root.mkdir()
    for name, version in machine.packages.items():
        _distribution(packages, name, version)
    if machine.plugin:
        _distribution(
            packages, "vllm-ascend", "0.23.0", f"[vllm.platform_plugins]\nascend = {machine.plugin}:register\n"
        )
        (packages / f"{machine.plugin}.py").write_text("def register():\n    return None\n")
    if machine.at_start:
        (packages / "sitecustomize.py").write_text(machine.at_start)
    for name, text in machine.files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
        (root / name).chmod(0o755)
    path = [str(packages)]
    if machine.wheel_only:
        from core_backend.simulator.build import build

        path.append(str(build().site))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("ASCEND_", "ATB_", "TASK_"))}
    environment = {name: value.format(root=root) for name, value in machine.environment.items()}
    environment |= {"PYTHONPATH": os.pathsep.join(path), "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    return clean | environment, root


def _distribution(folder: Path, name: str, version: str, entry_points: str = "") -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(entry_points)


@dataclass
class Outcome:
    """What the doctor printed and how it exited; what the engine's start said."""

    doctor: "subprocess.CompletedProcess[str]"
    engine: str


def examine(machine: Machine, folder: Path) -> Outcome:
    environment, root = stage(machine, folder)
    doctor = subprocess.run(
        [sys.executable, "-m", "ascend_adapters.cli", "doctor", "--root", str(root)],
        capture_output=True,
        text=True,
        env=environment,
    )
    engine = ""
    if machine.engine is not None:
        start = [sys.executable, "-c", START, CHAT_MODEL, repr(machine.settings)]
        engine = subprocess.run(start, capture_output=True, text=True, env=environment).stderr
    return Outcome(doctor, engine)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, chat_model_folder) -> dict[str, Outcome]:
    """All of them, two at a time: most of it is importing."""
    with ThreadPoolExecutor(2) as pool:
        folders = [tmp_path_factory.mktemp("machine") / "staged" for _ in MACHINES]
        return dict(zip(MACHINES, pool.map(examine, MACHINES.values(), folders), strict=True))


@pytest.mark.parametrize("environment", [{}, SIMULATED], ids=["a laptop", "a simulated NPU"])
def test_the_doctor_finds_nothing_wrong_with_a_machine_that_works(environment, tmp_path):
    variables, root = stage(Machine(doctor=None, engine=None, environment=environment), tmp_path / "staged")
    command = [sys.executable, "-m", "ascend_adapters.cli", "doctor", "--json", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {finding["status"] for finding in json.loads(done.stdout)} <= {"ok", "note"}


def test_at_least_ten_machines_are_staged():
    assert len(MACHINES) >= 10


@pytest.mark.parametrize("name", [name for name, machine in MACHINES.items() if machine.doctor])
def test_the_doctor_names_the_fault_and_the_remedy(outcomes, name):
    shown = outcomes[name].doctor
    assert re.search(MACHINES[name].doctor, shown.stdout), shown.stdout + shown.stderr
    assert shown.returncode == 1


@pytest.mark.parametrize("name", [name for name, machine in MACHINES.items() if machine.engine])
def test_the_engine_s_start_names_the_fault_and_the_remedy(outcomes, name):
    last = outcomes[name].engine.strip().splitlines()[-1]
    assert re.search(MACHINES[name].engine, last), outcomes[name].engine[-3000:]
