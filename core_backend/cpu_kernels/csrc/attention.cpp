// Attention over a paged KV cache in tiles, without a copy of keys or values.
//
// A cache block of one KV head is tiled so that both products are made of the micro-kernel's columns:
//   keys    [block_size / 16][head_size / 2][16][2]    of 16 tokens at a time, pairs of features
//   values  [block_size / 16][8][head_size][2]         of 16 tokens at a time, pairs of tokens
// Source of the algorithm: arXiv 2205.14135 (softmax in blocks of keys), arXiv 2309.06180 (the paged cache).
#include <omp.h>
#include <torch/library.h>

#include <cmath>
#include <vector>

#include "amx.h"

namespace ascend {
namespace {

constexpr int kTokens = 16;        // of a tile
constexpr int kMaxRows = 96;       // queries of one KV head that are computed together, on AMX
constexpr int kMicroRows = 48;     // the same with the micro-kernel
constexpr int kKeys = 128;         // whose scores are held at a time
constexpr int kTiles = kKeys / kTokens;
constexpr int kMaxHeadSize = 256;
constexpr float kHidden = -1e30f;  // a score that is not to be seen
constexpr float kLog2E = 1.44269504f;

int64_t tile_offset(int64_t kv_head, int64_t tile, int64_t tiles_of_block, int64_t head_size) {
  return (kv_head * tiles_of_block + tile) * kTokens * head_size;
}

// key, value  [num_tokens, num_kv_heads, head_size]; caches as above, [num_blocks, block_size, num_kv_heads, head_size]
void write_kv(const at::Tensor& key, const at::Tensor& value, const at::Tensor& key_cache, const at::Tensor& value_cache,
              const at::Tensor& slot_mapping) {
  const int64_t num_tokens = slot_mapping.size(0), num_kv_heads = key.size(1), num_features = key.size(2);
  const int64_t block_size = key_cache.size(1), head_size = key_cache.size(3);
  const int64_t* slots = slot_mapping.data_ptr<int64_t>();
#pragma omp parallel for if (num_tokens * num_kv_heads * num_features > 1 << 12)
  for (int64_t token = 0; token < num_tokens; token++) {
    if (slots[token] < 0) continue;  // padding
    const int64_t block = slots[token] / block_size, offset = slots[token] % block_size;
    for (int64_t head = 0; head < num_kv_heads; head++) {
      const int64_t tile = tile_offset(head, offset / kTokens, block_size / kTokens, head_size), in_tile = offset % kTokens;
      const bf16* k = data_of(key) + token * key.stride(0) + head * key.stride(1);
      const bf16* v = data_of(value) + token * value.stride(0) + head * value.stride(1);
      bf16* keys = data_of(key_cache) + block * key_cache.stride(0) + tile + in_tile * 2;
      bf16* values = data_of(value_cache) + block * value_cache.stride(0) + tile + in_tile / 2 * 2 * head_size + in_tile % 2;
      for (int64_t pair = 0; pair < num_features / 2; pair++) std::memcpy(keys + pair * kTokens * 2, k + pair * 2, 4);
      for (int64_t i = 0; i < num_features; i++) values[i * 2] = v[i];
    }
  }
}

struct Layer {
  const bf16 *query, *keys, *values;
  bf16* out;
  int64_t query_stride, out_stride, key_block, value_block;  // elements from one token, or block, to the next
  int64_t num_heads, num_kv_heads, head_size, tiles_of_block;
  int64_t num_features;  // of head_size; the others are zeros that the caches have and queries do not
  const int *query_start_loc, *seq_lens, *block_table;
  int64_t block_table_stride;
  float scale;      // of scores whose exponentials are powers of 2
  int64_t window;   // tokens that are seen, itself included; 0: all
  bool causal;
  const float* sinks;  // a score per head beside those of the keys, or null
  float soft_cap;      // 0: none

