// Devices: how many, which chip, and which one a thread uses.
#include "cann.h"

static _Thread_local int device;

static int num_devices(void) { return setting("ASCEND_SIMULATE_DEVICES", 1); }

int current_device(void) { return device; }

aclError aclInit(const char *config) { CALLED; return ACL_SUCCESS; }
aclError aclFinalize(void) { CALLED; return ACL_SUCCESS; }

aclError aclrtGetDeviceCount(uint32_t *count) { CALLED; *count = num_devices(); return ACL_SUCCESS; }

aclError aclrtSetDevice(int32_t id) {
    CALLED;
    if (id < 0 || id >= num_devices()) {
        set_error("simulated NPU: there is no such device; ASCEND_SIMULATE_DEVICES sets how many there are");
        return ACL_ERROR_INVALID_DEVICE;
    }
    device = id;
    return ACL_SUCCESS;
}

aclError aclrtGetDevice(int32_t *id) { CALLED; *id = device; return ACL_SUCCESS; }
aclError aclrtResetDevice(int32_t id) { CALLED; return ACL_SUCCESS; }
aclError aclrtSynchronizeDevice(void) { CALLED; return ACL_SUCCESS; }
aclError aclrtSynchronizeDeviceWithTimeout(int32_t milliseconds) { CALLED; return ACL_SUCCESS; }
aclError aclrtGetCurrentContext(void **context) { CALLED; *context = (void *)(intptr_t)(0x1000 + device); return ACL_SUCCESS; }
aclError aclrtSetCurrentContext(void *context) { CALLED; device = (int)((intptr_t)context - 0x1000); return ACL_SUCCESS; }

aclError aclrtGetPrimaryCtxState(int32_t id, uint32_t *flags, int32_t *active) {
    CALLED;
    if (flags) *flags = 0;
    if (active) *active = 1;
    return ACL_SUCCESS;
}

const char *aclrtGetSocName(void) {
    CALLED;
    const char *name = getenv("ASCEND_SIMULATE_SOC");
    return name ? name : "Ascend910B3";
}

// Cores: attribute 0 and 1 count the cube cores, the others the vector cores.
aclError aclGetDeviceCapability(uint32_t id, int attribute, int64_t *value) {
    CALLED;
    *value = attribute <= 1 ? 24 : 48;
    return ACL_SUCCESS;
}
aclError aclrtGetDeviceInfo(uint32_t id, int attribute, int64_t *value) { CALLED; *value = 24; return ACL_SUCCESS; }

aclError aclrtDeviceCanAccessPeer(int32_t *can, int32_t id, int32_t peer) { CALLED; *can = 0; return ACL_SUCCESS; }
aclError aclrtDeviceEnablePeerAccess(int32_t peer, uint32_t flags) { CALLED; return ACL_SUCCESS; }
aclError aclrtDeviceGetBareTgid(int32_t *pid) { CALLED; *pid = 1; return ACL_SUCCESS; }
aclError aclrtGetLogicDevIdByUserDevId(int32_t user, int32_t *logical) { CALLED; *logical = user; return ACL_SUCCESS; }
aclError aclrtPeekAtLastError(int level) { CALLED; return ACL_SUCCESS; }
aclError aclrtGetLastError(int level) { CALLED; return ACL_SUCCESS; }

// Settings of the runtime that change nothing here.
aclError aclrtSetDeviceSatMode(int mode) { CALLED; return ACL_SUCCESS; }
aclError aclrtSetOpExecuteTimeOut(uint32_t seconds) { CALLED; return ACL_SUCCESS; }
aclError aclrtSetOpExecuteTimeOutV2(uint64_t wanted, uint64_t *actual) { CALLED; if (actual) *actual = wanted; return ACL_SUCCESS; }
aclError aclrtSetOpWaitTimeout(uint32_t seconds) { CALLED; return ACL_SUCCESS; }
aclError aclSetCompileopt(int option, const char *value) { CALLED; return ACL_SUCCESS; }
size_t aclGetCompileoptSize(int option) { CALLED; return sizeof "disable"; }
aclError aclGetCompileopt(int option, char *value, size_t length) { CALLED; strncpy(value, "disable", length); return ACL_SUCCESS; }
aclError aclrtCtxSetSysParamOpt(int option, int64_t value) { CALLED; return ACL_SUCCESS; }
aclError aclrtSetSysParamOpt(int option, int64_t value) { CALLED; return ACL_SUCCESS; }
aclError aclrtGetSysParamOpt(int option, int64_t *value) { CALLED; *value = 0; return ACL_SUCCESS; }
void aclAppLog(int level, const char *function, const char *file, uint32_t line, const char *format, ...) {}
uint64_t MsprofSysCycleTime(void) { return 0; }
uint64_t MsprofGetHashId(const char *text, size_t length) { return 0; }
int MsprofRegisterCallback(uint32_t module, void *callback) { return 0; }
