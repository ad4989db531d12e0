// The micro-kernel that all matrix products here are made of: up to 12 rows times 32 columns.
#pragma once

#include "bf16.h"

namespace ascend {

constexpr int kTileColumns = 32;  // outputs that are computed for each row: two vectors
constexpr int kMaxTileRows = 12;  // 24 accumulators of the 32 registers

// Products of pairs of bf16, summed in fp32 with VDPBF16PS.
struct Bf16Dot {
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Sum add(Sum x, Sum y) { return _mm512_add_ps(x, y); }
  static Sum dot(Sum sum, __m512i columns, __m512i row) {
    return _mm512_dpbf16_ps(sum, (__m512bh)columns, (__m512bh)row);
  }
};

inline __m512i load_pairs(const bf16* from) { return _mm512_loadu_si512(from); }

inline __m512i broadcast_pair(const bf16* from) {
  int pair;
  std::memcpy(&pair, from, sizeof(pair));
  return _mm512_set1_epi32(pair);
}

// Where the second factor of a product lies: `segments` pieces of `pairs` rows each; a row holds, for each of 16 columns,
// a pair of elements that follow one another in the sum. left and right are the pieces of columns 0-15 and 16-31.
struct Columns {
  const bf16* const* left;
  const bf16* const* right;
  int segments;
  int pairs;
  int64_t row_stride;  // elements from one row of pairs to the next
  int64_t prefetch;    // elements ahead that are fetched into the cache meanwhile; 0: none
};

// sums[ROWS][2] += a[ROWS][...] x columns. UNROLL independent sums hide the instruction's latency where rows are few.
template <class Dot, int ROWS, int UNROLL>
inline void multiply_tile(const bf16* a, int64_t lda, const Columns& b, typename Dot::Sum (&sums)[ROWS][2]) {
  typename Dot::Sum partial[UNROLL][ROWS][2];
#pragma GCC unroll 4
  for (int u = 0; u < UNROLL; u++)
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      partial[u][r][0] = u == 0 ? sums[r][0] : Dot::zero();
      partial[u][r][1] = u == 0 ? sums[r][1] : Dot::zero();
    }
  for (int s = 0; s < b.segments; s++) {
    const bf16 *left = b.left[s], *right = b.right[s], *row = a + static_cast<int64_t>(s) * b.pairs * 2;
    int k = 0;
    for (; k + UNROLL <= b.pairs; k += UNROLL) {
#pragma GCC unroll 4
      for (int u = 0; u < UNROLL; u++) {
        const __m512i x = load_pairs(left + u * b.row_stride), y = load_pairs(right + u * b.row_stride);
        if (b.prefetch) {
          _mm_prefetch(reinterpret_cast<const char*>(left + u * b.row_stride + b.prefetch), _MM_HINT_T1);
          _mm_prefetch(reinterpret_cast<const char*>(right + u * b.row_stride + b.prefetch), _MM_HINT_T1);
        }
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
          const __m512i q = broadcast_pair(row + r * lda + u * 2);
          partial[u][r][0] = Dot::dot(partial[u][r][0], x, q);
          partial[u][r][1] = Dot::dot(partial[u][r][1], y, q);
        }
      }
      left += UNROLL * b.row_stride, right += UNROLL * b.row_stride, row += UNROLL * 2;
    }
    for (; k < b.pairs; k++, left += b.row_stride, right += b.row_stride, row += 2) {
      const __m512i x = load_pairs(left), y = load_pairs(right);
#pragma GCC unroll 12
      for (int r = 0; r < ROWS; r++) {
        const __m512i q = broadcast_pair(row + r * lda);
        partial[0][r][0] = Dot::dot(partial[0][r][0], x, q);
        partial[0][r][1] = Dot::dot(partial[0][r][1], y, q);
      }
    }
  }
#pragma GCC unroll 12
  for (int r = 0; r < ROWS; r++) {
    sums[r][0] = partial[0][r][0], sums[r][1] = partial[0][r][1];
#pragma GCC unroll 4
    for (int u = 1; u < UNROLL; u++) {
      sums[r][0] = Dot::add(sums[r][0], partial[u][r][0]);
      sums[r][1] = Dot::add(sums[r][1], partial[u][r][1]);
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
