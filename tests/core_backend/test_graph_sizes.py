import pytest

from core_backend.worker.graph_sizes import planned_sizes

SIZES = [1, 2, 4, 8, 16, 24, 32]


def plan(sizes=SIZES, max_num_seqs=32, num_layers=28, num_parallel_groups=0, streams=1800):
    return planned_sizes(
        sizes,
        max_num_seqs=max_num_seqs,
        num_layers=num_layers,
        num_parallel_groups=num_parallel_groups,
        streams=streams,
    )


def test_all_sizes_are_captured_while_the_streams_suffice():
    assert plan() == SIZES


def test_sizes_that_no_batch_can_have_are_left_out():
    assert plan(max_num_seqs=10) == [1, 2, 4, 8]
    assert plan(sizes=[], max_num_seqs=10) == [10]


@pytest.mark.parametrize(
    ("num_layers", "num_parallel_groups", "count"), [(28, 1, 7), (100, 1, 5), (400, 1, 1), (60, 2, 5)]
)
def test_fewer_are_captured_where_streams_are_short_and_the_ends_stay(num_layers, num_parallel_groups, count):
    planned = plan(num_layers=num_layers, num_parallel_groups=num_parallel_groups)
    assert len(planned) == count
    assert planned[-1] == 32
    assert count == 1 or planned[0] == 1


def test_padding_requests_cover_the_padding_tokens():
    # Here and below not at the top: importing vLLM takes seconds.
    from core_backend.attention.metadata import give_padding_a_token

    # Two real requests in a captured size of four: each padding request has one token, and sees one slot.
    assert give_padding_a_token([0, 1, 2, 2, 2], [7, 9, 0, 0], num_tokens=4) == ([0, 1, 2, 3, 4], [7, 9, 1, 1])


def test_a_batch_without_padding_stays_as_it_is():
    from core_backend.attention.metadata import give_padding_a_token

    assert give_padding_a_token([0, 3, 4], [3, 8], num_tokens=4) == ([0, 3, 4], [3, 8])
