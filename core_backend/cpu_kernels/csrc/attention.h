// Attention of a block of queries over tiles of keys and values, wherever those tiles come from.
//
// Keys and values are tiled so that both products are made of the micro-kernel's columns:
//   keys    [head_size / 2][16][2]      of 16 tokens, pairs of features
//   values  [8][value_size][2]          of 16 tokens, pairs of tokens
// Source of the algorithm: arXiv 2205.14135 (softmax in blocks of keys).
#pragma once

#include <omp.h>

#include <cmath>
#include <limits>
#include <vector>

#include "amx.h"

namespace ascend {

constexpr int kTokens = 16;        // of a tile
constexpr int kMaxRows = 96;       // queries of one KV head that are computed together, on AMX
constexpr int kMicroRows = 48;     // the same with the micro-kernel
constexpr int kKeys = 128;         // whose scores are held at a time
constexpr int kTiles = kKeys / kTokens;
constexpr int kMaxKeySize = 576, kMaxValueSize = 512;  // elements of a head
constexpr float kHidden = -1e30f;  // a score that is not to be seen
constexpr float kLog2E = 1.44269504f;

// What is computed, wherever keys and values lie.
struct Layer {
  const bf16* query;
  bf16* out;
  float* lse;  // [num_tokens, num_heads], or null: the logarithm of the sum of exponentials of each row's scores
  int64_t query_stride, out_stride;  // elements from one token to the next
  int64_t num_heads, num_kv_heads;
  int64_t key_size, value_size;           // elements of a head in the tiles
  int64_t query_features, out_features;   // of them; the others are zeros, which query and out do not have
  const int *query_start_loc, *seq_lens;
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
inline int64_t heads_together(int64_t heads_per_kv_head, int64_t max_rows) {
  int64_t count = std::min<int64_t>(heads_per_kv_head, max_rows);
  while (heads_per_kv_head % count) count--;
  return count;
}

struct alignas(64) Scratch {
  bf16 query[kMaxRows * kMaxKeySize];
  float scores[kMicroRows * kKeys];   // of the rows of a block
  bf16 weights[kMicroRows * kKeys];   // the same
  float sums[kMaxRows * kMaxValueSize];
  float highest[kMaxRows], total[kMaxRows];
  bf16 last_values[kTokens * kMaxValueSize];
  bf16 value_pairs[kTiles / 2][2 * kTokens * kMaxValueSize];  // of tiles that do not lie beside each other
};

// Rows whose scores are held at a time.
struct Block {
  int first, count;
};

struct ScoreTile {
  const bf16* query;
  int64_t key_size;
  const bf16 *left, *right;
  float* scores;
  int64_t prefetch;  // while the first rows are computed

  template <int ROWS, int UNROLL>
  void run(int64_t row) const {
    __m512 sums[ROWS][2];
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) sums[r][0] = sums[r][1] = _mm512_setzero_ps();
    const Columns keys{&left, &right, 1, static_cast<int>(key_size / 2), 2 * kTokens, row == 0 ? prefetch : 0};
    multiply_tile<Bf16Dot, ROWS, UNROLL>(query + row * key_size, key_size, keys, sums);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      _mm512_storeu_ps(scores + (row + r) * kKeys, sums[r][0]);
      _mm512_storeu_ps(scores + (row + r) * kKeys + kLanes, sums[r][1]);
    }
  }
};

struct ValueTile {
  const bf16* weights;
  int64_t value_size;
  const bf16 *const *left, *const *right;
  int tiles;
  float* sums_of_rows;
  int64_t prefetch;  // while the first rows are computed

  template <int ROWS, int UNROLL>
  void run(int64_t row) const {
    __m512 sums[ROWS][2];
    float* at_row = sums_of_rows + row * value_size;
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      sums[r][0] = _mm512_loadu_ps(at_row + r * value_size);
      sums[r][1] = _mm512_loadu_ps(at_row + r * value_size + kLanes);
    }
    const Columns values{left, right, tiles, kTokens / 2, 2 * value_size, row == 0 ? prefetch : 0};
    multiply_tile<Bf16Dot, ROWS, UNROLL>(weights + row * kKeys, kKeys, values, sums);
#pragma GCC unroll 12
    for (int r = 0; r < ROWS; r++) {
      _mm512_storeu_ps(at_row + r * value_size, sums[r][0]);
      _mm512_storeu_ps(at_row + r * value_size + kLanes, sums[r][1]);
    }
  }
};

