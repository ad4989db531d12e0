// Which operators the simulated device was given, in order, while somebody listens.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>

#include <atomic>
#include <mutex>
#include <string>

namespace simulator {
class Launches {
 public:
  static Launches& instance() {
    static Launches launches;
    return launches;
  }
  void add(const c10::OperatorHandle& op) {
    if (!listening_.load(std::memory_order_relaxed)) return;
    std::lock_guard<std::mutex> lock(mutex_);
    names_ += op.schema().name() + "\n";
  }
  void listen(bool on) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (on) names_.clear();
    listening_ = on;
  }
  const char* names() { return names_.c_str(); }

 private:
  std::atomic<bool> listening_{false};
  std::mutex mutex_;
  std::string names_;  // one line per launch
};
}  // namespace simulator
