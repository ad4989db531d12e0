// Norms, the gated activation, rotary embedding, and the largest element of each row.
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <vector>

#include "bf16.h"

namespace ascend {
namespace {

constexpr int64_t kWorthThreads = 1 << 13;  // elements: below, waking the other threads costs more than they bring

// output = norm(x + residual) * weight; the sum is written to sum, if that is wanted.
void normalize_row(const bf16* x, const bf16* residual, const bf16* weight, bf16* sum, bf16* output, float* row,
                   int64_t size, float epsilon) {
  __m512 squares = _mm512_setzero_ps();
  for (int64_t i = 0; i < size; i += kLanes) {
    __m512 value = load(x + i);
    if (residual) {
      value = _mm512_add_ps(value, load(residual + i));
      store(sum + i, value);
      value = load(sum + i);  // rounded, as the next layer will find it
    }
    _mm512_storeu_ps(row + i, value);
    squares = _mm512_fmadd_ps(value, value, squares);
  }
  const __m512 scale = _mm512_set1_ps(1.f / std::sqrt(_mm512_reduce_add_ps(squares) / size + epsilon));
  for (int64_t i = 0; i < size; i += kLanes)
    store(output + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(row + i), scale), load(weight + i)));
}

void normalize(const at::Tensor& x, const at::Tensor* residual, const at::Tensor& weight, const at::Tensor* sum,
               const at::Tensor& output, double epsilon) {
  const int64_t size = x.size(-1), rows = x.numel() / size;
#pragma omp parallel if (x.numel() > kWorthThreads)
  {
    std::vector<float> row(size);
#pragma omp for
    for (int64_t i = 0; i < rows; i++)
      normalize_row(data_of(x) + i * size, residual ? data_of(*residual) + i * size : nullptr, data_of(weight),
                    sum ? data_of(*sum) + i * size : nullptr, data_of(output) + i * size, row.data(), size, epsilon);
  }
}

void rms_norm_into(const at::Tensor& x, const at::Tensor& weight, double epsilon, const at::Tensor& output) {
  normalize(x.contiguous(), nullptr, weight, nullptr, output, epsilon);
}

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double epsilon) {
  const at::Tensor output = at::empty(x.sizes(), x.options());
  rms_norm_into(x, weight, epsilon, output);
  return output;
}

void add_rms_norm_into(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double epsilon,
                       const at::Tensor& output, const at::Tensor& sum) {
  const at::Tensor other = residual.contiguous();
  normalize(x.contiguous(), &other, weight, &sum, output, epsilon);
}

std::tuple<at::Tensor, at::Tensor> add_rms_norm(const at::Tensor& x, const at::Tensor& residual,
                                                const at::Tensor& weight, double epsilon) {
  const at::Tensor output = at::empty(x.sizes(), x.options()), sum = at::empty(x.sizes(), x.options());
  add_rms_norm_into(x, residual, weight, epsilon, output, sum);
  return {output, sum};
}

void silu_and_mul_into(const at::Tensor& x, const at::Tensor& output) {
  const int64_t size = x.size(-1) / 2, rows = x.numel() / (2 * size);
  const at::Tensor input = x.contiguous();
  const bf16* from = data_of(input);
  bf16* to = data_of(output);
  const __m512 one = _mm512_set1_ps(1.f), minus_log2e = _mm512_set1_ps(-1.44269504f), most = _mm512_set1_ps(126.f);
#pragma omp parallel for if (rows * size > kWorthThreads / 2)
  for (int64_t row = 0; row < rows; row++)
    for (int64_t i = 0; i < size; i += kLanes) {
      const __m512 gate = load(from + row * 2 * size + i), up = load(from + row * 2 * size + size + i);
      const __m512 e = exp2(_mm512_min_ps(_mm512_mul_ps(gate, minus_log2e), most));
      store(to + row * size + i, _mm512_mul_ps(_mm512_div_ps(gate, _mm512_add_ps(e, one)), up));
    }
}

at::Tensor silu_and_mul(const at::Tensor& x) {
  auto sizes = x.sizes().vec();
  sizes.back() /= 2;
  const at::Tensor output = at::empty(sizes, x.options());
  silu_and_mul_into(x, output);
  return output;
}

// Pairs (i, i + rotary_dim / 2) of each head of one token, from `from` to `to`.
void rotate_heads(const bf16* from, bf16* to, int64_t num_heads, int64_t head_size, const bf16* cos_sin, int64_t half) {
  for (int64_t head = 0; head < num_heads; head++, from += head_size, to += head_size) {
    for (int64_t i = 0; i < half; i += kLanes) {
      const __m512 x = load(from + i), y = load(from + half + i), cos = load(cos_sin + i), sin = load(cos_sin + half + i);
      store(to + i, _mm512_fmsub_ps(x, cos, _mm512_mul_ps(y, sin)));
      store(to + half + i, _mm512_fmadd_ps(y, cos, _mm512_mul_ps(x, sin)));
    }
    std::memcpy(to + 2 * half, from + 2 * half, (head_size - 2 * half) * sizeof(bf16));
  }
}