  int64_t max_rows;        // that are computed at once
  int64_t heads_together;  // query heads that share keys and are computed at once
};

// Some queries of one request: rows are (token, one of the heads that are computed together).
struct Work {
  int request, first_token, num_tokens, first_head, kv_head;
};

// As many of the heads that share keys as there is room for.
int64_t heads_together(int64_t heads_per_kv_head, int64_t max_rows) {
  int64_t count = std::min<int64_t>(heads_per_kv_head, max_rows);
  while (heads_per_kv_head % count) count--;
  return count;
}

struct alignas(64) Scratch {
  bf16 query[kMaxRows * kMaxHeadSize];
  float scores[kMicroRows * kKeys];   // of the rows of a block
  bf16 weights[kMicroRows * kKeys];   // the same
  float sums[kMaxRows * kMaxHeadSize];
  float highest[kMaxRows], total[kMaxRows];
  bf16 last_values[kTokens * kMaxHeadSize];
  bf16 value_pairs[kTiles / 2][2 * kTokens * kMaxHeadSize];  // that do not lie beside each other in the cache
};

// Rows whose scores are held at a time.
struct Block {
  int first, count;
};

struct ScoreTile {
  const bf16* query;
  int64_t head_size;
  const bf16 *left, *right;
  float* scores;
  int64_t prefetch;  // while the first rows are computed

  template <int ROWS, int UNROLL>
  void run(int64_t row) const {
    __m512 sums[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    const Columns keys{&left, &right, 1, static_cast<int>(head_size / 2), 2 * kTokens, row == 0 ? prefetch : 0};
    multiply_tile<Bf16Dot, ROWS, UNROLL>(query + row * head_size, head_size, keys, sums);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      _mm512_storeu_ps(scores + (row + r) * kKeys, sums[r][0]);
      _mm512_storeu_ps(scores + (row + r) * kKeys + kLanes, sums[r][1]);
    }
  }
};

struct ValueTile {
  const bf16* weights;
  int64_t head_size;
  const bf16 *const *left, *const *right;
  int tiles;
  float* sums_of_rows;
  int64_t prefetch;  // while the first rows are computed

  template <int ROWS, int UNROLL>
  void run(int64_t row) const {
    __m512 sums[ROWS][2];
    float* at_row = sums_of_rows + row * head_size;
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      sums[r][0] = _mm512_loadu_ps(at_row + r * head_size);
      sums[r][1] = _mm512_loadu_ps(at_row + r * head_size + kLanes);
    }
    const Columns values{left, right, tiles, kTokens / 2, 2 * head_size, row == 0 ? prefetch : 0};
    multiply_tile<Bf16Dot, ROWS, UNROLL>(weights + row * kKeys, kKeys, values, sums);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      _mm512_storeu_ps(at_row + r * head_size, sums[r][0]);
      _mm512_storeu_ps(at_row + r * head_size + kLanes, sums[r][1]);
    }
  }
};

// cap * tanh(score / cap), by tanh(x) = 1 - 2 / (1 + e^2x).
__m512 capped(__m512 score, float cap) {
  const __m512 one = _mm512_set1_ps(1.f), power = _mm512_mul_ps(score, _mm512_set1_ps(2 * kLog2E / cap));
  const __m512 e = exp2(_mm512_min_ps(power, _mm512_set1_ps(126.f)));
  const __m512 tanh = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.f), _mm512_add_ps(one, e)));
  return _mm512_mul_ps(tanh, _mm512_set1_ps(cap));
}

// What is hidden from a row, before `first` and from `last` on, gets a score that leaves no weight.
void hide(float* scores, int first, int last, int num_scores) {
  if (first > 0) std::fill(scores, scores + std::min(first, num_scores), kHidden);
  if (last < num_scores) std::fill(scores + std::max(last, 0), scores + num_scores, kHidden);
}

float highest_of(const float* scores, int num_scores) {
  __m512 most = _mm512_loadu_ps(scores);
  for (int i = kLanes; i < num_scores; i += kLanes) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + i));
  return _mm512_reduce_max_ps(most);
}

