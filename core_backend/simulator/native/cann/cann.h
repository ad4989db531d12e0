// What the files of this stand-in for CANN's runtime share. It covers what the torch_npu wheel calls when no operator
// runs on a chip: devices, memory, streams, events, graphs. Every pointer is host memory, every stream is in order and
// done at once. Names and values: CANN's acl/acl_rt.h.
#pragma once
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int aclError;
enum {
    ACL_SUCCESS = 0,
    ACL_ERROR_INVALID_PARAM = 107000,
    ACL_ERROR_INVALID_DEVICE = 107001,
    ACL_ERROR_CAPTURE_UNSUPPORTED = 107027,
    ACL_ERROR_BAD_ALLOC = 207001,
    ACL_ERROR_NO_KERNEL = 500002,
};

// The first call of each function is noted under its name: tests read the list to see what torch_npu reached.
void note_call(const char *function);
#define CALLED                                                        \
    do {                                                              \
        static atomic_int seen;                                       \
        if (!atomic_exchange(&seen, 1)) note_call(__func__);          \
    } while (0)

// What aclGetRecentErrMsg answers, which torch_npu puts into its exceptions.
void set_error(const char *message);

int setting(const char *environment_variable, int otherwise);
int current_device(void);
void *new_handle(void);
