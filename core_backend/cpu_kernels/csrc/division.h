// How a product of rows and packed columns is divided among threads, and into pieces that stay in a core's caches.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace ascend {

// Columns come in blocks of 32. In its second cache a core keeps a chunk of rows while blocks pass by; in its share of the
// last one it keeps a group of blocks, while one chunk after the other passes by.
struct Division {
  int64_t num_rows, row_bytes, num_blocks, block_bytes;

  static constexpr int64_t kChunkBytes = 400000, kGroupBytes = 4 << 20;
  static constexpr int64_t kLeastChunk = 96, kMostChunk = 288, kChunkMultiple = 32;  // rows; of whole tiles of AMX

  // As many as there is room for, and equally many in each chunk, as far as whole tiles allow.
  int64_t rows_of_chunk() const {
    const int64_t most = std::clamp<int64_t>(kChunkBytes / row_bytes, kLeastChunk, kMostChunk);
    const int64_t chunks = std::max<int64_t>(1, (num_rows + most - 1) / most);
    const int64_t rows = (num_rows + chunks - 1) / chunks;
    return std::max<int64_t>(kChunkMultiple, (rows + kChunkMultiple - 1) / kChunkMultiple * kChunkMultiple);
  }

  int64_t blocks_of_group() const { return std::max<int64_t>(1, kGroupBytes / block_bytes); }

  // compute(row_begin, row_end, block_begin, block_end) for all rows, in this thread.
  template <class Compute>
  void all_rows(int64_t block_begin, int64_t block_end, const Compute& compute) const {
    const int64_t chunk = rows_of_chunk(), group = num_rows <= chunk ? num_blocks : blocks_of_group();
    for (int64_t block = block_begin; block < block_end; block += group)
      for (int64_t row = 0; row < num_rows; row += chunk)
        compute(row, std::min(num_rows, row + chunk), block, std::min(block_end, block + group));
  }

  // The same for all rows and blocks, in all threads.
  template <class Compute>
  void everything(const Compute& compute) const {
    const int64_t chunk = rows_of_chunk(), chunks = (num_rows + chunk - 1) / chunk;
    if (chunks >= 2 * omp_get_max_threads() && num_blocks <= blocks_of_group()) {
#pragma omp parallel for schedule(dynamic)
      for (int64_t c = 0; c < chunks; c++) compute(c * chunk, std::min(num_rows, (c + 1) * chunk), 0, num_blocks);
      return;
    }
#pragma omp parallel
    {
      const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
      all_rows(num_blocks * thread / threads, num_blocks * (thread + 1) / threads, compute);
    }
  }
};

}  // namespace ascend