// weights = 2^(scores * scale - highest); their sum.
float exponentials(const float* scores, float scale, float highest, int num_scores, bf16* weights) {
  const __m512 factor = _mm512_set1_ps(scale), most = _mm512_set1_ps(highest);
  __m512 total = _mm512_setzero_ps();
  for (int i = 0; i < num_scores; i += kLanes) {
    const __m512 e = exp2_for_bf16(_mm512_fmsub_ps(_mm512_loadu_ps(scores + i), factor, most));
    total = _mm512_add_ps(total, e);
    store(weights + i, e);
  }
  return _mm512_reduce_add_ps(total);
}

// The weights of one row's keys, first to last (exclusive) of which are seen; what was summed before is scaled.
void softmax_row(const Layer& layer, Scratch& scratch, Block block, int row, int first, int last, int num_scores) {
  float* scores = scratch.scores + (row - block.first) * kKeys;
  bf16* weights = scratch.weights + (row - block.first) * kKeys;
  float scale = layer.scale;
  if (layer.soft_cap > 0) {
    for (int i = 0; i < num_scores; i += kLanes) {
      const __m512 score = _mm512_mul_ps(_mm512_loadu_ps(scores + i), _mm512_set1_ps(scale));
      _mm512_storeu_ps(scores + i, capped(score, layer.soft_cap));
    }
    scale = 1;
  }
  hide(scores, first, last, num_scores);
  const float before = scratch.highest[row], highest = std::max(before, highest_of(scores, num_scores) * scale);
  if (first >= std::min(last, num_scores) && before == kHidden) {  // nothing seen so far
    std::memset(weights, 0, num_scores * sizeof(bf16));
    return;
  }
  const float total = exponentials(scores, scale, highest, num_scores, weights);
  if (highest > before) {
    const float shrink = std::exp2(before - highest);
    float* sums = scratch.sums + row * layer.head_size;
    for (int64_t i = 0; i < layer.head_size; i += kLanes)
      _mm512_storeu_ps(sums + i, _mm512_mul_ps(_mm512_loadu_ps(sums + i), _mm512_set1_ps(shrink)));
    scratch.total[row] *= shrink;
    scratch.highest[row] = highest;
  }
  scratch.total[row] += total;
}

const bf16* keys_at(const Layer& layer, const Work& work, int token) {
  const int* blocks = layer.block_table + work.request * layer.block_table_stride;
  const int64_t tile = token / kTokens;
  return layer.keys + blocks[tile / layer.tiles_of_block] * layer.key_block +
         tile_offset(work.kv_head, tile % layer.tiles_of_block, layer.tiles_of_block, layer.head_size);
}

// Elements from one to the other, which may lie anywhere.
int64_t distance(const bf16* from, const bf16* to) {
  return (reinterpret_cast<intptr_t>(to) - reinterpret_cast<intptr_t>(from)) / static_cast<int64_t>(sizeof(bf16));
}

// The tiles of up to 128 keys and values that begin at token `begin`, a multiple of 16.
struct Tiles {
  const bf16 *keys[kTiles + 1], *values[kTiles + 1];
  int count;
  int64_t to_values;  // elements from a tile of keys to that of its values

  Tiles(const Layer& layer, const Work& work, int begin, int end, Scratch& scratch) : count((end - begin + 15) / 16) {
    const int* blocks = layer.block_table + work.request * layer.block_table_stride;
    for (int i = 0; i < count; i++) {
      const int64_t tile = begin / kTokens + i, block = blocks[tile / layer.tiles_of_block];
      const int64_t offset =
          tile_offset(work.kv_head, tile % layer.tiles_of_block, layer.tiles_of_block, layer.head_size);
      keys[i] = layer.keys + block * layer.key_block + offset;
      values[i] = layer.values + block * layer.value_block + offset;
    }
    to_values = distance(keys[0], values[0]);
    keys[count] = keys[count - 1];  // scores are computed for two tiles at a time
    if (const int written = (end - begin) % kTokens) values[count - 1] = without_rest(layer, scratch, written);
  }

