"""What the processes of an embedded engine hold."""

import psutil


def bytes_of_engine() -> float:
    """Of all children of this process that are an embedded engine's; what they share counts once."""
    engines = [child for child in psutil.Process().children() if "ascend_adapters.engine_child" in child.cmdline()]
    processes = [process for engine in engines for process in (engine, *engine.children(recursive=True))]
    return float(sum(process.memory_full_info().pss for process in processes))
