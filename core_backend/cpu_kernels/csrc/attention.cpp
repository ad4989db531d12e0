// Attention over a paged KV cache in tiles, without a copy of keys or values.
//
// A cache block of one KV head is tiled as attention.h has it:
//   keys    [block_size / 16][head_size / 2][16][2]
//   values  [block_size / 16][8][head_size][2]
// Source: arXiv 2309.06180 (the paged cache).
#include "attention.h"

#include <torch/library.h>

namespace ascend {
namespace {

int64_t tile_offset(int64_t kv_head, int64_t tile, int64_t tiles_of_block, int64_t head_size) {
  return (kv_head * tiles_of_block + tile) * kTokens * head_size;
}

// key, value  [num_tokens, num_kv_heads, size]; caches as above, [num_blocks, block_size, num_kv_heads, size of a tile]
void write_kv(const at::Tensor& key, const at::Tensor& value, const at::Tensor& key_cache, const at::Tensor& value_cache,
              const at::Tensor& slot_mapping) {
  const int64_t num_tokens = slot_mapping.size(0), num_kv_heads = key.size(1), block_size = key_cache.size(1);
  const int64_t key_features = key.size(2), value_features = value.size(2);
  const int64_t key_size = key_cache.size(3), value_size = value_cache.size(3), tiles_of_block = block_size / kTokens;
  const int64_t* slots = slot_mapping.data_ptr<int64_t>();
#pragma omp parallel for if (num_tokens * num_kv_heads * key_features > 1 << 12)
  for (int64_t token = 0; token < num_tokens; token++) {
    if (slots[token] < 0) continue;  // padding
    const int64_t block = slots[token] / block_size, offset = slots[token] % block_size, in_tile = offset % kTokens;
    for (int64_t head = 0; head < num_kv_heads; head++) {
      const bf16* k = data_of(key) + token * key.stride(0) + head * key.stride(1);
      const bf16* v = data_of(value) + token * value.stride(0) + head * value.stride(1);
      bf16* keys = data_of(key_cache) + block * key_cache.stride(0) +
                   tile_offset(head, offset / kTokens, tiles_of_block, key_size) + in_tile * 2;
      bf16* values = data_of(value_cache) + block * value_cache.stride(0) +
                     tile_offset(head, offset / kTokens, tiles_of_block, value_size) + in_tile / 2 * 2 * value_size +
                     in_tile % 2;
      for (int64_t pair = 0; pair < key_features / 2; pair++) std::memcpy(keys + pair * kTokens * 2, k + pair * 2, 4);
      for (int64_t i = 0; i < value_features; i++) values[i * 2] = v[i];
    }
  }
}

// The same for keys or values alone, in a cache that is not tiled, whose elements are those of x.
void write_rows(const at::Tensor& x, const at::Tensor& cache, const at::Tensor& slot_mapping) {
  const int64_t num_tokens = slot_mapping.size(0), num_heads = x.size(1), head_bytes = x.size(2) * x.element_size();
  TORCH_CHECK(cache.is_contiguous(), "the cache is not contiguous: it has no view as rows of tokens.");
  TORCH_CHECK(x.stride(2) == 1 && cache.dtype() == x.dtype(), "rows of ", x.dtype(), " for a cache of ", cache.dtype(), ".");
  TORCH_CHECK(num_heads == cache.size(2) && x.size(2) == cache.size(3), "rows of ", x.sizes(), " for a cache of ",
              cache.sizes(), ".");
  const int64_t* slots = slot_mapping.data_ptr<int64_t>();
  const char* from = static_cast<const char*>(x.data_ptr());
  char* to = static_cast<char*>(cache.data_ptr());
  for (int64_t token = 0; token < num_tokens; token++)
    for (int64_t head = 0; head < num_heads && slots[token] >= 0; head++)
      std::memcpy(to + (slots[token] * num_heads + head) * head_bytes,
                  from + (token * x.stride(0) + head * x.stride(1)) * x.element_size(), head_bytes);
}

// See attend() in attention.h.
class PagedCache {
 public:
  // caches  [num_blocks, block_size, num_kv_heads, size], tiled
  PagedCache(const at::Tensor& keys, const at::Tensor& values, const at::Tensor& block_table)
      : keys_(data_of(keys)),
        values_(data_of(values)),
        key_block_(keys.stride(0)),
        value_block_(values.stride(0)),
        key_size_(keys.size(3)),
        value_size_(values.size(3)),
        tiles_of_block_(keys.size(1) / kTokens),
        block_table_(block_table.data_ptr<int>()),
        block_table_stride_(block_table.stride(0)) {}

