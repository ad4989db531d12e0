// The CUDA build of torch registers the names of its allocator's settings at start. torch_npu registers some of the same
// names again, which throws inside a static initializer and ends the process. In between, the device-specific ones are
// taken out of torch's set. A torch built for the CPU does not need this.
// Source: c10/core/AllocatorConfig.h of torch 2.11, AcceleratorAllocatorConfig::getMutableKeys.
#include <string>
#include <unordered_set>

extern "C" void forget_device_specific_keys(void* set) {
  static const std::unordered_set<std::string> shared{
      "large_segment_size_mb",       "max_split_size_mb",       "max_non_split_rounding_mb",
      "garbage_collection_threshold", "roundup_power2_divisions", "expandable_segments",
      "pinned_use_background_threads"};
  auto& keys = *static_cast<std::unordered_set<std::string>*>(set);
  for (auto key = keys.begin(); key != keys.end();) key = shared.count(*key) ? ++key : keys.erase(key);
}