 private:
  // A block's former owner may have left infinities behind the last token, which no weight of 0 takes away.
  const bf16* without_rest(const Layer& layer, Scratch& scratch, int written) const {
    const int64_t pair_size = 2 * layer.head_size;
    std::memcpy(scratch.last_values, values[count - 1], kTokens / 2 * pair_size * sizeof(bf16));
    for (int token = written; token < kTokens; token++)
      for (int64_t i = 0; i < layer.head_size; i++)
        scratch.last_values[token / 2 * pair_size + i * 2 + token % 2] = 0;
    return scratch.last_values;
  }
};

// Scores and sums of a block of rows, by the micro-kernel. `prefetch` is the distance to what is fetched meanwhile.
struct MicroProducts {
  static constexpr int kRows = kMicroRows;
  const Layer& layer;
  Scratch& scratch;

  static int num_scores(int tiles) { return tiles * kTokens; }

  void scores(const Tiles& of, Block block, int64_t prefetch) {
    const bf16* query = scratch.query + block.first * layer.head_size;
    for (int i = 0; i < of.count; i += 2)
      for_row_tiles(block.count, ScoreTile{query, layer.head_size, of.keys[i], of.keys[i + 1],
                                           scratch.scores + i * kTokens, prefetch});
  }

  void sums(const Tiles& of, Block block, int64_t prefetch) {
    for (int64_t feature = 0; feature < layer.head_size; feature += kTileColumns) {
      const bf16 *left[kTiles], *right[kTiles];
      for (int i = 0; i < of.count; i++) left[i] = of.values[i] + feature * 2, right[i] = left[i] + kLanes * 2;
      for_row_tiles(block.count, ValueTile{scratch.weights, layer.head_size, left, right, of.count,
                                           scratch.sums + block.first * layer.head_size + feature, prefetch});
    }
  }
};

// The same on AMX. Of an odd number of tiles, the next one is computed too, and hidden.
struct AmxProducts {
  static constexpr int kRows = kAmxTileRows;
  const Layer& layer;
  Scratch& scratch;
  AmxTiles tiles;

  static int num_scores(int tiles) { return (tiles + 1) / 2 * 2 * kTokens; }

  void scores(const Tiles& of, Block block, int64_t prefetch) {
    tiles.for_rows(block.count);
    const bf16* query = scratch.query + block.first * layer.head_size;
    for (int i = 0; i < of.count; i += 2) {
      const Columns keys{of.keys + i, of.keys + i + 1, 1, static_cast<int>(layer.head_size / 2), 2 * kTokens, prefetch};
      amx_multiply_tile(tiles, query, layer.head_size, keys, scratch.scores + i * kTokens, kKeys, false);
    }
  }

  void sums(const Tiles& of, Block block, int64_t prefetch) {
    const int pairs = (of.count + 1) / 2;
    const bf16 *values[kTiles / 2], *left[kTiles / 2], *right[kTiles / 2];
    for (int i = 0; i < pairs; i++) values[i] = pair_of_tiles(of, 2 * i);
    for (int64_t feature = 0; feature < layer.head_size; feature += kTileColumns) {
      for (int i = 0; i < pairs; i++) left[i] = values[i] + feature * 2, right[i] = left[i] + kLanes * 2;
      const Columns columns{left, right, pairs, kAmxPairs, 2 * layer.head_size, prefetch};
      amx_multiply_tile(tiles, scratch.weights, kKeys, columns,
                        scratch.sums + block.first * layer.head_size + feature, layer.head_size, true);
    }
  }

