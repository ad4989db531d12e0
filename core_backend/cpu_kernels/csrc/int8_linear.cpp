// Linear layers with int8 weights, whose inputs are quantized per token on the way (W8A8 dynamic), with VPDPBUSD.
//
// A weight [N, K] is packed in blocks of 32 outputs: of each 128 times the sum of its weights, then [K / 4][32][4].
// That instruction wants its first factor unsigned, so inputs are raised by 128, and those sums are taken off again.
#include <torch/library.h>

#include "division.h"
#include "huge_pages.h"
#include "micro_kernel.h"

namespace ascend {
namespace {

constexpr int kRaise = 128, kInt8Max = 127;
constexpr int kQuad = 4;  // int8 factors in the place of two bf16

// Four int8 take the place of a pair of bf16; strides count units of two bytes, therefore.
struct Int8Dot {
  using Sum = __m512i;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Sum add(Sum x, Sum y) { return _mm512_add_epi32(x, y); }
  static Sum dot(Sum sum, __m512i columns, __m512i row) { return _mm512_dpbusd_epi32(sum, row, columns); }
};

int64_t bytes_of_int8_block(int64_t k) { return kTileColumns * (static_cast<int64_t>(sizeof(int32_t)) + k); }

at::Tensor pack_int8_weight(const at::Tensor& weight) {
  const int64_t n = weight.size(0), k = weight.size(1), blocks = (n + kTileColumns - 1) / kTileColumns;
  TORCH_CHECK(k % kLanes == 0, "a packed int8 weight has a multiple of 16 inputs, and this one ", k, ".");
  const at::Tensor contiguous = weight.contiguous();
  const int8_t* from = contiguous.data_ptr<int8_t>();
  int8_t* to = static_cast<int8_t*>(allocate_in_huge_pages(blocks * bytes_of_int8_block(k)));
#pragma omp parallel for
  for (int64_t output = 0; output < n; output++) {
    const int64_t column = output % kTileColumns;
    int8_t* block = to + output / kTileColumns * bytes_of_int8_block(k);
    int32_t sum = 0;
    for (int64_t i = 0; i < k; i++) sum += from[output * k + i];
    reinterpret_cast<int32_t*>(block)[column] = kRaise * sum;
    block += kTileColumns * sizeof(int32_t);
    for (int64_t quad = 0; quad < k / kQuad; quad++)
      std::memcpy(block + (quad * kTileColumns + column) * kQuad, from + output * k + quad * kQuad, kQuad);
  }
  // Three dimensions tell a packed weight from a plain one; its elements are not where their indices say.
  return at::from_blob(to, {1, n, k}, weight.options());
}

// A token's elements as int8 raised by 128; what to multiply them with. See core_backend/ops/cpu/quantization.py.
template <class Element>
float quantize_token(const Element* from, int64_t size, uint8_t* to) {
  __m512 most = _mm512_setzero_ps();
  for (int64_t i = 0; i < size; i += kLanes) most = _mm512_max_ps(most, _mm512_abs_ps(load(from + i)));
  const float scale = _mm512_reduce_max_ps(most) / kInt8Max;
  const __m512 divisor = _mm512_set1_ps(scale == 0 ? 1.f : scale);
  const __m128i raise = _mm_set1_epi8(static_cast<char>(kRaise));
  for (int64_t i = 0; i < size; i += kLanes) {
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_div_ps(load(from + i), divisor));
    const __m128i bytes = _mm_xor_si128(_mm512_cvtsepi32_epi8(rounded), raise);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), bytes);
  }
  return scale;
}

// Rows of the input times one block of 32 outputs.
template <class Element>
struct Int8Tile {
  const uint8_t* input;
  const float* input_scales;
  int64_t k;
  const int8_t* block;
  const float *weight_scales, *bias;  // of all 32 outputs; of the bias, or null
  Element* output;
  int64_t output_stride;
  int columns;       // of the 32 that there are
  int64_t prefetch;  // while the first rows are computed

  template <int ROWS, int UNROLL>
  void run(int64_t row) const {
    __m512i sums[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = Int8Dot::zero();
    const bf16* first = reinterpret_cast<const bf16*>(block + kTileColumns * sizeof(int32_t));
    const bf16* second = first + kTileColumns;
    const Columns columns_of_block{&first, &second, 1, static_cast<int>(k / kQuad), 2 * kTileColumns, row == 0 ? prefetch : 0};
    multiply_tile<Int8Dot, ROWS, UNROLL>(reinterpret_cast<const bf16*>(input + row * k), k / 2, columns_of_block, sums);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      store_scaled(row + r, 0, sums[r][0]);
      if (columns > kLanes) store_scaled(row + r, kLanes, sums[r][1]);
    }
  }

