// bfloat16 vectors of AVX-512.
#pragma once

#include <ATen/ATen.h>
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace ascend {

using bf16 = uint16_t;
using std::int64_t;

constexpr int kLanes = 16;        // fp32 elements of a vector

inline bf16* data_of(const at::Tensor& tensor) { return static_cast<bf16*>(tensor.data_ptr()); }

inline __m512 load(const bf16* from) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }

inline float load_one(const float* from) { return *from; }

inline float load_one(const bf16* from) {
  const uint32_t bits = static_cast<uint32_t>(*from) << 16;
  float number;
  std::memcpy(&number, &bits, sizeof(number));
  return number;
}

inline void store(bf16* to, __m512 values) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), (__m256i)_mm512_cvtneps_pbh(values));
}

inline void store(float* to, __m512 values) { _mm512_storeu_ps(to, values); }

// The first `count` elements, all 16 if there are more.
inline void store_first(bf16* to, __m512 values, int64_t count) {
  const __mmask16 mask = count >= kLanes ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
  _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(values));
}

inline void store_first(float* to, __m512 values, int64_t count) {
  _mm512_mask_storeu_ps(to, count >= kLanes ? 0xffff : static_cast<__mmask16>((1u << count) - 1), values);
}

// 2^x to about 1e-7, relatively; 0 far below. A polynomial of the fraction: Taylor's coefficients of 2^f on [-0.5, 0.5].
inline __m512 exp2(__m512 x) {
  x = _mm512_max_ps(x, _mm512_set1_ps(-126.f));
  const __m512 whole = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(1.33335581e-3f);
  for (const float c : {9.61812910e-3f, 5.55041086e-2f, 2.40226506e-1f, 6.93147180e-1f, 1.f})
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
  return _mm512_scalef_ps(p, whole);
}

// 2^x for x of at most 0, to 1e-4, relatively: bfloat16 rounds at 4e-3. 0 far below. Least largest error on [-0.5, 0.5].
inline __m512 exp2_for_bf16(__m512 x) {
  const __m512 whole = _mm512_roundscale_ps(x, 0), f = _mm512_sub_ps(x, whole);
  __m512 p = _mm512_set1_ps(0.05516989f);
  for (const float c : {0.24260701f, 0.69326091f, 0.99992834f}) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
  return _mm512_scalef_ps(p, whole);
}

}  // namespace ascend
