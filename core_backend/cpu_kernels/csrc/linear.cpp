// Linear layers over weights packed for the micro-kernel.
//
// A weight [N, K] is packed as [N / 32][K / 2][32][2]: of 32 outputs at a time, pairs of inputs.
#include <omp.h>
#include <sys/mman.h>
#include <torch/library.h>

#include "bf16.h"

namespace ascend {
namespace {

constexpr size_t kHugePage = 2u << 20;
constexpr size_t kArena = 64u << 20;
constexpr int64_t kRowsInCache = 400000;  // bytes of input that stay in the L2 cache while weights pass by

// Packed weights lie together in 2 MB pages: streaming through them is bound by the TLB otherwise. Never given back, as
// weights are not.
bf16* allocate_in_huge_pages(size_t bytes) {
  static char *next = nullptr, *end = nullptr;
  bytes = (bytes + 255) / 256 * 256;
  if (next == nullptr || next + bytes > end) {
    const size_t size = (std::max(bytes, kArena) + 2 * kHugePage) / kHugePage * kHugePage;
    char* arena = static_cast<char*>(mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    TORCH_CHECK(arena != MAP_FAILED, "no memory for ", bytes, " bytes of packed weights: give the engine more.");
    next = reinterpret_cast<char*>((reinterpret_cast<size_t>(arena) + kHugePage - 1) / kHugePage * kHugePage);
    end = arena + size;
    madvise(next, (end - next) / kHugePage * kHugePage, MADV_HUGEPAGE);
  }
  bf16* allocated = reinterpret_cast<bf16*>(next);
  next += bytes;
  return allocated;
}

at::Tensor pack_weight(const at::Tensor& weight) {
  const int64_t n = weight.size(0), k = weight.size(1), blocks = (n + kTileColumns - 1) / kTileColumns;
  TORCH_CHECK(k % 2 == 0, "a packed weight has pairs of inputs, and this one has ", k, " of them.");
  const at::Tensor contiguous = weight.contiguous();
  const bf16* from = data_of(contiguous);
  bf16* to = allocate_in_huge_pages(blocks * k * kTileColumns * sizeof(bf16));
#pragma omp parallel for
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t column = 0; column < kTileColumns; column++) {
      const int64_t output = block * kTileColumns + column;
      for (int64_t pair = 0; pair < k / 2 && output < n; pair++)
        std::memcpy(to + ((block * (k / 2) + pair) * kTileColumns + column) * 2, from + output * k + pair * 2, 4);
    }
  // Three dimensions tell a packed weight from a plain one; its elements are not where their indices say.
  return at::from_blob(to, {1, n, k}, weight.options());
}

// Rows of the input times one block of 32 outputs.
struct LinearTile {
  const bf16* input;
  int64_t input_stride;
  const bf16* block;
  int pairs;
  bf16* output;
  int64_t output_stride;
  int columns;          // of the 32 that there are
  const float* bias;    // 32 elements, or null
  int64_t prefetch;     // while the first rows are computed

  template <int ROWS, int UNROLL>
  void run(int64_t row) const {
    __m512 sums[ROWS][2];
    const __m512 left = bias ? _mm512_loadu_ps(bias) : _mm512_setzero_ps();
    const __m512 right = bias ? _mm512_loadu_ps(bias + kLanes) : _mm512_setzero_ps();
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) sums[r][0] = left, sums[r][1] = right;
    const bf16 *first = block, *second = block + kTileColumns;
    const Columns columns_of_block{&first, &second, 1, pairs, 2 * kTileColumns, row == 0 ? prefetch : 0};
    multiply_tile<ROWS, UNROLL>(input + row * input_stride, input_stride, columns_of_block, sums);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(sums[r][1], sums[r][0]);
      bf16* to = output + (row + r) * output_stride;
      if (columns == kTileColumns)
        _mm512_storeu_si512(to, both);
      else
        _mm512_mask_storeu_epi16(to, (1u << columns) - 1, both);
    }
  }
};

struct Linear {
  const bf16* input;
  int64_t input_stride, num_rows, k;
  const bf16* weight;
  int64_t n;
  bf16* output;
  const float* bias;

  void rows_times_blocks(int64_t row_begin, int64_t row_end, int64_t block_begin, int64_t block_end) const {
    const int64_t rows = row_end - row_begin;
    for (int64_t block = block_begin; block < block_end; block++) {
      const int columns = static_cast<int>(std::min<int64_t>(kTileColumns, n - block * kTileColumns));
      float bias_of_block[kTileColumns] = {};
      if (bias) std::copy_n(bias + block * kTileColumns, columns, bias_of_block);
      // With one or two rows the stream of weights is the limit: fetch ahead in it. With more, fetch the next block.
      const int64_t next_block = block + 1 < block_end ? k * kTileColumns : 0;
      const LinearTile tile{input + row_begin * input_stride,
                            input_stride,
                            weight + block * k * kTileColumns,
                            static_cast<int>(k / 2),
                            output + row_begin * n + block * kTileColumns,
                            n,
                            columns,
                            bias ? bias_of_block : nullptr,
                            rows <= 2 ? 4096 : next_block};
      for_row_tiles(rows, tile);
    }
  }

  void run() const {
    const int64_t blocks = (n + kTileColumns - 1) / kTileColumns;
    const int64_t fitting = kRowsInCache / (2 * k) / kMaxTileRows * kMaxTileRows;
    const int64_t chunk = std::clamp<int64_t>(fitting, kMaxTileRows, 20 * kMaxTileRows);
    const int64_t chunks = (num_rows + chunk - 1) / chunk;
    if (chunks >= 2 * omp_get_max_threads()) {
#pragma omp parallel for schedule(dynamic)
      for (int64_t c = 0; c < chunks; c++)
        rows_times_blocks(c * chunk, std::min(num_rows, (c + 1) * chunk), 0, blocks);
      return;
    }
#pragma omp parallel
    {
      const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
      for (int64_t c = 0; c < chunks; c++)
        rows_times_blocks(c * chunk, std::min(num_rows, (c + 1) * chunk), blocks * thread / threads,
                          blocks * (thread + 1) / threads);
    }
  }
};

at::Tensor linear(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias) {
  const int64_t n = packed.size(1), k = packed.size(2);
  TORCH_CHECK(x.size(-1) == k, "the input has ", x.size(-1), " features, the weight ", k, ".");
  const bool has_row_stride = x.dim() == 2 && x.stride(1) == 1;
  const at::Tensor input = has_row_stride ? x : x.contiguous();
  auto sizes = x.sizes().vec();
  sizes.back() = n;
  const at::Tensor output = at::empty(sizes, x.options());
  const at::Tensor bias_fp32 = bias ? bias->to(at::kFloat).contiguous() : at::Tensor();
  Linear{data_of(input),
         has_row_stride ? input.stride(0) : k,
         x.numel() / k,
         k,
         data_of(packed),
         n,
         data_of(output),
         bias ? bias_fp32.data_ptr<float>() : nullptr}
      .run();
  return output;
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def("pack_weight(Tensor weight) -> Tensor", pack_weight);
  library.def("linear(Tensor x, Tensor packed, Tensor? bias) -> Tensor", linear);
}

}  // namespace
}  // namespace ascend