// cap * tanh(score / cap), by tanh(x) = 1 - 2 / (1 + e^2x).
inline __m512 capped(__m512 score, float cap) {
  const __m512 one = _mm512_set1_ps(1.f), power = _mm512_mul_ps(score, _mm512_set1_ps(2 * kLog2E / cap));
  const __m512 e = exp2(_mm512_min_ps(power, _mm512_set1_ps(126.f)));
  const __m512 tanh = _mm512_sub_ps(one, _mm512_div_ps(_mm512_set1_ps(2.f), _mm512_add_ps(one, e)));
  return _mm512_mul_ps(tanh, _mm512_set1_ps(cap));
}

// What is hidden from a row, before `first` and from `last` on, gets a score that leaves no weight.
inline void hide(float* scores, int first, int last, int num_scores) {
  if (first > 0) std::fill(scores, scores + std::min(first, num_scores), kHidden);
  if (last < num_scores) std::fill(scores + std::max(last, 0), scores + num_scores, kHidden);
}

inline float highest_of(const float* scores, int num_scores) {
  __m512 most = _mm512_loadu_ps(scores);
  for (int i = kLanes; i < num_scores; i += kLanes) most = _mm512_max_ps(most, _mm512_loadu_ps(scores + i));
  return _mm512_reduce_max_ps(most);
}

// weights = 2^(scores * scale - highest); their sum.
inline float exponentials(const float* scores, float scale, float highest, int num_scores, bf16* weights) {
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
inline void softmax_row(const Layer& layer, Scratch& scratch, Block block, int row, int first, int last, int num_scores) {
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
    float* sums = scratch.sums + row * layer.value_size;
    for (int64_t i = 0; i < layer.value_size; i += kLanes)
      _mm512_storeu_ps(sums + i, _mm512_mul_ps(_mm512_loadu_ps(sums + i), _mm512_set1_ps(shrink)));
    scratch.total[row] *= shrink;
    scratch.highest[row] = highest;
  }
  scratch.total[row] += total;
}

// Elements from one to the other, which may lie anywhere.
inline int64_t distance(const bf16* from, const bf16* to) {
  return (reinterpret_cast<intptr_t>(to) - reinterpret_cast<intptr_t>(from)) / static_cast<int64_t>(sizeof(bf16));
}

// The tiles of up to 128 keys and their values.
struct Tiles {
  const bf16 *keys[kTiles + 1], *values[kTiles + 1];
  int count;
  int64_t to_values;  // elements from a tile of keys to that of its values, to fetch it ahead; 0: there is no need to

  // Scores are computed for two tiles at a time.
  void pad_keys() { keys[count] = keys[count - 1]; }
};

// Scores and sums of a block of rows, by the micro-kernel. `prefetch` is the distance to what is fetched meanwhile.
struct MicroProducts {
  static constexpr int kRows = kMicroRows;
  const Layer& layer;
  Scratch& scratch;

  static int num_scores(int tiles) { return tiles * kTokens; }

  void scores(const Tiles& of, Block block, int64_t prefetch) {
    const bf16* query = scratch.query + block.first * layer.key_size;
    for (int i = 0; i < of.count; i += 2)
      for_row_tiles(block.count, ScoreTile{query, layer.key_size, of.keys[i], of.keys[i + 1],
                                           scratch.scores + i * kTokens, prefetch});
  }