 private:
  // 32 tokens' values beside each other.
  const bf16* pair_of_tiles(const Tiles& of, int first) const {
    const int64_t size = kTokens * layer.head_size;
    if (first + 1 < of.count && of.values[first + 1] == of.values[first] + size) return of.values[first];
    bf16* pair = scratch.value_pairs[first / 2];
    std::memcpy(pair, of.values[first], size * sizeof(bf16));
    if (first + 1 < of.count)
      std::memcpy(pair + size, of.values[first + 1], size * sizeof(bf16));
    else
      std::memset(pair + size, 0, size * sizeof(bf16));
    return pair;
  }
};

// The rows' queries, one after the other, with zeros up to head_size.
void gather_queries(const Layer& layer, const Work& work, bf16* to) {
  const int64_t heads = layer.heads_together, features = layer.num_features;
  for (int token = 0; token < work.num_tokens; token++) {
    const bf16* from = layer.query + (work.first_token + token) * layer.query_stride + work.first_head * features;
    for (int64_t head = 0; head < heads; head++, from += features, to += layer.head_size) {
      std::memcpy(to, from, features * sizeof(bf16));
      std::memset(to + features, 0, (layer.head_size - features) * sizeof(bf16));
    }
  }
}

// Where one work's rows look: token positions, and the keys from start to end that any of them sees.
struct Sight {
  int position, seq_len, start, end;

  Sight(const Layer& layer, const Work& work) {
    const int begin = layer.query_start_loc[work.request], window = static_cast<int>(layer.window);
    seq_len = layer.seq_lens[work.request];
    position = seq_len - (layer.query_start_loc[work.request + 1] - begin) + work.first_token - begin;
    const int last_position = position + work.num_tokens - 1;
    end = layer.causal ? last_position + 1 : window ? std::min(seq_len, last_position + window) : seq_len;
    start = window ? std::max(0, position - window + 1) / kTokens * kTokens : 0;
  }

  // The keys that the token at `at` sees, counted from `key` on.
  int first(const Layer& layer, int at, int key) const {
    return layer.window ? std::max(0, at - static_cast<int>(layer.window) + 1 - key) : 0;
  }

  int last(const Layer& layer, int at, int key) const {
    if (layer.causal) return at + 1 - key;
    return (layer.window ? std::min(seq_len, at + static_cast<int>(layer.window)) : seq_len) - key;
  }
};

void begin_rows(const Layer& layer, const Work& work, int rows, Scratch& scratch) {
  gather_queries(layer, work, scratch.query);
  std::fill_n(scratch.sums, rows * layer.head_size, 0.f);
  for (int row = 0; row < rows; row++) {
    const float* sink = layer.sinks ? layer.sinks + work.first_head + row % layer.heads_together : nullptr;
    scratch.highest[row] = sink ? *sink * kLog2E : kHidden;
    scratch.total[row] = sink ? 1.f : 0.f;
  }
}

void end_rows(const Layer& layer, const Work& work, int rows, const Scratch& scratch) {
  for (int row = 0; row < rows; row++) {
    const float total = scratch.total[row];
    const __m512 norm = _mm512_set1_ps(total > 0 ? 1.f / total : 0.f);
    bf16* to = layer.out + (work.first_token + row / layer.heads_together) * layer.out_stride +
               (work.first_head + row % layer.heads_together) * layer.num_features;
    for (int64_t i = 0; i < layer.num_features; i += kLanes)
      store_first(to + i, _mm512_mul_ps(_mm512_loadu_ps(scratch.sums + row * layer.head_size + i), norm),
                  layer.num_features - i);
  }
}

