// bfloat16 vectors of AVX-512, and the micro-kernel that all matrix products here are made of.
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
constexpr int kTileColumns = 32;  // outputs that the micro-kernel computes for each row: two vectors
constexpr int kMaxTileRows = 12;  // 24 accumulators of the 32 registers

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

// The first `count` elements, all 16 if there are more.
inline void store_first(bf16* to, __m512 values, int64_t count) {
  const __mmask16 mask = count >= kLanes ? 0xffff : static_cast<__mmask16>((1u << count) - 1);
  _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(values));
}

inline __m512bh load_pairs(const bf16* from) { return (__m512bh)_mm512_loadu_si512(from); }

inline __m512bh broadcast_pair(const bf16* from) {
  int pair;
  std::memcpy(&pair, from, sizeof(pair));
  return (__m512bh)_mm512_set1_epi32(pair);
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

// Where the second factor of a product lies: `segments` pieces of `pairs` rows each; a row holds, for each of 16 columns,
// two elements that follow one another in the sum. left and right are the pieces of columns 0-15 and 16-31.
struct Columns {
  const bf16* const* left;
  const bf16* const* right;
  int segments;
  int pairs;
  int64_t row_stride;  // elements from one row of pairs to the next
  int64_t prefetch;    // elements ahead that are fetched into the cache meanwhile; 0: none
};

// sums[ROWS][2] += a[ROWS][...] x columns, with VDPBF16PS. UNROLL independent sums hide its latency where rows are few.
template <int ROWS, int UNROLL>
inline void multiply_tile(const bf16* a, int64_t lda, const Columns& b, __m512 (&sums)[ROWS][2]) {
  __m512 partial[UNROLL][ROWS][2];
#pragma GCC unroll 4
  for (int u = 0; u < UNROLL; u++)
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      partial[u][r][0] = u == 0 ? sums[r][0] : _mm512_setzero_ps();
      partial[u][r][1] = u == 0 ? sums[r][1] : _mm512_setzero_ps();
    }
  for (int s = 0; s < b.segments; s++) {
    const bf16 *left = b.left[s], *right = b.right[s], *row = a + static_cast<int64_t>(s) * b.pairs * 2;
    int k = 0;
    for (; k + UNROLL <= b.pairs; k += UNROLL) {
#pragma GCC unroll 4
      for (int u = 0; u < UNROLL; u++) {
        const __m512bh x = load_pairs(left + u * b.row_stride), y = load_pairs(right + u * b.row_stride);
        if (b.prefetch) {
          _mm_prefetch(reinterpret_cast<const char*>(left + u * b.row_stride + b.prefetch), _MM_HINT_T1);
          _mm_prefetch(reinterpret_cast<const char*>(right + u * b.row_stride + b.prefetch), _MM_HINT_T1);
        }
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
          const __m512bh q = broadcast_pair(row + r * lda + u * 2);
          partial[u][r][0] = _mm512_dpbf16_ps(partial[u][r][0], x, q);
          partial[u][r][1] = _mm512_dpbf16_ps(partial[u][r][1], y, q);
        }
      }
      left += UNROLL * b.row_stride, right += UNROLL * b.row_stride, row += UNROLL * 2;
    }
    for (; k < b.pairs; k++, left += b.row_stride, right += b.row_stride, row += 2) {
      const __m512bh x = load_pairs(left), y = load_pairs(right);
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; r++) {
        const __m512bh q = broadcast_pair(row + r * lda);
        partial[0][r][0] = _mm512_dpbf16_ps(partial[0][r][0], x, q);
        partial[0][r][1] = _mm512_dpbf16_ps(partial[0][r][1], y, q);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; r++) {
    sums[r][0] = partial[0][r][0], sums[r][1] = partial[0][r][1];
#pragma GCC unroll 4
    for (int u = 1; u < UNROLL; u++) {
      sums[r][0] = _mm512_add_ps(sums[r][0], partial[u][r][0]);
      sums[r][1] = _mm512_add_ps(sums[r][1], partial[u][r][1]);
    }
  }
}

// Calls tile.run<ROWS, UNROLL>(first row) for `rows` rows in tiles of at most 12, as equal as they can be.
template <class Tile>
inline void for_row_tiles(int64_t rows, const Tile& tile) {
  for (int64_t row = 0, left = rows; left > 0;) {
    const int64_t tiles = (left + kMaxTileRows - 1) / kMaxTileRows, now = (left + tiles - 1) / tiles;
    switch (now) {
      case 1: tile.template run<1, 4>(row); break;
      case 2: tile.template run<2, 2>(row); break;
      case 3: tile.template run<3, 2>(row); break;
      case 4: tile.template run<4, 2>(row); break;
      case 5: tile.template run<5, 2>(row); break;
      case 6: tile.template run<6, 1>(row); break;
      case 7: tile.template run<7, 1>(row); break;
      case 8: tile.template run<8, 1>(row); break;
      case 9: tile.template run<9, 1>(row); break;
      case 10: tile.template run<10, 1>(row); break;
      case 11: tile.template run<11, 1>(row); break;
      default: tile.template run<12, 1>(row); break;
    }
    row += now, left -= now;
  }
}

}  // namespace ascend
