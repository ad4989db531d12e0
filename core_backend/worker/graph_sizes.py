"""Which batch sizes of decode steps become graphs."""


def planned_sizes(
    wanted: list[int], *, max_num_seqs: int, num_layers: int, num_parallel_groups: int, streams: int
) -> list[int]:
    """The batch sizes to capture: those asked for that a batch can have, fewer if the device's streams do not suffice.

    num_parallel_groups  how many of tensor and data parallelism are in use; each takes streams for its collectives
    streams              what graphs may take of the device's 2,048
    Source: vllm-ascend's update_aclgraph_sizes, made for a graph per layer; one graph per step takes less.
    """
    sizes = sorted({size for size in wanted if size <= max_num_seqs}) or [max_num_seqs]
    affordable = (streams - 40 * num_parallel_groups) // (num_layers + 1) // (1 + 2 * num_parallel_groups)
    if affordable >= len(sizes):
        return sizes
    if affordable <= 1:
        return sizes[-1:]
    # Spread over the range; the smallest and the largest stay.
    return [sizes[round(i * (len(sizes) - 1) / (affordable - 1))] for i in range(affordable)]
