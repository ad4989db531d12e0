"""Stand-ins for the shared libraries of CANN that the torch_npu wheel is linked against.

The wheel's libraries say what they need: names of libraries (NEEDED) and of functions (undefined symbols, all bound at
load). native/cann/ defines the functions that do something; every other one is generated here, and answers with an
error where it would have run an operator. All of them sit in libascendcl.so; the other libraries are empty and need it.
"""

import re
from collections.abc import Callable
from pathlib import Path

Run = Callable[[list[str | Path], str], str]

MAIN = "libascendcl.so"
SYSTEM = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libgcc_s.so.1", "libstdc++.so.6")


def in_load_order(folder: Path) -> list[Path]:
    """The built libraries: the one with the functions first."""
    return [folder / MAIN, *sorted(path for path in folder.glob("lib*.so") if path.name != MAIN)]


def build(package: Path, sources: Path, folder: Path, run: Run) -> None:
    """Compile the stand-ins that the wheel's libraries in `package` need into `folder`."""
    wheel_libraries = [path for path in package.rglob("*.so*") if path.is_file()]
    needed, undefined, defined = set[str](), set[str](), set[str]()
    for library in wheel_libraries:
        needed |= set(re.findall(r"NEEDED.*\[(.+?)\]", run(["readelf", "-d", library], "readelf failed")))
        own, wanted = _symbols(run(["readelf", "--dyn-syms", "-W", library], "readelf failed"))
        defined |= own
        undefined |= wanted
    torch_libraries = _torch_libraries()
    for path in [*torch_libraries, *(_system_library(name, run) for name in SYSTEM)]:
        listing = run(["nm", "-D", "--defined-only", path], "nm failed") if path.exists() else ""
        defined |= {line.split()[-1].split("@")[0] for line in listing.splitlines()}
    written = set()
    for source in sources.glob("*.c"):
        written |= set(re.findall(r"^[\w \*]+?\b(\w+)\(", source.read_text(), re.MULTILINE))
    rest = sorted(name for name in undefined - defined - written if not name.startswith(("Py", "_Py")))
    (folder / "rest.c").write_text(_source_of(rest))
    compiler = ["gcc", "-O1", "-w", "-shared", "-fPIC"]
    main = [*sorted(sources.glob("*.c")), folder / "rest.c"]
    run(
        [*compiler, f"-Wl,-soname,{MAIN}", f"-I{sources}", "-o", folder / MAIN, *main],
        "CANN's stand-in did not compile",
    )
    present = {path.name for path in [*wheel_libraries, *torch_libraries]}
    system = {*SYSTEM, "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
    for name in sorted(needed - present - system - {MAIN}):
        link = ["-x", "c", "/dev/null", "-Wl,--no-as-needed", f"-L{folder}", "-lascendcl"]
        run([*compiler, f"-Wl,-soname,{name}", "-o", folder / name, *link], f"{name} did not link")


def _symbols(listing: str) -> tuple[set[str], set[str]]:
    """(defined, undefined) names of `readelf --dyn-syms -W`, without weak ones and those of versioned libraries."""
    defined, undefined = set[str](), set[str]()
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) < 8 or not re.fullmatch(r"\d+:", fields[0]):
            continue
        kind, binding, section, symbol = fields[3], fields[4], fields[6], fields[7]
        name, versioned = symbol.split("@")[0], "@" in symbol
        if section != "UND":
            defined.add(name)
        elif binding == "GLOBAL" and not versioned and kind in ("FUNC", "NOTYPE"):
            undefined.add(name)
    return defined, undefined


def _torch_libraries() -> list[Path]:
    import torch

    return sorted((Path(torch.__file__).parent / "lib").glob("lib*.so*"))


def _system_library(name: str, run: Run) -> Path:
    return Path(run(["gcc", f"-print-file-name={name}"], "gcc failed").strip())


def _source_of(names: list[str]) -> str:
    """C that defines `names`: each notes its call. torch_npu turns a nonzero status of ATB into an exception."""
    lines = ['#include "cann.h"', "#include <stdio.h>"]
    for name in names:
        is_atb = name.startswith("_ZN3atb")
        is_other_cpp = name.startswith("_Z") and not is_atb and not name.endswith("Ev")
        answer = "return ACL_ERROR_NO_KERNEL;" if is_atb else "return 0;"
        if is_other_cpp:  # the graph engine, which nothing here may reach
            answer = f'fputs("simulated NPU: {name} was called\\n", stderr); abort();'
        lines.append(f'long {name}(void) {{ note_call("{name}"); {answer} }}')
    return "\n".join(lines) + "\n"
