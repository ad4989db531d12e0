// The CPU generator that stands behind an npu generator: seeded from its seed and offset, and advanced with it.
#pragma once
#include <ATen/CPUGeneratorImpl.h>

#include <dlfcn.h>

#include <mutex>
#include <unordered_map>

namespace simulator {
inline at::Generator cpu_generator_of(at::Generator npu) {
  constexpr uint64_t kOffsetPerCall = 4;  // Philox: a call consumes a multiple of four
  constexpr uint64_t kMix = 0x9E3779B97F4A7C15ull;
  struct Behind {
    uint64_t seed, offset;
    at::Generator cpu;
  };
  static std::mutex mutex;
  static std::unordered_map<c10::GeneratorImpl*, Behind> behind;

  std::lock_guard<std::mutex> lock(mutex);
  uint64_t seed = npu.current_seed(), offset = npu.get_offset();
  // vLLM makes a generator for every request with a seed. Each can be made anew from its seed and offset.
  if (behind.size() > 4096) behind.clear();
  auto& entry = behind[npu.unsafeGetGeneratorImpl()];
  if (!entry.cpu.defined() || entry.seed != seed || entry.offset != offset)
    entry = {seed, offset, at::detail::createCPUGenerator(seed ^ (offset * kMix))};
  npu.set_offset(offset + kOffsetPerCall);
  entry.offset = offset + kOffsetPerCall;
  return entry.cpu;
}

// torch_npu's own; the hooks of torch that would tell it are not implemented in this wheel.
inline at::Generator default_npu_generator(at::Device device) {
  using Get = const at::Generator& (*)(c10::DeviceIndex);
  static void* torch_npu = dlopen("libtorch_npu.so", RTLD_NOW | RTLD_NOLOAD);
  static auto get = torch_npu ? reinterpret_cast<Get>(dlsym(torch_npu, "_ZN6at_npu6detail22getDefaultNPUGeneratorEa")) : nullptr;
  TORCH_CHECK(get, "simulated NPU: at_npu::detail::getDefaultNPUGenerator has moved; the simulator needs another torch_npu");
  return get(device.index());
}
}  // namespace simulator