void rotary_into(const at::Tensor& positions, const at::Tensor& query, const at::Tensor& key,
                 const at::Tensor& cos_sin_cache, int64_t head_size, const at::Tensor& rotated_query,
                 const at::Tensor& rotated_key) {
  const int64_t num_tokens = query.size(0), rotary_dim = cos_sin_cache.size(1);
  const int64_t* position = positions.data_ptr<int64_t>();
  const int64_t query_size = query.size(1), key_size = key.size(1);
#pragma omp parallel for if (num_tokens * query_size > kWorthThreads)
  for (int64_t token = 0; token < num_tokens; token++) {
    const bf16* cos_sin = data_of(cos_sin_cache) + position[token] * rotary_dim;
    rotate_heads(data_of(query) + token * query.stride(0), data_of(rotated_query) + token * query_size,
                 query_size / head_size, head_size, cos_sin, rotary_dim / 2);
    rotate_heads(data_of(key) + token * key.stride(0), data_of(rotated_key) + token * key_size, key_size / head_size,
                 head_size, cos_sin, rotary_dim / 2);
  }
}

std::tuple<at::Tensor, at::Tensor> rotary(const at::Tensor& positions, const at::Tensor& query, const at::Tensor& key,
                                          const at::Tensor& cos_sin_cache, int64_t head_size) {
  const at::Tensor rotated_query = at::empty(query.sizes(), query.options());
  const at::Tensor rotated_key = at::empty(key.sizes(), key.options());
  rotary_into(positions, query, key, cos_sin_cache, head_size, rotated_query, rotated_key);
  return {rotated_query, rotated_key};
}

// Where the largest of `size` elements is; the first of equal ones. Of numbers only.
template <class Element>
int64_t largest(const Element* row, int64_t size) {
  __m512 most = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) most = _mm512_max_ps(most, load(row + i));
  float best = _mm512_reduce_max_ps(most);
  for (int64_t rest = i; rest < size; rest++) best = std::max(best, load_one(row + rest));
  for (i = 0; i + kLanes <= size; i += kLanes)
    if (const __mmask16 equal = _mm512_cmp_ps_mask(load(row + i), _mm512_set1_ps(best), _CMP_EQ_OQ))
      return i + __builtin_ctz(equal);
  while (i < size - 1 && load_one(row + i) != best) i++;
  return i;
}

// x [rows, size], bf16 or fp32 -> [rows]
at::Tensor argmax(const at::Tensor& x) {
  const int64_t rows = x.size(0), size = x.size(1);
  const at::Tensor output = at::empty({rows}, x.options().dtype(at::kLong));
#pragma omp parallel for if (x.numel() > kWorthThreads)
  for (int64_t row = 0; row < rows; row++)
    output.data_ptr<int64_t>()[row] = x.scalar_type() == at::kFloat
                                          ? largest(x.data_ptr<float>() + row * x.stride(0), size)
                                          : largest(data_of(x) + row * x.stride(0), size);
  return output;
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def("rms_norm(Tensor x, Tensor weight, float epsilon) -> Tensor", rms_norm);
  library.def("add_rms_norm(Tensor x, Tensor residual, Tensor weight, float epsilon) -> (Tensor, Tensor)", add_rms_norm);
  library.def("argmax(Tensor x) -> Tensor", argmax);
  library.def("silu_and_mul(Tensor x) -> Tensor", silu_and_mul);
  library.def(
      "rotary(Tensor positions, Tensor query, Tensor key, Tensor cos_sin_cache, int head_size) -> (Tensor, Tensor)",
      rotary);
  // The same into memory that there is already, which the last arguments are.
  library.def("rms_norm_into(Tensor x, Tensor weight, float epsilon, Tensor(a!) output) -> ()", rms_norm_into);
  library.def(
      "add_rms_norm_into(Tensor x, Tensor residual, Tensor weight, float epsilon, Tensor(a!) output, Tensor(b!) sum) -> ()",
      add_rms_norm_into);
  library.def("silu_and_mul_into(Tensor x, Tensor(a!) output) -> ()", silu_and_mul_into);
  library.def(
      "rotary_into(Tensor positions, Tensor query, Tensor key, Tensor cos_sin_cache, int head_size, "
      "Tensor(a!) rotated_query, Tensor(b!) rotated_key) -> ()",
      rotary_into);
}

}  // namespace
}  // namespace ascend
