// Linear layers over weights packed for the micro-kernel.
//
// A weight [N, K] is packed as [N / 32][K / 2][32][2]: of 32 outputs at a time, pairs of inputs.
#include <torch/library.h>

#include <vector>

#include "amx.h"
#include "division.h"
#include "huge_pages.h"

namespace ascend {
namespace {

constexpr int64_t kBlocksTogether = 8;  // of one expert's weight, that a thread takes at a time

void pack(const bf16* from, int64_t n, int64_t k, bf16* to) {
  const int64_t blocks = (n + kTileColumns - 1) / kTileColumns;
#pragma omp parallel for
  for (int64_t block = 0; block < blocks; block++)
    for (int64_t column = 0; column < kTileColumns; column++) {
      const int64_t output = block * kTileColumns + column;
      for (int64_t pair = 0; pair < k / 2 && output < n; pair++)
        std::memcpy(to + ((block * (k / 2) + pair) * kTileColumns + column) * 2, from + output * k + pair * 2, 4);
    }
}

at::Tensor pack_weight(const at::Tensor& weight) {
  const int64_t n = weight.size(0), k = weight.size(1), blocks = (n + kTileColumns - 1) / kTileColumns;
  TORCH_CHECK(k % 2 == 0, "a packed weight has pairs of inputs, and this one has ", k, " of them.");
  const at::Tensor contiguous = weight.contiguous();
  bf16* to = static_cast<bf16*>(allocate_in_huge_pages(blocks * k * kTileColumns * sizeof(bf16)));
  pack(data_of(contiguous), n, k, to);
  // Three dimensions tell a packed weight from a plain one; its elements are not where their indices say.
  return at::from_blob(to, {1, n, k}, weight.options());
}

// [experts, n, k] -> [experts, k, n], each expert packed by itself.
at::Tensor pack_expert_weight(const at::Tensor& weight) {
  const int64_t experts = weight.size(0), n = weight.size(1), k = weight.size(2);
  TORCH_CHECK(k % 2 == 0 && n % kTileColumns == 0, "experts of ", n, " x ", k, " cannot be packed.");
  const at::Tensor contiguous = weight.contiguous();
  bf16* to = static_cast<bf16*>(allocate_in_huge_pages(experts * n * k * sizeof(bf16)));
  for (int64_t expert = 0; expert < experts; expert++)
    pack(data_of(contiguous) + expert * n * k, n, k, to + expert * n * k);
  return at::from_blob(to, {experts, k, n}, weight.options());
}

// Rows of the input times one block of 32 outputs. Output is bf16 or float.
template <class Output>
struct LinearTile {
  const bf16* input;
  int64_t input_stride;
  const bf16* block;
  int pairs;
  Output* output;
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
    multiply_tile<Bf16Dot, ROWS, UNROLL>(input + row * input_stride, input_stride, columns_of_block, sums);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) store_row(row + r, sums[r][0], sums[r][1]);
  }

  void store_row(int64_t row, __m512 left, __m512 right) const {
    Output* to = output + row * output_stride;
    if (columns == kTileColumns) {
      store(to, left);
      store(to + kLanes, right);
      return;
    }
    store_first(to, left, columns);
    if (columns > kLanes) store_first(to + kLanes, right, columns - kLanes);
  }
};

// The same for 32 rows at a time on AMX.
template <class Output>
struct AmxLinearTile {
  LinearTile<Output> tile;

  void run(int64_t rows, AmxTiles& tiles) const {
    alignas(64) float sums[kAmxTileRows * kTileColumns];
    for (int64_t row = 0; row < rows; row += kAmxTileRows) {
      const int now = static_cast<int>(std::min<int64_t>(kAmxTileRows, rows - row));
      tiles.for_rows(now);
      const bf16 *first = tile.block, *second = tile.block + kTileColumns;
      const Columns columns{&first, &second, 1, tile.pairs, 2 * kTileColumns, row == 0 ? tile.prefetch : 0};
      amx_multiply_tile(tiles, tile.input + row * tile.input_stride, tile.input_stride, columns, sums, kTileColumns, false);
      const __m512 left = tile.bias ? _mm512_loadu_ps(tile.bias) : _mm512_setzero_ps();
      const __m512 right = tile.bias ? _mm512_loadu_ps(tile.bias + kLanes) : _mm512_setzero_ps();
      for (int r = 0; r < now; r++) {
        const float* of_row = sums + r * kTileColumns;
        tile.store_row(row + r, _mm512_add_ps(_mm512_load_ps(of_row), left), _mm512_add_ps(_mm512_load_ps(of_row + kLanes), right));
      }
    }
  }
};

template <class Output>
struct Linear {
  const bf16* input;
  int64_t input_stride, num_rows, k;
  const bf16* weight;
  int64_t n;
  Output* output;
  const float* bias;

