#include "softmax.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

namespace native_softmax {
namespace {

using Classes = std::array<float, kClasses>;

/// The probability of each class.
Classes Predict(const Weights& model, std::span<const uint8_t, kPixels> image) {
  Classes scores;
  std::copy(model.bias.begin(), model.bias.end(), scores.begin());
  for (size_t p = 0; p < kPixels; ++p) {
    if (image[p] == 0) continue;  // half of all pixels
    const float value = static_cast<float>(image[p]) / 255;
    for (size_t c = 0; c < kClasses; ++c) scores[c] += value * model.weight[p * kClasses + c];
  }
  const float highest = *std::max_element(scores.begin(), scores.end());
  float sum = 0;
  for (float& score : scores) sum += score = std::exp(score - highest);
  for (float& score : scores) score /= sum;
  return scores;
}

void Descend(std::span<float> model, std::span<float> velocity, std::span<const float> gradient,
             const Step& step) {
  for (size_t i = 0; i < model.size(); ++i) {
    velocity[i] = step.momentum * velocity[i] - step.learning_rate * gradient[i];
    model[i] += velocity[i];
  }
}

}  // namespace

void TrainEpoch(const Weights& model, const Weights& velocity, const Dataset& data,
                std::span<uint32_t> rows, const Step& step, std::mt19937_64& rng) {
  // Not std::shuffle: the same order with every standard library.
  for (size_t i = rows.size(); i > 1; --i) std::swap(rows[i - 1], rows[rng() % i]);
  std::vector<float> weight(kPixels * kClasses);
  Classes bias;
  for (size_t begin = 0; begin < rows.size(); begin += step.batch_size) {
    const auto batch = rows.subspan(begin, std::min(step.batch_size, rows.size() - begin));
    std::fill(weight.begin(), weight.end(), 0.0F);
    bias.fill(0);
    for (const uint32_t row : batch) {
      const auto image = data.Image(row);
      Classes error = Predict(model, image);
      error[data.labels[row]] -= 1;
      for (float& e : error) e /= static_cast<float>(batch.size());
      for (size_t p = 0; p < kPixels; ++p) {
        if (image[p] == 0) continue;
        const float value = static_cast<float>(image[p]) / 255;
        for (size_t c = 0; c < kClasses; ++c) weight[p * kClasses + c] += value * error[c];
      }
      for (size_t c = 0; c < kClasses; ++c) bias[c] += error[c];
    }
    Descend(model.weight, velocity.weight, weight, step);
    Descend(model.bias, velocity.bias, bias, step);
  }
}

Score Measure(const Weights& model, const Dataset& data, std::span<const uint32_t> rows) {
  Score score;
  for (const uint32_t row : rows) {
    const Classes probability = Predict(model, data.Image(row));
    const uint8_t truth = data.labels[row];
    score.loss -= std::log(std::max(static_cast<double>(probability[truth]), 1e-12));
    const auto named = std::max_element(probability.begin(), probability.end());
    score.accuracy += named - probability.begin() == truth;
  }
  const auto count = static_cast<double>(std::max<size_t>(rows.size(), 1));
  return {score.loss / count, score.accuracy / count};
}

}  // namespace native_softmax
