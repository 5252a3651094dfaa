// Softmax regression: one linear layer from pixels to classes. Functions; safe from any thread.
#pragma once

#include <cstdint>
#include <random>
#include <span>

#include "fashion.h"

namespace native_softmax {

/// The model, or what has its shape. Borrowed.
struct Weights {
  std::span<float> weight;  // [784, 10]
  std::span<float> bias;    // [10]
};

struct Score {
  double loss = 0;      // mean cross-entropy
  double accuracy = 0;  // share of images named rightly
};

struct Step {
  size_t batch_size = 32;
  float learning_rate = 0.01F;
  float momentum = 0.9F;
};

/// One pass over the rows, in an order drawn from `rng`: stochastic gradient descent with momentum.
void TrainEpoch(const Weights& model, const Weights& velocity, const Dataset& data,
                std::span<uint32_t> rows, const Step& step, std::mt19937_64& rng);

Score Measure(const Weights& model, const Dataset& data, std::span<const uint32_t> rows);

}  // namespace native_softmax
