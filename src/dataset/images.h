// Labelled grey images from the files they are published in. Functions; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::dataset {

struct LabelledImages {
  uint32_t width = 0;
  uint32_t height = 0;
  std::vector<uint8_t> pixels;  // of all, row by row, one after the other
  std::vector<uint8_t> labels;
  std::vector<std::string> label_names;

  size_t size() const { return labels.size(); }
  std::span<const uint8_t> image(size_t index) const {
    const size_t bytes = size_t{width} * height;
    return std::span(pixels).subspan(index * bytes, bytes);
  }
};

struct IdxImages {
  uint32_t width = 0;
  uint32_t height = 0;
  std::vector<uint8_t> pixels;
};

/// IDX with unsigned bytes in three dimensions: number, height, width.
/// errors  kInvalidArgument: another type or rank, more or fewer bytes than the head says.
Result<IdxImages> ParseIdxImages(std::string_view bytes);
/// IDX with unsigned bytes in one dimension.
Result<std::vector<uint8_t>> ParseIdxLabels(std::string_view bytes);

/// All of a gzip file.
/// errors  kInvalidArgument: not gzip, or damaged; kResourceExhausted: more than `limit`.
Result<std::string> ReadGzip(const std::string& path, size_t limit);

/// The train split of Fashion-MNIST: 60000 of 28 x 28.
/// folder  with {train,t10k}-{images-idx3,labels-idx1}-ubyte.gz.
Result<LabelledImages> ReadFashionMnist(const std::string& folder);

/// Digits as scikit-learn has them: 1797 of 8 x 8, each line 64 values from 0 to 16 and the digit.
/// Grey is value * 255 / 16, rounded.
/// path  digits.csv.gz
Result<LabelledImages> ReadDigits(const std::string& path);
Result<LabelledImages> ParseDigits(std::string_view csv);

}  // namespace umbel::dataset
