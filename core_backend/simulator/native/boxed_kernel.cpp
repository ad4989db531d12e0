// One kernel for every operator on npu tensors: it runs the operator's CPU kernel on the same bytes. Registered over
// torch_npu's own kernels in the dispatcher, so it holds in all threads, in inference mode, and in child processes.
#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_to_copy_native.h>
#include <torch/library.h>

#include <map>
#include <set>

#include "aliases.h"
#include "generators.h"
#include "launches.h"
#include "recorder.h"

namespace simulator {
using c10::IValue;

// "operator argument" of the arguments that the device reads on the host.
std::set<std::string> host_arguments;

// The same of those whose memory must be in FRACTAL_NZ.
std::set<std::string> nz_arguments;
constexpr int64_t kFractalNz = 29;

void check_format(const c10::OperatorHandle& op, const std::string& argument, const IValue& value) {
  if (nz_arguments.empty() || !nz_arguments.count(op.schema().name() + " " + argument)) return;
  static auto get_format = c10::Dispatcher::singleton().findSchemaOrThrow("npu::get_npu_format", "").typed<int64_t(const Tensor&)>();
  TORCH_CHECK(get_format.call(value.toTensor()) == kFractalNz, "simulated NPU: ", op.operator_name(), ": ", argument,
              " is not in FRACTAL_NZ: allocate it with torch_npu.empty_with_format(acl_format=29), a view is not "
              "(source: op-plugin sources, ReshapeAndCachAtb.cpp)");
}

bool is_host_argument(const c10::OperatorHandle& op, const std::string& argument) {
  return !host_arguments.empty() && host_arguments.count(op.schema().name() + " " + argument);
}

// What a call's arguments turned out to be.
struct Arguments {
  Aliases aliases;
  bool npu_tensor = false, npu_device = false, cpu_tensor = false;

  Tensor to_cpu(const Tensor& tensor) {
    if (is_npu(tensor)) {
      npu_tensor = true;
      return aliases.to_cpu(tensor);
    }
    cpu_tensor |= tensor.defined() && tensor.device().is_cpu() && tensor.dim() > 0;
    return tensor;
  }
};

bool is_nested_tensor_list(const IValue& value) {  // Tensor[][], as in c10d::allgather_
  return value.isList() && !value.isTensorList() && !value.toListRef().empty() && value.toListRef()[0].isTensorList();
}

IValue to_cpu(Arguments& arguments, const IValue& value) {
  if (value.isTensor()) return arguments.to_cpu(value.toTensor());
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorList()) list.push_back(arguments.to_cpu(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (std::optional<Tensor> tensor : value.toOptionalTensorList())
      // Indices may be on the host: torch and torch_npu both move them to the device (AdvancedIndex).
      list.push_back(tensor && is_npu(*tensor) ? arguments.to_cpu(*tensor) : tensor);
    return list;
  }
  if (is_nested_tensor_list(value)) {
    c10::List<c10::List<Tensor>> list;
    for (const IValue& inner : value.toListRef()) list.push_back(to_cpu(arguments, inner).toTensorList());
    return list;
  }
  if (value.isDevice() && value.toDevice().type() == kNpu) {
    arguments.npu_device = true;
    arguments.aliases.use_device(value.toDevice());
    return at::Device(at::kCPU);
  }
  if (value.isGenerator() && value.toGenerator().defined() && value.toGenerator().device().type() == kNpu)
    return cpu_generator_of(value.toGenerator());
  return value;
}

IValue to_npu(Aliases& aliases, const IValue& value) {
  if (value.isTensor()) return aliases.to_npu(value.toTensor());
  if (value.isTensorList()) {
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorList()) list.push_back(aliases.to_npu(tensor));
    return list;
  }
  if (is_nested_tensor_list(value)) {
    c10::List<c10::List<Tensor>> list;
    for (const IValue& inner : value.toListRef()) list.push_back(to_npu(aliases, inner).toTensorList());
    return list;
  }
  return value;
}

void check(const c10::OperatorHandle& op, const Arguments& arguments) {
  const auto& name = op.schema().name();
  static const std::set<std::string> between_devices{"aten::copy_", "aten::_copy_from", "aten::set_data"};
  bool may_mix = between_devices.count(name) || name.rfind("c10d::", 0) == 0;
  TORCH_CHECK(may_mix || !(arguments.npu_tensor && arguments.cpu_tensor),
              "simulated NPU: expected all tensors to be on the same device, but ", op.operator_name(),
              " got npu and cpu tensors");
  if (name.rfind("aten::", 0) != 0 && !op.hasKernelForDispatchKey(c10::DispatchKey::CPU))
    TORCH_CHECK_NOT_IMPLEMENTED(false, "simulated NPU: ", op.operator_name(),
                                " has no emulation; core_backend/simulator/emulation holds those there are");
}

// An operator that draws and was given no generator draws from the device's own, not from the CPU's.
void use_default_generator(const c10::FunctionSchema& schema, at::Device device, Stack* stack, size_t first) {
  for (size_t i = 0; i < schema.arguments().size(); i++) {
    auto optional = schema.arguments()[i].type()->cast<c10::OptionalType>();
    if (optional && optional->getElementType()->kind() == c10::TypeKind::GeneratorType && (*stack)[first + i].isNone())
      (*stack)[first + i] = cpu_generator_of(default_npu_generator(device));
  }
}

