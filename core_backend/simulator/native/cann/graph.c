// aclmdlRI*: capture of what a stream is given, and its replay.
#include "graph.h"
#include <stdio.h>
#include "cann.h"

static struct graph_recorder recorder;
static void *_Atomic captured;  // the graph that is being captured

void stand_in_set_graph_recorder(struct graph_recorder given) { recorder = given; }

int refuse_in_capture(const char *what) {
    if (!captured) return 0;
    static _Thread_local char message[160];
    snprintf(message, sizeof message, "simulated NPU: %s is not allowed while a graph is captured (aclmdlRICaptureBegin)", what);
    set_error(message);
    return 1;
}

void capture_copy(void *to, const void *from, size_t bytes) {
    if (captured) recorder.copy(captured, to, from, bytes);
}

int capture_action(struct action action) {
    if (!captured) return 0;
    recorder.action(captured, action);
    return 1;
}

aclError aclmdlRICaptureBegin(void *stream, int mode) {
    CALLED;
    if (refuse_in_capture("a second capture") || !recorder.begin) return ACL_ERROR_CAPTURE_UNSUPPORTED;
    captured = recorder.begin();
    return ACL_SUCCESS;
}

aclError aclmdlRICaptureEnd(void *stream, void **graph) {
    CALLED;
    *graph = captured;
    captured = NULL;
    if (!*graph) return ACL_ERROR_INVALID_PARAM;
    recorder.end(*graph);
    return ACL_SUCCESS;
}

enum { CAPTURE_NONE, CAPTURE_ACTIVE };
aclError aclmdlRICaptureGetInfo(void *stream, int *status, void **graph) {
    CALLED;
    *status = captured ? CAPTURE_ACTIVE : CAPTURE_NONE;
    if (graph) *graph = captured;
    return ACL_SUCCESS;
}

aclError aclmdlRICaptureThreadExchangeMode(int *mode) { CALLED; return ACL_SUCCESS; }

aclError aclmdlRIExecuteAsync(void *graph, void *stream) {
    CALLED;
    if (refuse_in_capture("a replay")) return ACL_ERROR_CAPTURE_UNSUPPORTED;
    if (recorder.replay(graph)) {
        set_error("simulated NPU: the replay would wait for ever: a captured wait for an event that nobody records "
                  "(update the graph before each replay)");
        return ACL_ERROR_INVALID_PARAM;
    }
    return ACL_SUCCESS;
}

aclError aclmdlRIDestroy(void *graph) { CALLED; recorder.destroy(graph); return ACL_SUCCESS; }

// Task groups: parts of a graph whose host-side arguments may be changed after the capture.
aclError aclmdlRICaptureTaskGrpBegin(void *stream) {
    CALLED;
    if (!captured) return ACL_ERROR_INVALID_PARAM;
    recorder.group_begin(captured);
    return ACL_SUCCESS;
}
aclError aclmdlRICaptureTaskGrpEnd(void *stream, void **group) {
    CALLED;
    if (!captured) return ACL_ERROR_INVALID_PARAM;
    *group = recorder.group_end(captured);
    return ACL_SUCCESS;
}
aclError aclmdlRICaptureTaskUpdateBegin(void *stream, void *group) { CALLED; recorder.update_begin(group); return ACL_SUCCESS; }
aclError aclmdlRICaptureTaskUpdateEnd(void *stream) {
    CALLED;
    if (recorder.update_end()) {
        set_error("simulated NPU: a task group was updated with another number of operators than it was captured with");
        return ACL_ERROR_INVALID_PARAM;
    }
    return ACL_SUCCESS;
}
