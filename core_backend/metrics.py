"""What clients may know of the device, as a Prometheus metric at the server's /metrics."""

from functools import cache

from core_backend.device import Device


@cache
def publish_device(device: Device, op_set: str) -> None:
    """Export the device and operator set as labels of `ascend_device_info`; later calls do nothing."""
    # Imported here: prometheus_client reads its multiprocess setting on import, which vLLM sets first.
    from prometheus_client import Gauge

    info = Gauge("ascend_device_info", "The device and operator set of this engine", ["device", "op_set"])
    info.labels(device=str(device), op_set=op_set).set(1)


_published: list[tuple[str, ...]] = []


def publish_modalities(modalities: tuple[str, ...]) -> None:
    """Export what the model takes as a label of `ascend_model_info`.

    Later calls do nothing: after the model's own configuration, vLLM makes one of the language model inside it.
    """
    if _published:
        return
    _published.append(modalities)
    from prometheus_client import Gauge

    info = Gauge("ascend_model_info", "What the model of this engine takes as input", ["modalities"])
    info.labels(modalities=",".join(modalities)).set(1)
