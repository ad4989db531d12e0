// Memory for packed weights: it lies together in 2 MB pages, since streaming through it is bound by the TLB otherwise.
// Never given back, as weights are not.
#pragma once

#include <sys/mman.h>

#include <ATen/ATen.h>

#include <algorithm>

namespace ascend {

inline void* allocate_in_huge_pages(size_t bytes) {
  constexpr size_t kHugePage = 2u << 20, kArena = 64u << 20, kAlignment = 256;
  static char *next = nullptr, *end = nullptr;
  bytes = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (next == nullptr || next + bytes > end) {
    const size_t size = (std::max(bytes, kArena) + 2 * kHugePage) / kHugePage * kHugePage;
    char* arena = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    TORCH_CHECK(arena != MAP_FAILED, "no memory for ", bytes, " bytes of packed weights: give the engine more.");
    next = reinterpret_cast<char*>((reinterpret_cast<size_t>(arena) + kHugePage - 1) / kHugePage * kHugePage);
    end = arena + size;
    madvise(next, (end - next) / kHugePage * kHugePage, MADV_HUGEPAGE);
  }
  char* allocated = next;
  next += bytes;
  return allocated;
}

}  // namespace ascend
