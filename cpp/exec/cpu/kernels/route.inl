// Included after math.inl and storage.inl inside the namespace of one instruction set. The formulas stand in cpp/ops/route.cpp.
constexpr float kTinySum = 1e-20f;

inline bool comes_before(float a, float b) { return a > b || (a != a && b == b); }

inline float largest(const float* x, int64_t n) {
  Vec top = set1(-INFINITY);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) top = max(top, load(x + i));
  float best = max_lanes(top);
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

// y = e^(x - top); returns the sum.
inline float exponentials(const float* x, int64_t n, float top, float* y) {
  Vec sum = zero();
  float rest = 0.0f;
  each_vector(n, [&](int64_t i, int64_t lanes) {
    const Vec e = exp(read(x + i, lanes) - set1(top));
    write(y + i, e, lanes);
    if (lanes == kLanes) {
      sum = sum + e;
    } else {
      for (int64_t j = 0; j < lanes; ++j) rest += y[i + j];
    }
  });
  return sum_lanes(sum) + rest;
}

// Adds [begin, end) to the best `found` of k, which stand in order; returns how many there are then.
inline int64_t keep_best(const float* score, int64_t begin, int64_t end, int64_t k, int64_t found, int32_t* best) {
  for (int64_t i = begin; i < end; ++i) {
    if (found == k && !comes_before(score[i], score[best[k - 1]])) continue;
    int64_t place = found < k ? found++ : k - 1;
    for (; place > 0 && comes_before(score[i], score[best[place - 1]]); --place) best[place] = best[place - 1];
    best[place] = static_cast<int32_t>(i);
  }
  return found;
}

inline float group_score(const float* score, int64_t begin, int64_t end, bool top2_sum) {
  int32_t best[2];
  keep_best(score, begin, end, top2_sum ? 2 : 1, 0, best);
  return top2_sum ? score[best[0]] + score[best[1]] : score[best[0]];
}

inline void choose(const RouteCall& c, const float* score, float* of_group, int32_t* indices) {
  if (c.groups_selected == c.groups) {
    keep_best(score, 0, c.experts, c.k, 0, indices);
    return;
  }
  const int64_t size = c.experts / c.groups;
  for (int64_t g = 0; g < c.groups; ++g) of_group[g] = group_score(score, g * size, (g + 1) * size, c.top2_sum);
  int64_t found = 0;
  for (int64_t g = 0; g < c.groups; ++g) {
    int64_t better = 0;  // groups that are chosen before this one
    for (int64_t h = 0; h < c.groups; ++h) better += h != g && (comes_before(of_group[h], of_group[g]) || (h < g && !comes_before(of_group[g], of_group[h])));
    if (better < c.groups_selected) found = keep_best(score, g * size, (g + 1) * size, c.k, found, indices);
  }
}

// The scores of the chosen: softmax over all or over them, or sigmoid. `spare` holds `experts` floats.
inline void scores_of_chosen(const RouteCall& c, const float* logits, const int32_t* indices, float* scores, float* spare) {
  for (int64_t j = 0; j < c.k; ++j) scores[j] = logits[indices[j]];
  if (c.score == RouteScore::kSigmoid) {
    each_vector(c.k, [&](int64_t i, int64_t lanes) { write(scores + i, sigmoid(read(scores + i, lanes)), lanes); });
    return;
  }
  const bool all = c.score == RouteScore::kSoftmax;
  const float top = all ? largest(logits, c.experts) : largest(scores, c.k);
  const float all_sum = all ? exponentials(logits, c.experts, top, spare) : 0.0f;
  const float chosen_sum = exponentials(scores, c.k, top, scores);
  for (int64_t j = 0; j < c.k; ++j) scores[j] /= all ? all_sum : chosen_sum;
}

inline void route_row(const RouteCall& c, const float* logits, const float* bias, float* weights, int32_t* indices, float* scratch) {
  float* const of_group = scratch + c.experts;
  const float* choice = logits;  // whose order is that of the scores
  if (bias != nullptr || (c.top2_sum && c.groups_selected < c.groups)) {
    float scale = 1.0f;
    if (c.score == RouteScore::kSoftmax) scale = 1.0f / exponentials(logits, c.experts, largest(logits, c.experts), scratch);
    each_vector(c.experts, [&](int64_t i, int64_t lanes) {
      Vec s = c.score == RouteScore::kSoftmax ? read(scratch + i, lanes) * set1(scale) : read(logits + i, lanes);
      if (c.score == RouteScore::kSigmoid) s = sigmoid(s);
      write(scratch + i, bias == nullptr ? s : s + read(bias + i, lanes), lanes);
    });
    choice = scratch;
  }
  choose(c, choice, of_group, indices);
  scores_of_chosen(c, logits, indices, weights, scratch);
  float sum = kTinySum;
  for (int64_t j = 0; j < c.k; ++j) sum += weights[j];
  for (int64_t j = 0; j < c.k; ++j) weights[j] = weights[j] / (c.normalize ? sum : 1.0f) * c.scaling;
}

inline void route_row_backward(const RouteCall& c, const float* logits, const int32_t* indices, const float* dweights, float* dlogits) {
  const bool all = c.score == RouteScore::kSoftmax;
  float top = all ? largest(logits, c.experts) : -INFINITY, total = 0.0f;
  if (all) {
    total = exponentials(logits, c.experts, top, dlogits);  // e^(l - top), which become the gradients
  } else {
    each_vector(c.experts, [&](int64_t i, int64_t lanes) { write(dlogits + i, zero(), lanes); });
    for (int64_t j = 0; j < c.k; ++j) top = logits[indices[j]] > top ? logits[indices[j]] : top;
    for (int64_t j = 0; j < c.k; ++j) total += __builtin_expf(logits[indices[j]] - top);
  }
  const auto score = [&](int64_t j) {
    const float logit = logits[indices[j]];
    return c.score == RouteScore::kSigmoid ? 1.0f / (1.0f + __builtin_expf(-logit)) : __builtin_expf(logit - top) / total;
  };
  float sum = kTinySum, weighted = 0.0f;
  for (int64_t j = 0; j < c.k; ++j) {
    const float s = score(j);
    sum += s;
    weighted += dweights[j] * c.scaling * s;
  }
  const float mean = weighted / sum;
  const auto dscore = [&](int64_t j) { return c.normalize ? (dweights[j] * c.scaling - mean) / sum : dweights[j] * c.scaling; };
  if (c.normalize) {
    weighted = 0.0f;
    for (int64_t j = 0; j < c.k; ++j) weighted += dscore(j) * score(j);
  }
  if (all) each_vector(c.experts, [&](int64_t i, int64_t lanes) { write(dlogits + i, read(dlogits + i, lanes) * set1(-weighted / total), lanes); });
  for (int64_t j = 0; j < c.k; ++j) {
    const float s = score(j);
    dlogits[indices[j]] += s * (c.score == RouteScore::kSigmoid ? dscore(j) * (1.0f - s) : all ? dscore(j) : dscore(j) - weighted);
  }
}