  const bf16* keys_at(const Work& work, int token) const { return keys_of(work, token / kTokens); }

  Tiles tiles(const Work& work, int begin, int end, Scratch& scratch) const {
    Tiles tiles;
    tiles.count = (end - begin + kTokens - 1) / kTokens;
    for (int i = 0; i < tiles.count; i++) {
      tiles.keys[i] = keys_of(work, begin / kTokens + i);
      tiles.values[i] = values_of(work, begin / kTokens + i);
    }
    tiles.to_values = distance(tiles.keys[0], tiles.values[0]);
    tiles.pad_keys();
    const bf16*& last = tiles.values[tiles.count - 1];
    if (const int written = (end - begin) % kTokens) last = without_rest(last, scratch, written);
    return tiles;
  }

 private:
  const bf16* keys_of(const Work& work, int64_t tile) const {
    return keys_ + block_of(work, tile) * key_block_ +
           tile_offset(work.kv_head, tile % tiles_of_block_, tiles_of_block_, key_size_);
  }

  const bf16* values_of(const Work& work, int64_t tile) const {
    return values_ + block_of(work, tile) * value_block_ +
           tile_offset(work.kv_head, tile % tiles_of_block_, tiles_of_block_, value_size_);
  }

  int64_t block_of(const Work& work, int64_t tile) const {
    return block_table_[work.request * block_table_stride_ + tile / tiles_of_block_];
  }

  // A block's former owner may have left infinities behind the last token, which no weight of 0 takes away.
  const bf16* without_rest(const bf16* values, Scratch& scratch, int written) const {
    const int64_t pair_size = 2 * value_size_;
    std::memcpy(scratch.last_values, values, kTokens / 2 * pair_size * sizeof(bf16));
    for (int token = written; token < kTokens; token++)
      for (int64_t i = 0; i < value_size_; i++) scratch.last_values[token / 2 * pair_size + i * 2 + token % 2] = 0;
    return scratch.last_values;
  }

  const bf16 *keys_, *values_;
  int64_t key_block_, value_block_;  // elements from one block to the next
  int64_t key_size_, value_size_, tiles_of_block_;
  const int* block_table_;
  int64_t block_table_stride_;
};

struct Variant {
  double scale;
  int64_t window;
  bool causal;
  std::optional<at::Tensor> sinks;
  double soft_cap;
};

// lse  see Layer
void attend_tiles(const at::Tensor& query, const at::Tensor& key_cache, const at::Tensor& value_cache,
                  const at::Tensor& query_start_loc, const at::Tensor& seq_lens, const at::Tensor& block_table,
                  const Variant& variant, const at::Tensor& out, float* lse) {
  const int64_t num_heads = query.size(1), num_kv_heads = key_cache.size(2);
  const int64_t key_size = key_cache.size(3), value_size = value_cache.size(3);
  TORCH_CHECK(key_size % kTileColumns == 0 && key_size <= kMaxKeySize, "keys of ", key_size, " have no kernel.");
  TORCH_CHECK(value_size % kTileColumns == 0 && value_size <= kMaxValueSize, "values of ", value_size, " have no kernel.");
  const at::Tensor sinks = variant.sinks ? variant.sinks->to(at::kFloat).contiguous() : at::Tensor();
  const int64_t max_rows = use_amx() ? kMaxRows : kMicroRows;
  // Exponentials are powers of 2; under a cap, whose argument they must not scale, the cap takes the factor along.
  const Layer layer{data_of(query),
                    data_of(out),
                    lse,
                    query.stride(0),
                    out.stride(0),
                    num_heads,
                    num_kv_heads,
                    key_size,
                    value_size,
                    query.size(2),
                    out.size(2),
                    query_start_loc.data_ptr<int>(),
                    seq_lens.data_ptr<int>(),
                    static_cast<float>(variant.scale * kLog2E),
                    variant.window,
                    variant.causal,
                    variant.sinks ? sinks.data_ptr<float>() : nullptr,
                    static_cast<float>(variant.soft_cap * kLog2E),
                    max_rows,
                    heads_together(num_heads / num_kv_heads, max_rows)};
  attend_all(layer, PagedCache(key_cache, value_cache, block_table), seq_lens.size(0), 3);
}

void paged_attention(const at::Tensor& query, const at::Tensor& key_cache, const at::Tensor& value_cache,
                     const at::Tensor& query_start_loc, const at::Tensor& seq_lens, const at::Tensor& block_table,
                     double scale, int64_t window, bool causal, const std::optional<at::Tensor>& sinks, double soft_cap,
                     const at::Tensor& out) {
  attend_tiles(query, key_cache, value_cache, query_start_loc, seq_lens, block_table,
               {scale, window, causal, sinks, soft_cap}, out, nullptr);
}

// Keys and values that are in no cache, brought into the tiles of one of their own, whose heads are rounded up.
struct OwnCache {
  static constexpr int64_t kBlock = 2 * kTokens;
  at::Tensor keys, values, seq_lens, block_table;

