// A step of a model as a list of operator calls: noted while Python runs it, then made again without Python.
//
// What the operators make lies in one piece of memory, in which a tensor's place is taken by another once it is no
// longer read. Everything else (weights, caches, inputs) is read where it lay when the step was noted.
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/record_function.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <map>
#include <set>
#include <string>
#include <vector>

#include "bf16.h"

namespace ascend {
namespace {

constexpr size_t kAlignment = 64;
const std::string kOurs = "ascend_cpu::", kInto = "_into";

// Of torch's own operators, those that depend on nothing but their arguments and read no sizes from tensors. No softmax:
// attention by torch's operators takes the requests' lengths from Python.
const std::set<std::string> kCallable = {
    "aten::embedding", "aten::index_select", "aten::clone", "aten::contiguous", "aten::reshape", "aten::to",
    "aten::_to_copy", "aten::cat", "aten::stack", "aten::zeros_like", "aten::copy_", "aten::fill_", "aten::zero_",
    "aten::add", "aten::add_", "aten::sub", "aten::mul", "aten::mul_", "aten::div", "aten::neg", "aten::sum",
    "aten::bitwise_not", "aten::masked_fill", "aten::gather", "aten::scatter", "aten::scatter_", "aten::topk",
    "aten::sigmoid", "aten::tanh", "aten::silu", "aten::gelu", "aten::linear", "aten::mm", "aten::bmm",
};
// vLLM's, which call our layers: what those call is noted.
const std::set<std::string> kMadeOfOthers = {"vllm::moe_forward", "vllm::moe_forward_shared"};
const std::set<std::string> kMemoryOnly = {"aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided"};

struct Call {
  c10::OperatorHandle op;
  std::vector<c10::IValue> arguments;
  std::vector<at::Tensor> results;  // that op does not write to by itself
};

template <class Function>
void for_tensors(const c10::IValue& value, const Function& function) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) function(value.toTensor());
  } else if (value.isTensorList()) {
    for (const at::Tensor& tensor : value.toTensorVector()) function(tensor);
  } else if (value.isTuple()) {
    for (const c10::IValue& element : value.toTupleRef().elements()) for_tensors(element, function);
  }
}

c10::StorageImpl* storage_of(const at::Tensor& tensor) { return tensor.storage().unsafeGetStorageImpl(); }

class RecordedStep : public torch::CustomClassHolder {
 public:
  // Note every operator that this thread calls from now on.
  void begin() {
    current() = this;
    at::RecordFunctionCallback callback(&RecordedStep::before, &RecordedStep::after);
    handle_ = at::addThreadLocalCallback(
        callback.needsInputs(true).needsOutputs(true).scopes({at::RecordScope::FUNCTION}));
  }

  // No more. The reason why the step cannot be made again, or nothing.
  std::string end() {
    at::removeCallback(handle_);
    current() = nullptr;
    return refused_;
  }

