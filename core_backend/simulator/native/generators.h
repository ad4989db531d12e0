// The CPU generator that stands behind an npu generator: seeded from its seed and offset, and advanced with it.
#pragma once
#include <ATen/CPUGeneratorImpl.h>

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
  auto& entry = behind[npu.unsafeGetGeneratorImpl()];
  if (!entry.cpu.defined() || entry.seed != seed || entry.offset != offset)
    entry = {seed, offset, at::detail::createCPUGenerator(seed ^ (offset * kMix))};
  npu.set_offset(offset + kOffsetPerCall);
  entry.offset = offset + kOffsetPerCall;
  return entry.cpu;
}
}  // namespace simulator