  void rows_times_blocks(int64_t row_begin, int64_t row_end, int64_t block_begin, int64_t block_end) const {
    const int64_t rows = row_end - row_begin;
    const bool on_amx = rows >= kAmxRowsWorth && k % (2 * kAmxPairs) == 0 && use_amx();
    AmxTiles tiles;
    for (int64_t block = block_begin; block < block_end; block++) {
      const int columns = static_cast<int>(std::min<int64_t>(kTileColumns, n - block * kTileColumns));
      float bias_of_block[kTileColumns] = {};
      if (bias) std::copy_n(bias + block * kTileColumns, columns, bias_of_block);
      // With one or two rows the stream of weights is the limit: fetch ahead in it. With more, fetch the next block.
      const int64_t next_block = block + 1 < block_end ? k * kTileColumns : 0;
      const LinearTile<Output> tile{input + row_begin * input_stride,
                            input_stride,
                            weight + block * k * kTileColumns,
                            static_cast<int>(k / 2),
                            output + row_begin * n + block * kTileColumns,
                            n,
                            columns,
                            bias ? bias_of_block : nullptr,
                            rows <= 2 ? 4096 : next_block};
      if (on_amx)
        AmxLinearTile<Output>{tile}.run(rows, tiles);
      else
        for_row_tiles(rows, tile);
    }
  }

  void all_rows_times_blocks(int64_t block_begin, int64_t block_end) const {
    division().all_rows(block_begin, block_end, [this](auto... range) { rows_times_blocks(range...); });
  }

  void run() const {
    division().everything([this](auto... range) { rows_times_blocks(range...); });
  }

 private:
  Division division() const {
    const int64_t row_bytes = k * static_cast<int64_t>(sizeof(bf16));
    return {num_rows, row_bytes, (n + kTileColumns - 1) / kTileColumns, row_bytes * kTileColumns};
  }
};

template <class Output>
void multiply(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias,
              const at::Tensor& output) {
  const int64_t n = packed.size(1), k = packed.size(2);
  TORCH_CHECK(x.size(-1) == k, "the input has ", x.size(-1), " features, the weight ", k, ".");
  const bool has_row_stride = x.dim() == 2 && x.stride(1) == 1;
  const at::Tensor input = has_row_stride ? x : x.contiguous();
  const at::Tensor bias_fp32 = bias ? bias->to(at::kFloat).contiguous() : at::Tensor();
  Linear<Output>{data_of(input),
                 has_row_stride ? input.stride(0) : k,
                 x.numel() / k,
                 k,
                 data_of(packed),
                 n,
                 static_cast<Output*>(output.data_ptr()),
                 bias ? bias_fp32.data_ptr<float>() : nullptr}
      .run();
}

at::Tensor output_of(const at::Tensor& x, const at::Tensor& packed, at::ScalarType dtype) {
  auto sizes = x.sizes().vec();
  sizes.back() = packed.size(1);
  return at::empty(sizes, x.options().dtype(dtype));
}

void linear_into(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias,
                 const at::Tensor& output) {
  multiply<bf16>(x, packed, bias, output);
}

at::Tensor linear(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias) {
  const at::Tensor output = output_of(x, packed, at::kBFloat16);
  multiply<bf16>(x, packed, bias, output);
  return output;
}

// The sums as they are, in fp32.
at::Tensor logits(const at::Tensor& x, const at::Tensor& packed, const std::optional<at::Tensor>& bias) {
  const at::Tensor output = output_of(x, packed, at::kFloat);
  multiply<float>(x, packed, bias, output);
  return output;
}

// Each expert's rows times its weight; rows past the last expert's stay as they are.
at::Tensor grouped_linear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& counts) {
  const int64_t experts = packed.size(0), k = packed.size(1), n = packed.size(2), blocks = n / kTileColumns;
  TORCH_CHECK(x.size(1) == k, "the input has ", x.size(1), " features, the weights ", k, ".");
  const at::Tensor input = x.contiguous(), output = at::empty({x.size(0), n}, x.options());
  struct Task {
    Linear<bf16> linear;
    int64_t block;
  };
  std::vector<Task> tasks;
  int64_t row = 0;
  for (int64_t expert = 0; expert < experts; expert++) {
    const int64_t rows = counts.data_ptr<int64_t>()[expert];
    const Linear<bf16> linear{data_of(input) + row * k, k, rows, k, data_of(packed) + expert * n * k, n,
                        data_of(output) + row * n, nullptr};
    for (int64_t block = 0; block < blocks && rows; block += kBlocksTogether) tasks.push_back({linear, block});
    row += rows;
  }
  TORCH_CHECK(row <= x.size(0), "the experts have ", row, " rows, the input ", x.size(0), ".");
  const int64_t count = static_cast<int64_t>(tasks.size());
#pragma omp parallel for schedule(dynamic)
  for (int64_t i = 0; i < count; i++)
    tasks[i].linear.all_rows_times_blocks(tasks[i].block, std::min(blocks, tasks[i].block + kBlocksTogether));
  return output;
}

// Whether AMX is used from now on.
bool allow_amx(bool allowed) {
  amx_allowed() = allowed;
  return use_amx();
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def("allow_amx(bool allowed) -> bool", allow_amx);
  library.def("uses_amx() -> bool", use_amx);
  library.def("pack_weight(Tensor weight) -> Tensor", pack_weight);
  library.def("pack_expert_weight(Tensor weight) -> Tensor", pack_expert_weight);
  library.def("grouped_linear(Tensor x, Tensor packed, Tensor counts) -> Tensor", grouped_linear);
  library.def("linear(Tensor x, Tensor packed, Tensor? bias) -> Tensor", linear);
  library.def("logits(Tensor x, Tensor packed, Tensor? bias) -> Tensor", logits);
  library.def("linear_into(Tensor x, Tensor packed, Tensor? bias, Tensor(a!) output) -> ()", linear_into);
}

}  // namespace
}  // namespace ascend
