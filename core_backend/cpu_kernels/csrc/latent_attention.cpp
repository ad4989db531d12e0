// Attention over a paged cache of latent vectors (MLA), which are keys and values of all heads.
//
// The cache is plain: one row per token, its rotary part in a second cache. Tiles are made of 128 rows at a time, once
// for all heads that are computed together. Source: arXiv 2405.04434.
#include <torch/library.h>

#include "attention.h"

namespace ascend {
namespace {

constexpr int kFeatures = 32;  // of a row that fill a vector

// Rows of 16 pairs, each pair 32 bits, become columns: to[pair][row].
void transpose_pairs(const bf16* const (&rows)[kTokens], int64_t feature, bf16* to) {
  __m512i x[kTokens], y[kTokens];
#pragma GCC unroll 16
  for (int i = 0; i < kTokens; i++) x[i] = load_pairs(rows[i] + feature);
  // Within each quarter of a vector: pairs of two rows, then of four.
#pragma GCC unroll 8
  for (int i = 0; i < kTokens; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTokens; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
  // Quarter q of x[i] has column 4 q + i % 4 of rows i / 4 * 4 on: quarters of four vectors make a column.
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    const __m512i low = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x44), high = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xee);
    const __m512i low2 = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x44);
    const __m512i high2 = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xee);
    bf16* column = to + i * 2 * kTokens;
    _mm512_store_si512(column, _mm512_shuffle_i32x4(low, low2, 0x88));
    _mm512_store_si512(column + 4 * 2 * kTokens, _mm512_shuffle_i32x4(low, low2, 0xdd));
    _mm512_store_si512(column + 8 * 2 * kTokens, _mm512_shuffle_i32x4(high, high2, 0x88));
    _mm512_store_si512(column + 12 * 2 * kTokens, _mm512_shuffle_i32x4(high, high2, 0xdd));
  }
}

// 32 elements of one row and of the next, alternating.
void interleave(__m512i row, __m512i next, bf16* to) {
  const __m512i low = _mm512_unpacklo_epi16(row, next), high = _mm512_unpackhi_epi16(row, next);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  _mm512_store_si512(to, _mm512_permutex2var_epi64(low, first, high));
  _mm512_store_si512(to + kFeatures, _mm512_permutex2var_epi64(low, second, high));
}

// See attend() in attention.h.
class LatentCache {
 public:
  // latent  [num_blocks, block_size, 1, latent_size]; pe  [num_blocks, block_size, 1, rope_size]
  LatentCache(const at::Tensor& latent, const at::Tensor& pe, const at::Tensor& block_table)
      : latent_(data_of(latent)),
        pe_(data_of(pe)),
        latent_size_(latent.size(3)),
        pe_size_(pe.size(3)),
        block_size_(latent.size(1)),
        block_table_(block_table.data_ptr<int>()),
        block_table_stride_(block_table.stride(0)) {}

  const bf16* keys_at(const Work&, int) const { return nullptr; }

  Tiles tiles(const Work& work, int begin, int end, Scratch&) const {
    struct alignas(64) Made {
      bf16 keys[kTiles * kTokens * kMaxKeySize], values[kTiles * kTokens * kMaxValueSize];
    };
    static thread_local Made made;
    Tiles tiles;
    tiles.count = (end - begin + kTokens - 1) / kTokens;
    tiles.to_values = 0;
    for (int i = 0; i < tiles.count; i++) {
      bf16* keys = made.keys + i * kTokens * (latent_size_ + pe_size_);
      bf16* values = made.values + i * kTokens * latent_size_;
      make_tile(work, begin + i * kTokens, std::min(end, begin + (i + 1) * kTokens), keys, values);
      tiles.keys[i] = keys, tiles.values[i] = values;
    }
    tiles.pad_keys();
    return tiles;
  }

 private:
  void make_tile(const Work& work, int begin, int end, bf16* keys, bf16* values) const {
    alignas(64) static constexpr bf16 kZeros[kMaxKeySize] = {};
    const bf16 *latent[kTokens], *pe[kTokens];
    for (int i = 0; i < kTokens; i++) {
      const int token = begin + i;
      if (token >= end) {  // what a block's former owner left there is not read
        latent[i] = pe[i] = kZeros;
        continue;
      }
      const int64_t slot = block_table_[work.request * block_table_stride_ + token / block_size_] * block_size_ + token % block_size_;
      latent[i] = latent_ + slot * latent_size_, pe[i] = pe_ + slot * pe_size_;
    }
    for (int64_t i = 0; i < latent_size_; i += kFeatures) transpose_pairs(latent, i, keys + i * kTokens);
    for (int64_t i = 0; i < pe_size_; i += kFeatures) transpose_pairs(pe, i, keys + (latent_size_ + i) * kTokens);
    for (int pair = 0; pair < kTokens / 2; pair++)
      for (int64_t i = 0; i < latent_size_; i += kFeatures)
        interleave(load_pairs(latent[2 * pair] + i), load_pairs(latent[2 * pair + 1] + i),
                   values + (pair * latent_size_ + i) * 2);
  }

  const bf16 *latent_, *pe_;
  int64_t latent_size_, pe_size_, block_size_;
  const int* block_table_;
  int64_t block_table_stride_;
};

// query  [num_tokens, num_heads, latent_size + rope_size]; out  [num_tokens, num_heads, latent_size]
void latent_attention(const at::Tensor& query, const at::Tensor& latent_cache, const at::Tensor& pe_cache,
                      const at::Tensor& query_start_loc, const at::Tensor& seq_lens, const at::Tensor& block_table,
                      double scale, const at::Tensor& out) {
  const int64_t num_tokens = query.size(0), num_heads = query.size(1), key_size = query.size(2), value_size = out.size(2);
  TORCH_CHECK(value_size % kFeatures == 0 && key_size % kFeatures == 0 && value_size <= kMaxValueSize && key_size <= kMaxKeySize,
              "latent vectors of ", value_size, " and ", key_size - value_size, " have no kernel.");
  // With few requests, every thread has some of the heads.
  const int64_t share = (num_tokens * num_heads + omp_get_max_threads() - 1) / omp_get_max_threads();
  const int64_t max_rows = std::clamp<int64_t>(share, 1, use_amx() ? kMaxRows : kMicroRows);
  const Layer layer{data_of(query),
                    data_of(out),
                    nullptr,
                    query.stride(0),
                    out.stride(0),
                    num_heads,
                    1,
                    key_size,
                    value_size,
                    key_size,
                    value_size,
                    query_start_loc.data_ptr<int>(),
                    seq_lens.data_ptr<int>(),
                    static_cast<float>(scale * kLog2E),
                    0,
                    true,
                    nullptr,
                    0,
                    max_rows,
                    heads_together(num_heads, max_rows)};
  attend_all(layer, LatentCache(latent_cache, pe_cache, block_table), seq_lens.size(0), 1);
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def(
      "latent_attention(Tensor query, Tensor latent_cache, Tensor pe_cache, Tensor query_start_loc, Tensor seq_lens, "
      "Tensor block_table, float scale, Tensor(a!) out) -> ()",
      latent_attention);
}

}  // namespace
}  // namespace ascend
