// CPU tensors over the bytes of npu tensors, for one operator call.
#pragma once
#include <ATen/ATen.h>
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty_strided.h>
#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <unordered_map>
#include <vector>

namespace simulator {
using at::Tensor;
constexpr auto kNpu = c10::DeviceType::PrivateUse1;

inline bool is_npu(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == kNpu; }

class Aliases {
 public:
  // The CPU tensor that shares `npu`'s bytes, sizes and strides. Views of one storage stay views of one storage.
  Tensor to_cpu(const Tensor& npu) {
    for (const auto& pair : pairs_)
      if (pair.npu.is_same(npu)) return pair.cpu;
    device_index_ = npu.device().index();
    auto cpu = at::detail::make_tensor<c10::TensorImpl>(
        alias_of(npu.storage()), c10::DispatchKeySet(c10::DispatchKey::CPU), npu.dtype());
    auto* impl = cpu.unsafeGetTensorImpl();
    impl->set_sizes_and_strides(npu.sym_sizes(), npu.sym_strides(), npu.sym_storage_offset());
    if (npu.is_conj()) cpu._set_conj(true);
    if (npu.is_neg()) cpu._set_neg(true);
    if (npu.unsafeGetTensorImpl()->is_wrapped_number()) impl->set_wrapped_number(true);
    pairs_.push_back({npu, cpu, at::DimVector(cpu.sizes()), at::DimVector(cpu.strides()), cpu.storage_offset()});
    return cpu;
  }

  // The npu tensor for a result: the argument itself, a view of an argument, or a new tensor with a copy of the bytes.
  Tensor to_npu(const Tensor& cpu) {
    if (!cpu.defined() || !cpu.device().is_cpu() || cpu.layout() != at::kStrided) return cpu;
    for (const auto& pair : pairs_)
      if (pair.cpu.is_same(cpu)) return pair.npu;
    for (const auto& pair : pairs_)
      if (pair.cpu.storage().is_alias_of(cpu.storage()))
        return at::as_strided(pair.npu, cpu.sizes(), cpu.strides(), cpu.storage_offset());
    if (cpu.is_conj() || cpu.is_neg()) return to_npu(cpu.resolve_conj().resolve_neg());
    auto npu = at::empty_strided(cpu.sizes(), cpu.strides(),
                                 cpu.options().device(at::Device(kNpu, device_index_)).pinned_memory(false));
    if (cpu.numel() > 0) {
      auto bytes = at::detail::computeStorageNbytes(cpu.sizes(), cpu.strides(), cpu.element_size());
      std::memcpy(npu.storage().mutable_data(), cpu.const_data_ptr(), bytes);
    }
    return npu;
  }

  // What the CPU kernel did to its arguments beyond their bytes: an out= that was resized, a transpose in place.
  void apply_changes() {
    for (auto& pair : pairs_) {
      auto* impl = pair.npu.unsafeGetTensorImpl();
      const auto& cpu_storage = pair.cpu.storage();
      bool moved = cpu_storage.data() != pair.npu.storage().data();
      if (moved) pair.npu.resize_(pair.cpu.sizes());
      if (moved || pair.cpu.sizes() != at::IntArrayRef(pair.sizes) || pair.cpu.strides() != at::IntArrayRef(pair.strides) ||
          pair.cpu.storage_offset() != pair.offset)
        impl->set_sizes_and_strides(pair.cpu.sizes(), pair.cpu.strides(), pair.cpu.storage_offset());
      if (moved)
        std::memcpy(pair.npu.storage().mutable_data(), cpu_storage.data(),
                    std::min(pair.npu.storage().nbytes(), cpu_storage.nbytes()));
    }
  }

  at::Device device() const { return {kNpu, device_index_}; }

  void use_device(at::Device device) {
    if (device.has_index()) device_index_ = device.index();
  }

 private:
  struct Pair {
    Tensor npu, cpu;
    at::DimVector sizes, strides;  // of `cpu` before the call
    int64_t offset;
  };

  c10::Storage alias_of(const c10::Storage& npu) {
    auto* key = npu.unsafeGetStorageImpl();
    auto found = storages_.find(key);
    if (found != storages_.end()) return found->second;
    auto* keep_alive = new c10::Storage(npu);
    c10::DataPtr data(const_cast<void*>(key->data()), keep_alive,
                      [](void* storage) { delete static_cast<c10::Storage*>(storage); }, at::Device(at::kCPU));
    c10::Storage alias(c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), key->nbytes(),
                                                             std::move(data), c10::GetCPUAllocator(), true));
    storages_.emplace(key, alias);
    return alias;
  }

  std::vector<Pair> pairs_;
  std::unordered_map<c10::StorageImpl*, c10::Storage> storages_;
  c10::DeviceIndex device_index_ = 0;
};
}  // namespace simulator