// `next` is what the thread will do after this, or null: what it reads first is fetched meanwhile.
template <class Products>
void attend(const Layer& layer, const Work& work, const Work* next) {
  static thread_local Scratch scratch;
  const int heads = static_cast<int>(layer.heads_together), rows = work.num_tokens * heads;
  const Sight sight(layer, work);
  begin_rows(layer, work, rows, scratch);
  Products products{layer, scratch};
  for (int key = sight.start; key < sight.end; key += kKeys) {
    const Tiles tiles(layer, work, key, std::min(sight.end, key + kKeys), scratch);
    const bf16* following = key + kKeys < sight.end ? keys_at(layer, work, key + kKeys)
                            : next != nullptr       ? keys_at(layer, *next, 0)
                                                    : nullptr;
    const int64_t to_following = following == nullptr ? 0 : distance(tiles.keys[0], following) - tiles.to_values;
    for (int row = 0; row < rows; row += Products::kRows) {
      const Block block{row, std::min(Products::kRows, rows - row)};
      products.scores(tiles, block, row == 0 ? tiles.to_values : 0);
      for (int r = row; r < row + block.count; r++) {
        const int at = sight.position + r / heads;
        softmax_row(layer, scratch, block, r, sight.first(layer, at, key), sight.last(layer, at, key),
                    Products::num_scores(tiles.count));
      }
      products.sums(tiles, block, row == 0 ? to_following : 0);
    }
  }
  end_rows(layer, work, rows, scratch);
}

// A request's rows of the same heads follow one another, so that their keys and values stay in the CPU's cache.
std::vector<Work> split(const Layer& layer, int64_t num_requests) {
  const int heads = static_cast<int>(layer.heads_together), tokens = static_cast<int>(layer.max_rows) / heads;
  const int heads_per_kv_head = static_cast<int>(layer.num_heads / layer.num_kv_heads);
  std::vector<Work> work;
  for (int request = 0; request < num_requests; request++) {
    const int end = layer.query_start_loc[request + 1];
    for (int head = 0; head < layer.num_heads; head += heads)
      for (int token = layer.query_start_loc[request]; token < end; token += tokens)
        work.push_back({request, token, std::min(tokens, end - token), head, head / heads_per_kv_head});
  }
  return work;
}

struct Variant {
  double scale;
  int64_t window;
  bool causal;
  std::optional<at::Tensor> sinks;
  double soft_cap;
};

void attend_all(const at::Tensor& query, const at::Tensor& key_cache, const at::Tensor& value_cache,
                const at::Tensor& query_start_loc, const at::Tensor& seq_lens, const at::Tensor& block_table,
                const Variant& variant, const at::Tensor& out) {
  const int64_t num_heads = query.size(1), num_kv_heads = key_cache.size(2), head_size = key_cache.size(3);
  TORCH_CHECK(head_size % kTileColumns == 0 && head_size <= kMaxHeadSize, "heads of ", head_size, " have no kernel.");
  const at::Tensor sinks = variant.sinks ? variant.sinks->to(at::kFloat).contiguous() : at::Tensor();
  const int64_t max_rows = use_amx() ? kMaxRows : kMicroRows;
  // Exponentials are powers of 2; under a cap, whose argument they must not scale, the cap takes the factor along.
  const Layer layer{data_of(query),
                    data_of(key_cache),
                    data_of(value_cache),
                    data_of(out),
                    query.stride(0),
                    out.stride(0),
                    key_cache.stride(0),
                    value_cache.stride(0),
                    num_heads,
                    num_kv_heads,
                    head_size,
                    key_cache.size(1) / kTokens,
                    query.size(2),
                    query_start_loc.data_ptr<int>(),
                    seq_lens.data_ptr<int>(),
                    block_table.data_ptr<int>(),
                    block_table.stride(0),
                    static_cast<float>(variant.scale * kLog2E),
                    variant.window,
                    variant.causal,
                    variant.sinks ? sinks.data_ptr<float>() : nullptr,
                    static_cast<float>(variant.soft_cap * kLog2E),
                    max_rows,
                    heads_together(num_heads / num_kv_heads, max_rows)};
  const std::vector<Work> work = split(layer, seq_lens.size(0));
  const int64_t count = static_cast<int64_t>(work.size());
  const auto attend_work = [&](const Work& some, const Work* next) {
    const bool on_amx = use_amx() && some.num_tokens * layer.heads_together >= kAmxRowsWorth;
    on_amx ? attend<AmxProducts>(layer, some, next) : attend<MicroProducts>(layer, some, next);
  };
  const int64_t chunk = std::clamp<int64_t>(count / (4 * omp_get_max_threads()), 1, 8);
#pragma omp parallel for schedule(dynamic, chunk) if (count > 3)
  for (int64_t i = 0; i < count; i++)
    attend_work(work[i], (i + 1) % chunk && i + 1 < count ? &work[i + 1] : nullptr);
}