  void store_scaled(int64_t row, int column, __m512i sum) const {
    const __m512i raised = _mm512_loadu_si512(reinterpret_cast<const int32_t*>(block) + column);
    __m512 value = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, raised));
    value = _mm512_mul_ps(_mm512_mul_ps(value, _mm512_loadu_ps(weight_scales + column)), _mm512_set1_ps(input_scales[row]));
    if (bias) value = _mm512_add_ps(value, _mm512_loadu_ps(bias + column));
    store_first(output + row * output_stride + column, value, columns - column);
  }
};

template <class Element>
struct Int8Linear {
  const uint8_t* input;
  const float* input_scales;
  int64_t num_rows, k;
  const int8_t* weight;
  const float *weight_scales, *bias;
  int64_t n;
  Element* output;

  void rows_times_blocks(int64_t row_begin, int64_t row_end, int64_t block_begin, int64_t block_end) const {
    for (int64_t block = block_begin; block < block_end; block++) {
      const int64_t first = block * kTileColumns;
      const int columns = static_cast<int>(std::min<int64_t>(kTileColumns, n - first));
      float scales[kTileColumns] = {}, bias_of_block[kTileColumns] = {};
      std::copy_n(weight_scales + first, columns, scales);
      if (bias) std::copy_n(bias + first, columns, bias_of_block);
      // As for bf16: with one or two rows fetch ahead in the stream of weights, with more the next block.
      const int64_t next_block = block + 1 < block_end ? bytes_of_int8_block(k) / 2 : 0;
      for_row_tiles(row_end - row_begin,
                    Int8Tile<Element>{input + row_begin * k, input_scales + row_begin, k,
                                      weight + block * bytes_of_int8_block(k), scales, bias ? bias_of_block : nullptr,
                                      output + row_begin * n + first, n, columns,
                                      row_end - row_begin <= 2 ? 4096 : next_block});
    }
  }

  void run() const {
    Division{num_rows, k, (n + kTileColumns - 1) / kTileColumns, bytes_of_int8_block(k)}.everything(
        [this](auto... range) { rows_times_blocks(range...); });
  }
};

template <class Element>
void quantize_and_multiply(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& weight_scale,
                           const at::Tensor& bias, const at::Tensor& output) {
  const int64_t n = packed.size(1), k = packed.size(2), num_rows = x.numel() / k;
  const at::Tensor quantized = at::empty({num_rows, k}, x.options().dtype(at::kByte));
  const at::Tensor scales = at::empty({num_rows}, x.options().dtype(at::kFloat));
  const Element* from = static_cast<const Element*>(x.data_ptr());
#pragma omp parallel for if (x.numel() > 1 << 13)
  for (int64_t row = 0; row < num_rows; row++)
    scales.data_ptr<float>()[row] = quantize_token(from + row * k, k, quantized.data_ptr<uint8_t>() + row * k);
  Int8Linear<Element>{quantized.data_ptr<uint8_t>(),
                      scales.data_ptr<float>(),
                      num_rows,
                      k,
                      packed.data_ptr<int8_t>(),
                      weight_scale.data_ptr<float>(),
                      bias.defined() ? bias.data_ptr<float>() : nullptr,
                      n,
                      static_cast<Element*>(output.data_ptr())}
      .run();
}

void int8_linear_into(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& weight_scale,
                      const std::optional<at::Tensor>& bias, const at::Tensor& output) {
  TORCH_CHECK(x.size(-1) == packed.size(2), "the input has ", x.size(-1), " features, the weight ", packed.size(2), ".");
  const at::Tensor bias_fp32 = bias ? bias->to(at::kFloat).contiguous() : at::Tensor();
  const auto run = x.scalar_type() == at::kFloat ? quantize_and_multiply<float> : quantize_and_multiply<bf16>;
  run(x.contiguous(), packed, weight_scale.contiguous(), bias_fp32, output);
}

// x is bf16 or fp32; weight_scale [N] fp32.
at::Tensor int8_linear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& weight_scale,
                       const std::optional<at::Tensor>& bias) {
  auto sizes = x.sizes().vec();
  sizes.back() = packed.size(1);
  const at::Tensor output = at::empty(sizes, x.options());
  int8_linear_into(x, packed, weight_scale, bias, output);
  return output;
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def("pack_int8_weight(Tensor weight) -> Tensor", pack_int8_weight);
  library.def("int8_linear(Tensor x, Tensor packed, Tensor weight_scale, Tensor? bias) -> Tensor", int8_linear);
  library.def("int8_linear_into(Tensor x, Tensor packed, Tensor weight_scale, Tensor? bias, Tensor(a!) output) -> ()",
              int8_linear_into);
}

}  // namespace
}  // namespace ascend
