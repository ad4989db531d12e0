// What a graph holds: the operator calls, copies and event actions of its capture, which a replay runs again on the same
// tensors. Calls of a task group can be given other host-side arguments afterwards.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <functional>
#include <memory>
#include <vector>

#include "aliases.h"
extern "C" {
#include "cann/graph.h"
}

namespace simulator {
using torch::jit::Stack;

struct Graph {
  struct Call {
    c10::OperatorHandle op;
    std::vector<c10::IValue> arguments, results;
  };
  struct Step {
    std::unique_ptr<Call> call;           // either an operator,
    std::function<bool()> action;         // or anything else; false if it would wait for ever
  };
  struct Group {
    Graph* graph;
    size_t begin, end;
  };

  std::vector<Step> steps;
  std::vector<std::unique_ptr<Group>> groups;
  size_t group_begin = 0;
};

// Of the thread that captures: what others launch meanwhile is not part of the graph.
inline thread_local Graph* capturing = nullptr;
inline thread_local Graph::Group* updating = nullptr;
inline thread_local size_t update_cursor = 0;

// Runs an operator; set by boxed_kernel.cpp.
inline void (*run_operator)(const c10::OperatorHandle&, Stack*) = nullptr;

// Replaces the arguments of the next call of the task group that is being updated; its results are the captured ones.
inline void update_call(const c10::OperatorHandle& op, Stack* stack) {
  const size_t num_arguments = op.schema().arguments().size(), first = stack->size() - num_arguments;
  TORCH_CHECK(update_cursor < updating->end, "simulated NPU: this task group was captured with ",
              updating->end - updating->begin, " operators and is updated with more");
  auto& call = updating->graph->steps[update_cursor++].call;
  TORCH_CHECK(call && call->op.operator_name() == op.operator_name(),
              "simulated NPU: a task group is updated with ", op.operator_name(), ", but was captured with another operator");
  for (size_t i = 0; i < num_arguments; i++) {
    const auto& given = (*stack)[first + i];
    // Tensors come as references that do not own their memory: the captured ones keep it alive.
    if (!given.isTensor() && !given.isTensorList()) call->arguments[i] = given;
  }
  stack->resize(first);
  for (const auto& result : call->results) stack->push_back(result);
}

inline void copy_result(const c10::IValue& from, const c10::IValue& to) {
  if (from.isTensorList()) {
    for (size_t i = 0; i < from.toTensorVector().size(); i++) copy_result(from.toTensorVector()[i], to.toTensorVector()[i]);
    return;
  }
  if (!from.isTensor() || !is_npu(from.toTensor())) return;
  const auto &source = from.toTensor(), &target = to.toTensor();
  if (source.numel() == 0 || source.const_data_ptr() == target.const_data_ptr()) return;
  Aliases aliases;
  aliases.to_cpu(target).copy_(aliases.to_cpu(source));
}

inline bool replay(Graph& graph) {
  for (auto& step : graph.steps) {
    if (!step.call) {
      if (!step.action()) return false;
      continue;
    }
    Stack stack(step.call->arguments.begin(), step.call->arguments.end());
    run_operator(step.call->op, &stack);
    for (size_t i = 0; i < stack.size(); i++) copy_result(stack[i], step.call->results[i]);
  }
  return true;
}

inline void register_recorder() {
  graph_recorder recorder{};
  recorder.begin = []() -> void* { return capturing = new Graph; };
  recorder.end = [](void*) { capturing = nullptr; };
  recorder.replay = [](void* graph) { return replay(*static_cast<Graph*>(graph)) ? 0 : 1; };
  recorder.destroy = [](void* graph) { delete static_cast<Graph*>(graph); };
  recorder.copy = [](void* graph, void* to, const void* from, size_t bytes) {
    static_cast<Graph*>(graph)->steps.push_back({nullptr, [=] { return std::memmove(to, from, bytes), true; }});
  };
  recorder.action = [](void* graph, action taken) {
    static_cast<Graph*>(graph)->steps.push_back({nullptr, [=] { return stand_in_act(taken) == 0; }});
  };
  recorder.group_begin = [](void* graph) {
    static_cast<Graph*>(graph)->group_begin = static_cast<Graph*>(graph)->steps.size();
  };
  recorder.group_end = [](void* handle) -> void* {
    auto* graph = static_cast<Graph*>(handle);
    graph->groups.push_back(std::make_unique<Graph::Group>(Graph::Group{graph, graph->group_begin, graph->steps.size()}));
    return graph->groups.back().get();
  };
  recorder.update_begin = [](void* group) {
    updating = static_cast<Graph::Group*>(group);
    update_cursor = updating->begin;
  };
  recorder.update_end = [] {
    bool complete = update_cursor == updating->end;
    updating = nullptr;
    return complete ? 0 : 1;
  };
  stand_in_set_graph_recorder(recorder);
}
}  // namespace simulator
