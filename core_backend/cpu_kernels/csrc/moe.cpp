// Which experts tokens go to, and the way there and back, where all experts are on this machine's rank or some are.
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "bf16.h"

namespace ascend {
namespace {

// The top_k experts of each token by their scores, the best first, the first of equals before the others.
// logits [tokens, experts], bf16 or fp32 -> weights [tokens, top_k] fp32, ids [tokens, top_k] int32
std::tuple<at::Tensor, at::Tensor> route_topk(const at::Tensor& logits, int64_t top_k, bool softmax, bool renormalize,
                                              double scaling_factor) {
  const at::Tensor scores_in = logits.to(at::kFloat).contiguous();
  const int64_t tokens = scores_in.size(0), experts = scores_in.size(1);
  TORCH_CHECK(top_k <= experts, "there are ", experts, " experts, and ", top_k, " are to be chosen.");
  const at::Tensor weights = at::empty({tokens, top_k}, scores_in.options());
  const at::Tensor ids = at::empty({tokens, top_k}, scores_in.options().dtype(at::kInt));
  std::vector<float> scores(experts);
  std::vector<int> order(experts);
  for (int64_t token = 0; token < tokens; token++) {
    const float* of_token = scores_in.data_ptr<float>() + token * experts;
    const float most = *std::max_element(of_token, of_token + experts);
    float total = 0;
    for (int64_t i = 0; i < experts; i++) {
      scores[i] = softmax ? std::exp(of_token[i] - most) : 1 / (1 + std::exp(-of_token[i]));
      total += scores[i];
    }
    if (softmax)
      for (float& score : scores) score /= total;
    std::iota(order.begin(), order.end(), 0);
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(),
                      [&](int a, int b) { return scores[a] != scores[b] ? scores[a] > scores[b] : a < b; });
    float chosen = 1e-20f;
    for (int64_t i = 0; i < top_k; i++) chosen += scores[order[i]];
    const float factor = static_cast<float>(scaling_factor) / (renormalize ? chosen : 1.f);
    for (int64_t i = 0; i < top_k; i++) {
      weights.data_ptr<float>()[token * top_k + i] = scores[order[i]] * factor;
      ids.data_ptr<int>()[token * top_k + i] = order[i];
    }
  }
  return {weights, ids};
}

// x [tokens, size] copied once for each choice of an expert in first .. first + num_local - 1, sorted by expert.
std::tuple<at::Tensor, at::Tensor, at::Tensor> route_to_experts(const at::Tensor& x, const at::Tensor& topk_ids,
                                                                int64_t first, int64_t num_local) {
  const at::Tensor input = x.contiguous(), chosen = topk_ids.contiguous();
  const int64_t size = x.size(1), top_k = topk_ids.size(1), choices = topk_ids.numel();
  const int* ids = chosen.data_ptr<int>();
  const at::Tensor rows = at::empty({choices, size}, x.options());
  const at::Tensor counts = at::zeros({num_local}, x.options().dtype(at::kLong));
  const at::Tensor row_of = at::empty({choices}, x.options().dtype(at::kInt));
  int64_t* of_expert = counts.data_ptr<int64_t>();
  const auto is_local = [&](int64_t choice) { return ids[choice] >= first && ids[choice] < first + num_local; };
  for (int64_t choice = 0; choice < choices; choice++)
    if (is_local(choice)) of_expert[ids[choice] - first]++;
  std::vector<int64_t> next(num_local + 1);
  std::partial_sum(of_expert, of_expert + num_local, next.begin() + 1);
  for (int64_t choice = 0; choice < choices; choice++) {
    const int64_t row = is_local(choice) ? next[ids[choice] - first]++ : -1;
    row_of.data_ptr<int>()[choice] = static_cast<int>(row);
    if (row >= 0) std::memcpy(data_of(rows) + row * size, data_of(input) + choice / top_k * size, size * sizeof(bf16));
  }
  return {rows, counts, row_of};
}

// The weighted sum of each token's rows; -1 adds nothing. rows [choices, size] bf16, weights [tokens, top_k] fp32
at::Tensor combine_experts(const at::Tensor& rows, const at::Tensor& row_of, const at::Tensor& weights) {
  const at::Tensor input = rows.contiguous(), places = row_of.contiguous(), factors = weights.contiguous();
  const int64_t size = rows.size(1), tokens = weights.size(0), top_k = weights.size(1);
  const at::Tensor output = at::empty({tokens, size}, rows.options());
#pragma omp parallel for if (tokens * top_k * size > 1 << 15)
  for (int64_t token = 0; token < tokens; token++) {
    const int* row = places.data_ptr<int>() + token * top_k;
    const float* weight = factors.data_ptr<float>() + token * top_k;
    for (int64_t i = 0; i < size; i += kLanes) {
      __m512 sum = _mm512_setzero_ps();
      for (int64_t choice = 0; choice < top_k; choice++)
        if (row[choice] >= 0)
          sum = _mm512_fmadd_ps(load(data_of(input) + row[choice] * size + i), _mm512_set1_ps(weight[choice]), sum);
      store(data_of(output) + token * size + i, sum);
    }
  }
  return output;
}

TORCH_LIBRARY_FRAGMENT(ascend_cpu, library) {
  library.def(
      "route_topk(Tensor logits, int top_k, bool softmax, bool renormalize, float scaling_factor) -> (Tensor, Tensor)",
      route_topk);
  library.def(
      "route_to_experts(Tensor x, Tensor topk_ids, int first, int num_local) -> (Tensor, Tensor, Tensor)",
      route_to_experts);
  library.def("combine_experts(Tensor rows, Tensor row_of, Tensor weights) -> Tensor", combine_experts);
}

}  // namespace
}  // namespace ascend