void paged_attention(const at::Tensor& query, const at::Tensor& key_cache, const at::Tensor& value_cache,
                     const at::Tensor& query_start_loc, const at::Tensor& seq_lens, const at::Tensor& block_table,
                     double scale, int64_t window, bool causal, const std::optional<at::Tensor>& sinks, double soft_cap,
                     const at::Tensor& out) {
  attend_all(query, key_cache, value_cache, query_start_loc, seq_lens, block_table,
             {scale, window, causal, sinks, soft_cap}, out);
}

// Keys and values that are in no cache are brought into the tiles of one of their own, whose heads are rounded up.
void varlen_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                      const at::Tensor& start_loc, double scale, int64_t window, bool causal, const at::Tensor& out) {
  constexpr int64_t kBlock = 2 * kTokens;
  const int64_t num_requests = start_loc.size(0) - 1, num_tokens = key.size(0), num_features = key.size(2);
  const int64_t head_size = (num_features + kTileColumns - 1) / kTileColumns * kTileColumns;
  const int* starts = start_loc.data_ptr<int>();
  const at::TensorOptions int32 = start_loc.options();
  const at::Tensor slots = at::full({num_tokens}, -1, int32.dtype(at::kLong)), lens = at::empty({num_requests}, int32);
  int64_t num_blocks = 0, most_blocks = 0;
  for (int64_t request = 0; request < num_requests; request++) {
    const int64_t len = starts[request + 1] - starts[request], blocks = (len + kBlock - 1) / kBlock;
    lens.data_ptr<int>()[request] = static_cast<int>(len);
    for (int64_t i = 0; i < len; i++) slots.data_ptr<int64_t>()[starts[request] + i] = num_blocks * kBlock + i;
    num_blocks += blocks, most_blocks = std::max(most_blocks, blocks);
  }
  const at::Tensor table = at::zeros({num_requests, most_blocks}, int32);
  for (int64_t request = 0, block = 0; request < num_requests; request++)
    for (int64_t i = 0; i * kBlock < lens.data_ptr<int>()[request]; i++)
      table.data_ptr<int>()[request * most_blocks + i] = static_cast<int>(block++);
  const auto cache_like = [&](const at::Tensor& x) {
    const std::vector<int64_t> sizes{num_blocks, kBlock, x.size(1), head_size};
    return head_size == num_features ? at::empty(sizes, x.options()) : at::zeros(sizes, x.options());
  };
  const at::Tensor keys = cache_like(key), values = cache_like(value);
  write_kv(key, value, keys, values, slots);
  attend_all(query, keys, values, start_loc, lens, table, {scale, window, causal, std::nullopt, 0}, out);
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def(
      "write_kv(Tensor key, Tensor value, Tensor(a!) key_cache, Tensor(b!) value_cache, Tensor slot_mapping) -> ()",
      write_kv);
  library.def(
      "paged_attention(Tensor query, Tensor key_cache, Tensor value_cache, Tensor query_start_loc, Tensor seq_lens, "
      "Tensor block_table, float scale, int window, bool causal, Tensor? sinks, float soft_cap, Tensor(a!) out) -> ()",
      paged_attention);
  library.def(
      "varlen_attention(Tensor query, Tensor key, Tensor value, Tensor start_loc, float scale, int window, bool causal, "
      "Tensor(a!) out) -> ()",
      varlen_attention);
}

}  // namespace
}  // namespace ascend
