// Streams and events. Work is done when its call returns, so waiting is returning; events keep the time.
#include <time.h>
#include "cann.h"
#include "graph.h"

struct stream { int32_t id; };
struct event {
    struct timespec time;
    int is_recorded;
};

static atomic_int next_stream_id = 1;

static aclError create_stream(void **stream) {
    struct stream *created = calloc(1, sizeof *created);
    created->id = atomic_fetch_add(&next_stream_id, 1);
    *stream = created;
    return ACL_SUCCESS;
}

aclError aclrtCreateStream(void **stream) { CALLED; return create_stream(stream); }
aclError aclrtCreateStreamWithConfig(void **stream, uint32_t priority, uint32_t flags) { CALLED; return create_stream(stream); }
aclError aclrtDestroyStream(void *stream) { CALLED; free(stream); return ACL_SUCCESS; }
aclError aclrtDestroyStreamForce(void *stream) { CALLED; free(stream); return ACL_SUCCESS; }

aclError aclrtStreamGetId(void *stream, int32_t *id) {
    CALLED;
    *id = stream ? ((struct stream *)stream)->id : 0;
    return ACL_SUCCESS;
}

aclError aclrtSynchronizeStream(void *stream) {
    CALLED;
    return refuse_in_capture("waiting for a stream") ? ACL_ERROR_CAPTURE_UNSUPPORTED : ACL_SUCCESS;
}
aclError aclrtSynchronizeStreamWithTimeout(void *stream, int32_t milliseconds) { return aclrtSynchronizeStream(stream); }
aclError aclrtStreamQuery(void *stream, int *status) { CALLED; *status = 0; return ACL_SUCCESS; }
aclError aclrtGetStreamOverflowSwitch(void *stream, uint32_t *flag) { CALLED; *flag = 0; return ACL_SUCCESS; }
aclError aclrtSetStreamOverflowSwitch(void *stream, uint32_t flag) { CALLED; return ACL_SUCCESS; }
aclError aclrtSetStreamFailureMode(void *stream, uint64_t mode) { CALLED; return ACL_SUCCESS; }
aclError aclrtSetStreamAttribute(void *stream, int attribute, void *value) { CALLED; return ACL_SUCCESS; }
aclError aclrtSubscribeReport(uint64_t thread, void *stream) { CALLED; return ACL_SUCCESS; }
aclError aclrtUnSubscribeReport(uint64_t thread, void *stream) { CALLED; return ACL_SUCCESS; }
aclError aclrtLaunchCallback(void (*function)(void *), void *argument, int blocking, void *stream) { CALLED; function(argument); return ACL_SUCCESS; }
aclError aclrtLaunchHostFunc(void *stream, void (*function)(void *), void *argument) { CALLED; function(argument); return ACL_SUCCESS; }

aclError aclrtCreateEventWithFlag(void **event, uint32_t flags) { CALLED; *event = calloc(1, sizeof(struct event)); return ACL_SUCCESS; }
aclError aclrtCreateEventExWithFlag(void **event, uint32_t flags) { return aclrtCreateEventWithFlag(event, flags); }
aclError aclrtDestroyEvent(void *event) { CALLED; free(event); return ACL_SUCCESS; }

int stand_in_act(struct action action) {
    struct event *event = action.where;
    uint64_t *word = action.where;
    switch (action.kind) {
        case EVENT_RECORD:
            event->is_recorded = 1;
            clock_gettime(CLOCK_MONOTONIC, &event->time);
            return 0;
        case EVENT_RESET: event->is_recorded = 0; return 0;
        case EVENT_WAIT: return !event->is_recorded;
        case VALUE_WRITE: *word = action.value; return 0;
        case VALUE_WAIT: return *word != action.value;
    }
    return 0;
}

static aclError act(enum action_kind kind, void *where, uint64_t value) {
    struct action action = {kind, where, value};
    // Outside a graph everything before this call is done, so there is nothing to wait for.
    int is_wait = kind == EVENT_WAIT || kind == VALUE_WAIT;
    if (!capture_action(action) && !is_wait) stand_in_act(action);
    return ACL_SUCCESS;
}

aclError aclrtRecordEvent(void *event, void *stream) { CALLED; return act(EVENT_RECORD, event, 0); }
aclError aclrtResetEvent(void *event, void *stream) { CALLED; return act(EVENT_RESET, event, 0); }
aclError aclrtStreamWaitEvent(void *stream, void *event) { CALLED; return act(EVENT_WAIT, event, 0); }

// torch_npu makes its external events of these: a word of device memory, written and waited for. Waiting compares for
// equality, whatever the mode in `flag`: the words are 0 or 1.
aclError aclrtValueWrite(void *word, uint64_t value, uint32_t flag, void *stream) { CALLED; return act(VALUE_WRITE, word, value); }
aclError aclrtValueWait(void *word, uint64_t value, uint32_t flag, void *stream) { CALLED; return act(VALUE_WAIT, word, value); }

aclError aclrtSynchronizeEvent(void *event) {
    CALLED;
    return refuse_in_capture("waiting for an event") ? ACL_ERROR_CAPTURE_UNSUPPORTED : ACL_SUCCESS;
}
aclError aclrtEventElapsedTime(float *milliseconds, void *from, void *to) {
    CALLED;
    struct timespec a = ((struct event *)from)->time, b = ((struct event *)to)->time;
    *milliseconds = (b.tv_sec - a.tv_sec) * 1e3f + (b.tv_nsec - a.tv_nsec) * 1e-6f;
    return ACL_SUCCESS;
}

enum { EVENT_RECORDED_COMPLETE = 1, EVENT_WAIT_COMPLETE = 0 };
aclError aclrtQueryEventStatus(void *event, int *status) { CALLED; *status = EVENT_RECORDED_COMPLETE; return ACL_SUCCESS; }
aclError aclrtQueryEventWaitStatus(void *event, int *status) { CALLED; *status = EVENT_WAIT_COMPLETE; return ACL_SUCCESS; }
aclError aclQueryEventRecordedStatus(void *event, int *status) { return aclrtQueryEventStatus(event, status); }
aclError aclQueryEventWaitStatus(void *event, int *status) { return aclrtQueryEventWaitStatus(event, status); }
