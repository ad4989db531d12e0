// Operators in CANN's own forms: there is no kernel, so running one is an error. Descriptors are opaque.
#include "cann.h"

void *aclCreateTensorDesc(int dtype, int num_dims, const int64_t *dims, int format) { CALLED; return new_handle(); }
void aclDestroyTensorDesc(const void *descriptor) { CALLED; free((void *)descriptor); }
void *aclCreateDataBuffer(void *data, size_t bytes) { CALLED; return new_handle(); }
aclError aclDestroyDataBuffer(const void *buffer) { CALLED; free((void *)buffer); return ACL_SUCCESS; }
void *aclopCreateAttr(void) { CALLED; return new_handle(); }
void aclopDestroyAttr(const void *attributes) { CALLED; free((void *)attributes); }

static aclError no_kernel(void) {
    set_error("simulated NPU: an operator reached CANN, which is not there; it needs an emulation");
    return ACL_ERROR_NO_KERNEL;
}
aclError aclopCompileAndExecute(void) { CALLED; return no_kernel(); }
aclError aclopCompileAndExecuteV2(void) { CALLED; return no_kernel(); }
