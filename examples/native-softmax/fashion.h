// Fashion-MNIST from its gzip IDX files. Functions; safe from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace native_softmax {

inline constexpr size_t kPixels = 28 * 28;
inline constexpr size_t kClasses = 10;

struct Dataset {
  std::vector<uint8_t> pixels;  // [n, 784], 0 to 255
  std::vector<uint8_t> labels;  // [n], 0 to 9

  size_t size() const { return labels.size(); }
  std::span<const uint8_t, kPixels> Image(size_t row) const {
    return std::span<const uint8_t, kPixels>(pixels.data() + row * kPixels, kPixels);
  }
};

/// The 60 000 training images, which all sites of the process share; read once for each folder.
/// errors  kNotFound, kDataLoss: a file is missing or is not what it should be; it is named.
umbel::Result<std::shared_ptr<const Dataset>> TrainingSet(const std::string& folder);

}  // namespace native_softmax
