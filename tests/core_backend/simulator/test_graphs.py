"""Graph capture by torch_npu's own interface: what is captured runs again at replay, on what its tensors hold then."""

import pytest
import torch

pytestmark = pytest.mark.npu


def captured(function):
    """(graph, what `function` returned inside the capture)."""
    graph = torch.npu.NPUGraph()
    with torch.npu.graph(graph, auto_dispatch_capture=True):
        result = function()
    return graph, result


def test_a_replay_computes_with_what_the_inputs_hold_then():
    x, weight = torch.ones(2, 3, device="npu"), torch.ones(3, 3, device="npu")
    total = torch.zeros(2, 3, device="npu")

    def step():
        hidden = (x @ weight).relu() + 1
        total.add_(hidden)
        return hidden[:, :2]

    graph, result = captured(step)
    total.zero_()
    x.fill_(2)
    graph.replay()
    graph.replay()
    assert result.tolist() == [[7.0, 7.0]] * 2
    assert total.tolist() == [[14.0] * 3] * 2


def test_copies_on_the_device_are_captured():
    source, target = torch.ones(4, device="npu"), torch.zeros(4, device="npu")
    graph, _ = captured(lambda: target.copy_(source))
    source.fill_(5)
    graph.replay()
    assert target.tolist() == [5.0] * 4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x: x.nonzero(), "aten::nonzero needs values on the host"),
        (lambda x: x.sum().item(), "needs values on the host|between host and device"),
        (lambda x: x.copy_(torch.zeros(3)), "between host and device"),
        (lambda x: torch.npu.current_stream().synchronize(), "waiting for a stream"),
    ],
)
def test_what_the_device_cannot_capture_is_refused(wrong, message):
    x = torch.ones(3, device="npu")
    with pytest.raises(RuntimeError, match=message):
        captured(lambda: wrong(x))
    assert (x + 1).tolist() == [2.0] * 3, "the device works on"


def paged_step(seq_lens, for_graph):
    """One decode step of two requests by the fused attention; returns the function and what it reads."""
    from core_backend.ops.table import operators

    torch.manual_seed(0)
    cache = torch.randn(2, 6, 16, 2, 64, device="npu")
    table = torch.tensor([[0, 1, 2], [3, 4, 5]], dtype=torch.int32, device="npu")
    query, out = torch.randn(2, 4, 64, device="npu"), torch.zeros(2, 4, 64, device="npu")
    plan = operators().plan_attention([0, 1, 2], seq_lens, table, block_size=16, causal=True, for_graph=for_graph)

    def step():
        operators().paged_attention(query, *cache, plan, scale=0.1, sliding_window=None, out=out)
        return out + 1

    return step, query


@pytest.fixture
def has_graphs(simulated_chip):
    if simulated_chip == "310P3":
        pytest.skip("graphs are refused on 310P")


def test_attention_is_replayed_with_the_lengths_of_each_step(has_graphs):
    graph, result = captured(paged_step([20, 3], for_graph=True)[0])
    for seq_lens in ([20, 3], [48, 17]):
        graph.update(cpu_update_input=[{"actual_seq_lengths": [1, 2], "actual_seq_lengths_kv": seq_lens}])
        graph.replay()
        torch.testing.assert_close(result, paged_step(seq_lens, for_graph=False)[0]())


def test_a_replay_without_new_lengths_would_wait_for_ever(has_graphs):
    graph, _ = captured(paged_step([20, 3], for_graph=True)[0])
    with pytest.raises(RuntimeError, match=r"would wait for ever.*update the graph before each replay"):
        graph.replay()


def test_a_capture_whose_end_fails_leaves_the_process_as_it_was(monkeypatch):
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    from core_backend.device import npu

    end = torch.npu.NPUGraph.capture_end

    def failing_end(graph):
        end(graph)
        raise RuntimeError("out of streams")

    monkeypatch.setattr(torch.npu.NPUGraph, "capture_end", failing_end)
    stream, x = torch.npu.current_stream(), torch.ones(3, device="npu")
    with pytest.raises(RuntimeError, match="out of streams"), npu.capture(npu.new_graph(), None):
        x.add_(1)
    assert torch.npu.current_stream() == stream
    assert _get_current_dispatch_mode_stack() == []