  void sums(const Tiles& of, Block block, int64_t prefetch) {
    for (int64_t feature = 0; feature < layer.value_size; feature += kTileColumns) {
      const bf16 *left[kTiles], *right[kTiles];
      for (int i = 0; i < of.count; i++) left[i] = of.values[i] + feature * 2, right[i] = left[i] + kLanes * 2;
      for_row_tiles(block.count, ValueTile{scratch.weights, layer.value_size, left, right, of.count,
                                           scratch.sums + block.first * layer.value_size + feature, prefetch});
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
    const bf16* query = scratch.query + block.first * layer.key_size;
    for (int i = 0; i < of.count; i += 2) {
      const Columns keys{of.keys + i, of.keys + i + 1, 1, static_cast<int>(layer.key_size / 2), 2 * kTokens, prefetch};
      amx_multiply_tile(tiles, query, layer.key_size, keys, scratch.scores + i * kTokens, kKeys, false);
    }
  }

  void sums(const Tiles& of, Block block, int64_t prefetch) {
    const int pairs = (of.count + 1) / 2;
    const bf16 *values[kTiles / 2], *left[kTiles / 2], *right[kTiles / 2];
    for (int i = 0; i < pairs; i++) values[i] = pair_of_tiles(of, 2 * i);
    for (int64_t feature = 0; feature < layer.value_size; feature += kTileColumns) {
      for (int i = 0; i < pairs; i++) left[i] = values[i] + feature * 2, right[i] = left[i] + kLanes * 2;
      const Columns columns{left, right, pairs, kAmxPairs, 2 * layer.value_size, prefetch};
      amx_multiply_tile(tiles, scratch.weights, kKeys, columns,
                        scratch.sums + block.first * layer.value_size + feature, layer.value_size, true);
    }
  }

 private:
  // 32 tokens' values beside each other.
  const bf16* pair_of_tiles(const Tiles& of, int first) const {
    const int64_t size = kTokens * layer.value_size;
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

// The rows' queries, one after the other, with zeros up to the size of keys.
inline void gather_queries(const Layer& layer, const Work& work, bf16* to) {
  const int64_t heads = layer.heads_together, features = layer.query_features;
  for (int token = 0; token < work.num_tokens; token++) {
    const bf16* from = layer.query + (work.first_token + token) * layer.query_stride + work.first_head * features;
    for (int64_t head = 0; head < heads; head++, from += features, to += layer.key_size) {
      std::memcpy(to, from, features * sizeof(bf16));
      std::memset(to + features, 0, (layer.key_size - features) * sizeof(bf16));
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

inline void begin_rows(const Layer& layer, const Work& work, int rows, Scratch& scratch) {
  gather_queries(layer, work, scratch.query);
  std::fill_n(scratch.sums, rows * layer.value_size, 0.f);
  for (int row = 0; row < rows; row++) {
    const float* sink = layer.sinks ? layer.sinks + work.first_head + row % layer.heads_together : nullptr;
    scratch.highest[row] = sink ? *sink * kLog2E : kHidden;
    scratch.total[row] = sink ? 1.f : 0.f;
  }
}

inline void end_rows(const Layer& layer, const Work& work, int rows, const Scratch& scratch) {
  for (int row = 0; row < rows; row++) {
    const int64_t token = work.first_token + row / layer.heads_together;
    const int64_t head = work.first_head + row % layer.heads_together;
    const float total = scratch.total[row];
    const __m512 norm = _mm512_set1_ps(total > 0 ? 1.f / total : 0.f);
    bf16* to = layer.out + token * layer.out_stride + head * layer.out_features;
    for (int64_t i = 0; i < layer.out_features; i += kLanes)
      store_first(to + i, _mm512_mul_ps(_mm512_loadu_ps(scratch.sums + row * layer.value_size + i), norm),
                  layer.out_features - i);
    if (layer.lse)
      layer.lse[token * layer.num_heads + head] = total > 0 ? scratch.highest[row] / kLog2E + std::log(total)
                                                            : -std::numeric_limits<float>::infinity();
  }
}

// A cache makes tiles of 16 * n keys:
//   Tiles tiles(const Work&, int begin, int end, Scratch&)     from token `begin`, a multiple of 16, to `end`
//   const bf16* keys_at(const Work&, int token)                to fetch ahead, or null
// `next` is what the thread will do after this, or null: what it reads first is fetched meanwhile.
template <class Products, class Cache>
void attend(const Layer& layer, const Cache& cache, const Work& work, const Work* next) {
  static thread_local Scratch scratch;
  const int heads = static_cast<int>(layer.heads_together), rows = work.num_tokens * heads;
  const Sight sight(layer, work);
  begin_rows(layer, work, rows, scratch);
  Products products{layer, scratch};
  for (int key = sight.start; key < sight.end; key += kKeys) {
    const Tiles tiles = cache.tiles(work, key, std::min(sight.end, key + kKeys), scratch);
    const bf16* following = key + kKeys < sight.end ? cache.keys_at(work, key + kKeys)
                            : next != nullptr       ? cache.keys_at(*next, 0)
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
inline std::vector<Work> split(const Layer& layer, int64_t num_requests) {
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

// most_alone  pieces of work that one thread does by itself: waking the others would cost more than they bring
template <class Cache>
void attend_all(const Layer& layer, const Cache& cache, int64_t num_requests, int64_t most_alone) {
  const std::vector<Work> work = split(layer, num_requests);
  const int64_t count = static_cast<int64_t>(work.size());
  const auto attend_work = [&](const Work& some, const Work* next) {
    const bool on_amx = use_amx() && some.num_tokens * layer.heads_together >= kAmxRowsWorth;
    on_amx ? attend<AmxProducts>(layer, cache, some, next) : attend<MicroProducts>(layer, cache, some, next);
  };
  const int64_t chunk = std::clamp<int64_t>(count / (4 * omp_get_max_threads()), 1, 8);
#pragma omp parallel for schedule(dynamic, chunk) if (count > most_alone)
  for (int64_t i = 0; i < count; i++)
    attend_work(work[i], (i + 1) % chunk && i + 1 < count ? &work[i + 1] : nullptr);
}

}  // namespace ascend
