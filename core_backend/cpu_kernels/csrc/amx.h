// Matrix products on the tile registers of AMX, for the same packed layouts as the micro-kernel of micro_kernel.h.
//
// Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include "micro_kernel.h"

namespace ascend {

constexpr int kAmxRows = 16;       // of a tile register
constexpr int kAmxPairs = 16;      // pairs of factors that one instruction sums
constexpr int kAmxTileRows = 32;   // rows that are computed together: two tiles
constexpr int kAmxRowsWorth = 8;   // below, the tiles stay too empty to be worth it

// Whether this process may use the tiles, which Linux asks every process to request. Source: Linux, arch/x86/xstate.rst.
inline bool has_amx() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  static const bool granted = __builtin_cpu_supports("amx-bf16") && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

// For tests and comparisons: without it, what AMX could do is done by the micro-kernel.
inline bool& amx_allowed() {
  static bool allowed = true;
  return allowed;
}

inline bool use_amx() { return amx_allowed() && has_amx(); }

// Before tiles are loaded: GCC's intrinsics do not say which memory they read, so it could still hold its stores back.
inline void compiler_stores(const void* from) { asm volatile("" : : "r"(from) : "memory"); }

// The tiles of this thread while it lives: sums 0-3 (top left, top right, bottom left, bottom right), rows of the first
// factor 4 (top) and 5 (bottom), columns of the second 6 (left) and 7 (right).
class AmxTiles {
 public:
  AmxTiles() = default;
  AmxTiles(const AmxTiles&) = delete;
  ~AmxTiles() {
    if (rows_ >= 0) _tile_release();
  }

  // Set up for `rows` rows, 1 to 32.
  void for_rows(int rows) {
    if (rows == rows_) return;
    rows_ = rows;
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t num_rows[16] = {};
    } config;
    const int top = std::min(rows, kAmxRows), bottom = std::max(rows - kAmxRows, 1);
    const int rows_of_tile[] = {top, top, bottom, bottom, top, bottom, kAmxPairs, kAmxPairs};
    for (int tile = 0; tile < 8; tile++) config.row_bytes[tile] = 64, config.num_rows[tile] = rows_of_tile[tile];
    compiler_stores(&config);
    _tile_loadconfig(&config);
  }

  bool has_bottom() const { return rows_ > kAmxRows; }

 private:
  int rows_ = -1;
};

template <bool BOTTOM>
inline void amx_multiply(const bf16* a, int64_t lda, const Columns& b) {
  const int64_t a_stride = lda * 2, row_bytes = b.row_stride * 2, prefetch = b.prefetch * 2;
  const char* top = reinterpret_cast<const char*>(a);
  for (int segment = 0; segment < b.segments; segment++) {
    const char* left = reinterpret_cast<const char*>(b.left[segment]);
    const char* right = reinterpret_cast<const char*>(b.right[segment]);
    for (int pair = 0; pair < b.pairs; pair += kAmxPairs) {
      _tile_loadd(6, left, row_bytes);
      _tile_loadd(4, top, a_stride);
      _tile_dpbf16ps(0, 4, 6);
      _tile_loadd(7, right, row_bytes);
      if (BOTTOM) _tile_loadd(5, top + kAmxRows * a_stride, a_stride);
      _tile_dpbf16ps(1, 4, 7);
      if (BOTTOM) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
      }
      if (prefetch)
        for (int row = 0; row < kAmxPairs; row++) {
          _mm_prefetch(left + prefetch + row * row_bytes, _MM_HINT_T1);
          _mm_prefetch(right + prefetch + row * row_bytes, _MM_HINT_T1);
        }
      top += kAmxPairs * 4, left += kAmxPairs * row_bytes, right += kAmxPairs * row_bytes;
    }
  }
}

// sums[rows][32] = a[rows][...] x columns, or += with `add`. The rows are those that `tiles` is set up for; the columns'
// pairs are a multiple of 16.
inline void amx_multiply_tile(const AmxTiles& tiles, const bf16* a, int64_t lda, const Columns& b, float* sums,
                              int64_t sums_stride, bool add) {
  const int64_t stride = sums_stride * 4;
  float* below = sums + kAmxRows * sums_stride;
  const bool bottom = tiles.has_bottom();
  compiler_stores(a);
  if (add) {
    _tile_loadd(0, sums, stride);
    _tile_loadd(1, sums + kLanes, stride);
  } else {
    _tile_zero(0);
    _tile_zero(1);
  }
  if (bottom && add) {
    _tile_loadd(2, below, stride);
    _tile_loadd(3, below + kLanes, stride);
  } else if (bottom) {
    _tile_zero(2);
    _tile_zero(3);
  }
  bottom ? amx_multiply<true>(a, lda, b) : amx_multiply<false>(a, lda, b);
  _tile_stored(0, sums, stride);
  _tile_stored(1, sums + kLanes, stride);
  if (bottom) {
    _tile_stored(2, below, stride);
    _tile_stored(3, below + kLanes, stride);
  }
}

}  // namespace ascend
