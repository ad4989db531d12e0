// Graph capture: the stand-in knows when a capture runs; recorder.h holds what was captured.
#pragma once
#include <stddef.h>
#include <stdint.h>

// Nonzero, with an error for torch_npu, if a capture runs: on the device `what` would break it.
int refuse_in_capture(const char *what);

// A copy inside device memory is part of the graph that is being captured; nothing otherwise.
void capture_copy(void *to, const void *from, size_t bytes);

// What a stream does besides computing and copying: events, and words of memory that are waited for.
enum action_kind { EVENT_RECORD, EVENT_WAIT, EVENT_RESET, VALUE_WRITE, VALUE_WAIT };
struct action {
    enum action_kind kind;
    void *where;  // the event, or the word
    uint64_t value;
};
// Does it (stream.c). Nonzero if it would wait for ever.
int stand_in_act(struct action action);
// Nonzero if a capture took the action; it happens at replay then.
int capture_action(struct action action);

// What boxed_kernel.cpp provides. Integers are 0 for success.
struct graph_recorder {
    void *(*begin)(void);
    void (*end)(void *graph);
    int (*replay)(void *graph);
    void (*destroy)(void *graph);
    void (*copy)(void *graph, void *to, const void *from, size_t bytes);
    void (*action)(void *graph, struct action action);
    void (*group_begin)(void *graph);
    void *(*group_end)(void *graph);
    void (*update_begin)(void *group);
    int (*update_end)(void);
};
void stand_in_set_graph_recorder(struct graph_recorder recorder);