  OwnCache(const at::Tensor& key, const at::Tensor& value, const at::Tensor& start_loc) {
    const int64_t num_requests = start_loc.size(0) - 1;
    const int* starts = start_loc.data_ptr<int>();
    const at::TensorOptions int32 = start_loc.options();
    const at::Tensor slots = at::full({key.size(0)}, -1, int32.dtype(at::kLong));
    seq_lens = at::empty({num_requests}, int32);
    int64_t num_blocks = 0, most_blocks = 1;
    for (int64_t request = 0; request < num_requests; request++) {
      const int64_t len = starts[request + 1] - starts[request], blocks = (len + kBlock - 1) / kBlock;
      seq_lens.data_ptr<int>()[request] = static_cast<int>(len);
      for (int64_t i = 0; i < len; i++) slots.data_ptr<int64_t>()[starts[request] + i] = num_blocks * kBlock + i;
      num_blocks += blocks, most_blocks = std::max(most_blocks, blocks);
    }
    block_table = at::zeros({num_requests, most_blocks}, int32);
    for (int64_t request = 0, block = 0; request < num_requests; request++)
      for (int64_t i = 0; i * kBlock < seq_lens.data_ptr<int>()[request]; i++)
        block_table.data_ptr<int>()[request * most_blocks + i] = static_cast<int>(block++);
    keys = tiles_for(key, num_blocks), values = tiles_for(value, num_blocks);
    write_kv(key, value, keys, values, slots);
  }

 private:
  static at::Tensor tiles_for(const at::Tensor& x, int64_t num_blocks) {
    const int64_t features = x.size(2), size = (features + kTileColumns - 1) / kTileColumns * kTileColumns;
    const std::vector<int64_t> sizes{num_blocks, kBlock, x.size(1), size};
    return size == features ? at::empty(sizes, x.options()) : at::zeros(sizes, x.options());
  }
};

void varlen_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                      const at::Tensor& start_loc, double scale, int64_t window, bool causal, const at::Tensor& out) {
  const OwnCache own(key, value, start_loc);
  attend_tiles(query, own.keys, own.values, start_loc, own.seq_lens, own.block_table,
               {scale, window, causal, std::nullopt, 0}, out, nullptr);
}

// Values may be smaller than keys. Returns the attention, and of each token and head the logarithm of its sum of
// exponentials.
std::tuple<at::Tensor, at::Tensor> varlen_attention_with_lse(const at::Tensor& query, const at::Tensor& key,
                                                             const at::Tensor& value, const at::Tensor& query_start_loc,
                                                             const at::Tensor& kv_start_loc, double scale, bool causal) {
  const at::Tensor out = at::empty({query.size(0), query.size(1), value.size(2)}, query.options());
  const at::Tensor lse = at::empty({query.size(0), query.size(1)}, query.options().dtype(at::kFloat));
  const OwnCache own(key, value, kv_start_loc);
  attend_tiles(query, own.keys, own.values, query_start_loc, own.seq_lens, own.block_table,
               {scale, 0, causal, std::nullopt, 0}, out, lse.data_ptr<float>());
  return {out, lse};
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def(
      "write_kv(Tensor key, Tensor value, Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor slot_mapping) -> ()",
      write_kv);
  library.def("write_rows(Tensor x, Tensor(a!) cache, Tensor slot_mapping) -> ()", write_rows);
  library.def(
      "paged_attention(Tensor query, Tensor key_cache, Tensor value_cache, Tensor query_start_loc, Tensor seq_lens, "
      "Tensor block_table, float scale, int window, bool causal, Tensor? sinks, float soft_cap, Tensor(a!) out) -> ()",
      paged_attention);
  library.def(
      "varlen_attention(Tensor query, Tensor key, Tensor value, Tensor start_loc, float scale, int window, bool causal, "
      "Tensor(a!) out) -> ()",
      varlen_attention);
  library.def(
      "varlen_attention_with_lse(Tensor query, Tensor key, Tensor value, Tensor query_start_loc, Tensor kv_start_loc, "
      "float scale, bool causal) -> (Tensor, Tensor)",
      varlen_attention_with_lse);
}

}  // namespace
}  // namespace ascend