// The operator on CPU aliases of its npu arguments; the results are npu tensors again.
void run_on_cpu(const c10::OperatorHandle& op, Stack* stack) {
  at::AutoDispatchBelowADInplaceOrView guard;
  Launches::instance().add(op);
  const auto& schema = op.schema();
  const size_t num_arguments = schema.arguments().size(), num_results = schema.returns().size();
  Arguments arguments;
  const size_t first = stack->size() - num_arguments;
  for (size_t i = 0; i < num_arguments; i++) {
    auto& value = (*stack)[first + i];
    const auto& argument = schema.arguments()[i].name();
    if (is_host_argument(op, argument)) {
      TORCH_CHECK(value.isTensor() && value.toTensor().device().is_cpu(), "simulated NPU: ", op.operator_name(), ": ", argument,
                  " is read on the host: give a CPU tensor (on the device: tensor.hostData is null)");
      continue;
    }
    check_format(op, argument, value);
    // Pinning is for copies to a device that is not the host.
    value = argument == "pin_memory" ? IValue() : to_cpu(arguments, value);
  }
  check(op, arguments);
  if (arguments.npu_tensor || arguments.npu_device) use_default_generator(schema, arguments.aliases.device(), stack, first);
  op.callBoxed(stack);
  arguments.aliases.apply_changes();
  if (!arguments.npu_tensor && !arguments.npu_device) return;
  for (size_t i = stack->size() - num_results; i < stack->size(); i++) (*stack)[i] = to_npu(arguments.aliases, (*stack)[i]);
}

void capture(const c10::OperatorHandle& op, Stack* stack) {
  for (auto tag : {at::Tag::dynamic_output_shape, at::Tag::data_dependent_output})
    TORCH_CHECK(!op.hasTag(tag), "simulated NPU: ", op.operator_name(),
                " needs values on the host, which is not allowed while a graph is captured");
  const size_t num_arguments = op.schema().arguments().size(), num_results = op.schema().returns().size();
  for (size_t i = 0; i < num_arguments; i++) {
    const auto& value = (*stack)[stack->size() - num_arguments + i];
    bool is_cpu = value.isTensor() && value.toTensor().defined() && value.toTensor().device().is_cpu();
    TORCH_CHECK(!is_cpu || value.toTensor().unsafeGetTensorImpl()->is_wrapped_number() || is_host_argument(op, op.schema().arguments()[i].name()),
                "simulated NPU: ", op.operator_name(), " got a CPU tensor: a copy between host and device is not allowed ",
                "while a graph is captured");
  }
  auto call = std::make_unique<Graph::Call>(Graph::Call{op, {stack->end() - num_arguments, stack->end()}, {}});
  run_on_cpu(op, stack);
  call->results.assign(stack->end() - num_results, stack->end());
  capturing->steps.push_back({std::move(call), nullptr});
}

void boxed(const c10::OperatorHandle& op, Stack* stack) {
  if (updating) return update_call(op, stack);
  if (capturing) return capture(op, stack);
  run_on_cpu(op, stack);
}

torch::Library& library(const std::string& name_space, c10::DispatchKey key) {
  static std::map<std::pair<std::string, c10::DispatchKey>, std::unique_ptr<torch::Library>> libraries;
  auto& library = libraries[{name_space, key}];
  if (!library) library = std::make_unique<torch::Library>(torch::Library::IMPL, name_space, key, __FILE__, __LINE__);
  return *library;
}

void install(const char* operator_name, c10::DispatchKey key, torch::CppFunction function) {
  std::string full(operator_name);
  auto colons = full.find("::");
  library(full.substr(0, colons), key).impl(full.substr(colons + 2).c_str(), std::move(function));
}
}  // namespace simulator

// For routing.py, by ctypes. Operators are named "namespace::name.overload".
extern "C" {
void simulator_start() {
  simulator::run_operator = simulator::run_on_cpu;
  simulator::register_recorder();
  // A cast on the device is the composite of torch itself, whose parts are boxed.
  simulator::install("aten::_to_copy", c10::DispatchKey::PrivateUse1, torch::CppFunction(TORCH_FN(at::native::_to_copy)));
}
void simulator_box(const char* name) {
  simulator::install(name, c10::DispatchKey::PrivateUse1, torch::CppFunction::makeFromBoxedFunction<&simulator::boxed>());
}
void simulator_without_autograd(const char* name) {
  simulator::install(name, c10::DispatchKey::AutogradPrivateUse1, torch::CppFunction::makeFallthrough());
}
void simulator_set_host_argument(const char* name, const char* argument) {
  simulator::host_arguments.insert(std::string(name) + " " + argument);
}
void simulator_set_nz_argument(const char* name, const char* argument) {
  simulator::nz_arguments.insert(std::string(name) + " " + argument);
}
void simulator_listen(bool on) { simulator::Launches::instance().listen(on); }
const char* simulator_launches() { return simulator::Launches::instance().names(); }
}
