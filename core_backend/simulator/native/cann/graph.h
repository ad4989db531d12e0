// Graph capture: the stand-in knows when a capture runs; boxed_kernel.cpp holds what was captured.
#pragma once
#include <stddef.h>

// Nonzero, with an error for torch_npu, if a capture runs: on the device `what` would break it.
int refuse_in_capture(const char *what);

// A copy inside device memory is part of the graph that is being captured; nothing otherwise.
void capture_copy(void *to, const void *from, size_t bytes);

enum event_action { EVENT_RECORD, EVENT_WAIT, EVENT_RESET };
// Nonzero if a capture took the action; it happens at replay then.
int capture_event(enum event_action action, void *event);

// What boxed_kernel.cpp provides. Integers are 0 for success.
struct graph_recorder {
    void *(*begin)(void);
    void (*end)(void *graph);
    int (*replay)(void *graph);
    void (*destroy)(void *graph);
    void (*copy)(void *graph, void *to, const void *from, size_t bytes);
    void (*event)(void *graph, enum event_action action, void *event);
    void (*group_begin)(void *graph);
    void *(*group_end)(void *graph);
    void (*update_begin)(void *group);
    int (*update_end)(void);
};
// The action on the event itself (stream.c). Nonzero if it would wait for ever.
int stand_in_event_action(enum event_action action, void *event);
void stand_in_set_graph_recorder(struct graph_recorder recorder);