  // Give the memory of all that was made to what lives at the same time. `result` is kept until the next replay; its
  // elements, as those of everything that was made, are lost.
  void keep(const at::Tensor& result) {
    struct Life {
      size_t first, last, bytes, offset;
    };
    std::map<c10::StorageImpl*, Life> lives;
    for (const auto& [storage, first] : made_)
      lives[storage.unsafeGetStorageImpl()] = {first, first, (storage.nbytes() + kAlignment - 1) / kAlignment * kAlignment, 0};
    for (size_t i = 0; i < calls_.size(); i++) {
      const auto use = [&](const at::Tensor& tensor) {
        if (const auto life = lives.find(storage_of(tensor)); life != lives.end()) life->second.last = i;
      };
      for (const c10::IValue& argument : calls_[i].arguments) for_tensors(argument, use);
      for (const at::Tensor& tensor : calls_[i].results) use(tensor);
    }
    if (const auto life = lives.find(storage_of(result)); life != lives.end()) life->second.last = calls_.size();
    // The largest first, each at the lowest place that nothing it lives with has.
    std::vector<std::pair<c10::StorageImpl*, Life*>> order;
    for (auto& [storage, life] : lives) order.emplace_back(storage, &life);
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.second->bytes > b.second->bytes; });
    size_t size = 0;
    for (size_t i = 0; i < order.size(); i++) {
      Life& life = *order[i].second;
      std::vector<std::pair<size_t, size_t>> taken;
      for (size_t j = 0; j < i; j++)
        if (const Life& other = *order[j].second; other.first <= life.last && life.first <= other.last)
          taken.emplace_back(other.offset, other.offset + other.bytes);
      std::sort(taken.begin(), taken.end());
      for (const auto& [begin, end] : taken)
        if (life.offset + life.bytes > begin) life.offset = std::max(life.offset, end);
      size = std::max(size, life.offset + life.bytes);
    }
    memory_ = at::empty({static_cast<int64_t>(size + kAlignment)}, at::kByte);
    char* base = static_cast<char*>(memory_.data_ptr());
    base += (kAlignment - reinterpret_cast<size_t>(base) % kAlignment) % kAlignment;
    for (const auto& [storage, life] : order) storage->set_data_ptr(at::DataPtr(base + life->offset, at::kCPU));
    made_.clear();
  }

  void replay() {
    std::vector<c10::IValue> stack;
    for (const Call& call : calls_) {
      stack = call.arguments;
      call.op.callBoxed(&stack);
      if (call.results.empty()) continue;
      size_t i = 0;
      for (const c10::IValue& value : stack)
        for_tensors(value, [&](const at::Tensor& tensor) { call.results[i++].copy_(tensor); });
    }
  }

  int64_t num_bytes() const { return memory_.defined() ? memory_.numel() : 0; }

 private:
  struct Arguments : at::ObserverContext {
    std::vector<c10::IValue> values;
  };

  static RecordedStep*& current() {
    static thread_local RecordedStep* step = nullptr;
    return step;
  }

  static std::unique_ptr<at::ObserverContext> before(const at::RecordFunction& function) {
    RecordedStep* step = current();
    if (step == nullptr || kMadeOfOthers.count(function.name()) || step->depth_++ > 0) return nullptr;
    auto arguments = std::make_unique<Arguments>();
    arguments->values.assign(function.inputs().begin(), function.inputs().end());
    return arguments;
  }

  static void after(const at::RecordFunction& function, at::ObserverContext* context) {
    RecordedStep* step = current();
    if (step == nullptr || kMadeOfOthers.count(function.name()) || --step->depth_ > 0) return;
    try {
      step->note(function, std::move(static_cast<Arguments*>(context)->values));
    } catch (const std::exception&) {  // torch would only log it, and the operator would be missing
      step->refuse(function.name());
    }
  }

  void refuse(const std::string& name) {
    if (refused_.empty()) refused_ = name;
  }

  void note(const at::RecordFunction& function, std::vector<c10::IValue> arguments) {
    const auto name = function.operator_name();
    const auto op = name ? c10::Dispatcher::singleton().findOp(*name) : std::nullopt;
    if (!op) return;  // a mark of the profiler's, no operator
    std::set<c10::StorageImpl*> given;
    for (const c10::IValue& argument : arguments)
      for_tensors(argument, [&](const at::Tensor& tensor) { given.insert(storage_of(tensor)); });
    std::vector<at::Tensor> results;
    bool makes = false;
    for (const c10::IValue& output : function.outputs())
      for_tensors(output, [&](const at::Tensor& tensor) {
        results.push_back(tensor);
        if (given.count(storage_of(tensor))) return;
        made_.emplace(tensor.storage(), calls_.size());
        makes = true;
      });
    const bool writes = op->schema().is_mutable();
    // Memory, or another view of it. Others' operators may write without saying so (those of torch.distributed do), and
    // one that makes no tensor has read one.
    const bool is_view = name->name.rfind("aten::", 0) == 0 && !results.empty() && !makes && !writes;
    if (kMemoryOnly.count(name->name) || is_view) return;
    if (name->name.rfind(kOurs, 0) != 0 && kCallable.count(name->name) == 0) return refuse(name->name);
    if (const auto into = c10::Dispatcher::singleton().findOp({name->name + kInto, ""}); into && !writes) {
      for (const at::Tensor& tensor : results) arguments.emplace_back(tensor);
      calls_.push_back({*into, std::move(arguments), {}});
    } else {
      calls_.push_back({*op, std::move(arguments), writes ? std::vector<at::Tensor>() : results});
    }
  }

  struct ByStorage {
    bool operator()(const at::Storage& a, const at::Storage& b) const {
      return a.unsafeGetStorageImpl() < b.unsafeGetStorageImpl();
    }
  };

  std::vector<Call> calls_;
  std::map<at::Storage, size_t, ByStorage> made_;  // by the number of the call that made it
  std::string refused_;
  at::CallbackHandle handle_ = 0;
  int depth_ = 0;
  at::Tensor memory_;
};

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.class_<RecordedStep>("RecordedStep")
      .def(torch::init<>())
      .def("begin", &RecordedStep::begin)
      .def("end", &RecordedStep::end)
      .def("keep", &RecordedStep::keep)
      .def("replay", &RecordedStep::replay)
      .def("num_bytes", &RecordedStep::num_bytes);
}

}  // namespace
}  // namespace ascend
