"""Every call of torch_npu in the source against the schemas of the wheel itself."""

import pytest
import torch

from core_backend.ops.required import REQUIRED
from tests.torch_npu_calls import calls_in

CALLS = calls_in()


def schema_of(operator):
    """The operator's schema in the installed torch_npu."""
    import torch_npu  # noqa: F401

    name, _, overload = operator.partition(".")
    namespace = next(space for space in (torch.ops.npu, torch.ops.atb) if hasattr(space, name))
    packet = getattr(namespace, name)
    return getattr(packet, overload or packet.overloads()[0])._schema


@pytest.mark.npu
@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.place} {call.operator}")
def test_a_call_has_the_arguments_of_the_wheel_s_schema(call):
    import torch_npu

    name = call.operator.split(".")[0]
    assert hasattr(torch_npu, name), "torch_npu exports it under this name"
    arguments = schema_of(call.operator).arguments
    positional = [argument.name for argument in arguments if not argument.kwarg_only]
    assert call.num_positional <= len(positional)
    given = set(positional[: call.num_positional]) | call.keywords
    assert call.keywords <= {argument.name for argument in arguments}, "names"
    assert not call.keywords & set(positional[: call.num_positional]), "no argument twice"
    required = {argument.name for argument in arguments if not argument.has_default_value()}
    assert required <= given, "required arguments"


def test_every_call_is_in_the_list_of_what_must_be_there_and_nothing_else():
    of_310p = {call.operator for call in calls_in("ops", "npu", "atlas_300i_duo")}
    others = {call.operator for call in CALLS} - of_310p
    assert {*REQUIRED["npu"], *REQUIRED["npu_310p"]} == of_310p | others
    assert of_310p <= set(REQUIRED["npu_310p"])
    assert others <= set(REQUIRED["npu"])


@pytest.mark.npu
def test_every_operator_that_is_called_is_emulated():
    from core_backend.simulator.emulation.registry import EMULATIONS

    emulated = {name.split("::")[1] for name in EMULATIONS}
    assert {call.operator for call in CALLS} <= emulated
