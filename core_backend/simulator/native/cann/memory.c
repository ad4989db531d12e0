// Device memory, which is host memory with a limit per device.
#include <malloc.h>
#include <sys/mman.h>
#include "cann.h"
#include "graph.h"

#define MAX_DEVICES 64
#define ALIGNMENT 512
#define GIB ((size_t)1 << 30)

static atomic_size_t used[MAX_DEVICES];

static size_t capacity(void) { return setting("ASCEND_SIMULATE_MEMORY_GB", 8) * GIB; }

// Each block begins with its size and device, one alignment before the address that is handed out.
struct header { size_t bytes; int device; };

aclError aclrtMalloc(void **pointer, size_t bytes, int policy) {
    CALLED;
    int device = current_device() % MAX_DEVICES;
    if (atomic_fetch_add(&used[device], bytes) + bytes > capacity()) {
        atomic_fetch_sub(&used[device], bytes);
        set_error("simulated NPU: its memory is full; ASCEND_SIMULATE_MEMORY_GB sets how much it has");
        return ACL_ERROR_BAD_ALLOC;
    }
    char *block;
    // The device reads past the end in whole alignments.
    if (posix_memalign((void **)&block, ALIGNMENT, bytes + 2 * ALIGNMENT)) {
        atomic_fetch_sub(&used[device], bytes);
        return ACL_ERROR_BAD_ALLOC;
    }
    *(struct header *)block = (struct header){bytes, device};
    *pointer = block + ALIGNMENT;
    return ACL_SUCCESS;
}

aclError aclrtMallocAlign32(void **pointer, size_t bytes, int policy) { return aclrtMalloc(pointer, bytes, policy); }

aclError aclrtFree(void *pointer) {
    CALLED;
    if (!pointer) return ACL_SUCCESS;
    char *block = (char *)pointer - ALIGNMENT;
    struct header *header = (struct header *)block;
    atomic_fetch_sub(&used[header->device], header->bytes);
    free(block);
    return ACL_SUCCESS;
}

aclError aclrtGetMemInfo(int kind, size_t *free_bytes, size_t *total_bytes) {
    CALLED;
    *total_bytes = capacity();
    *free_bytes = *total_bytes - atomic_load(&used[current_device() % MAX_DEVICES]);
    return ACL_SUCCESS;
}

aclError aclrtMallocHost(void **pointer, size_t bytes) { CALLED; return posix_memalign(pointer, ALIGNMENT, bytes + 64) ? ACL_ERROR_BAD_ALLOC : ACL_SUCCESS; }
aclError aclrtFreeHost(void *pointer) { CALLED; free(pointer); return ACL_SUCCESS; }
aclError aclrtHostRegister(void *pointer, uint64_t bytes, int kind, void **device_pointer) { CALLED; *device_pointer = pointer; return ACL_SUCCESS; }
aclError aclrtHostUnregister(void *pointer) { CALLED; return ACL_SUCCESS; }

enum { HOST_TO_HOST, HOST_TO_DEVICE, DEVICE_TO_HOST, DEVICE_TO_DEVICE };

aclError aclrtMemcpy(void *to, size_t room, const void *from, size_t bytes, int kind) {
    CALLED;
    if (refuse_in_capture("a synchronous copy")) return ACL_ERROR_CAPTURE_UNSUPPORTED;
    memmove(to, from, bytes);
    return ACL_SUCCESS;
}

aclError aclrtMemcpyAsync(void *to, size_t room, const void *from, size_t bytes, int kind, void *stream) {
    CALLED;
    if (kind != DEVICE_TO_DEVICE && refuse_in_capture("a copy between host and device")) return ACL_ERROR_CAPTURE_UNSUPPORTED;
    capture_copy(to, from, bytes);
    memmove(to, from, bytes);
    return ACL_SUCCESS;
}

aclError aclrtMemset(void *to, size_t room, int value, size_t bytes) { CALLED; memset(to, value, bytes); return ACL_SUCCESS; }
aclError aclrtMemsetAsync(void *to, size_t room, int value, size_t bytes, void *stream) {
    CALLED;
    if (refuse_in_capture("aclrtMemsetAsync")) return ACL_ERROR_CAPTURE_UNSUPPORTED;
    memset(to, value, bytes);
    return ACL_SUCCESS;
}

// Virtual memory, which torch_npu's allocator takes for expandable segments.
aclError aclrtReserveMemAddress(void **pointer, size_t bytes, size_t alignment, void *expected, uint64_t flags) {
    CALLED;
    *pointer = mmap(0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return *pointer == MAP_FAILED ? ACL_ERROR_BAD_ALLOC : ACL_SUCCESS;
}
aclError aclrtReleaseMemAddress(void *pointer) { CALLED; return ACL_SUCCESS; }
aclError aclrtMallocPhysical(void **handle, size_t bytes, const void *properties, uint64_t flags) { CALLED; *handle = new_handle(); return ACL_SUCCESS; }
aclError aclrtFreePhysical(void *handle) { CALLED; free(handle); return ACL_SUCCESS; }
aclError aclrtMapMem(void *pointer, size_t bytes, size_t offset, void *handle, uint64_t flags) { CALLED; return ACL_SUCCESS; }
aclError aclrtUnmapMem(void *pointer) { CALLED; return ACL_SUCCESS; }
