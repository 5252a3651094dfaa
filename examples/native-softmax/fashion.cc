#include "fashion.h"

#include <zlib.h>

#include <array>
#include <map>
#include <string_view>

#include "base/guarded.h"

namespace native_softmax {
namespace {

using umbel::Code;
using umbel::Fail;
using umbel::Result;

using GzFile = std::unique_ptr<gzFile_s, decltype(&gzclose)>;

constexpr size_t kSizeMax = 1'000'000;

/// Exactly `size` bytes.
bool Read(const GzFile& file, void* to, size_t size) {
  return gzread(file.get(), to, static_cast<unsigned>(size)) == static_cast<int>(size);
}

/// The bytes of an IDX file, `item` of them for each image: magic 0 0 8 <dimensions>, the sizes
/// in big-endian, then the elements.
Result<std::vector<uint8_t>> ReadIdx(const std::string& path, uint8_t dimensions, size_t item) {
  const GzFile file(gzopen(path.c_str(), "rb"), &gzclose);
  if (!file)
    return Fail(
        Code::kNotFound,
        fmt::format("{}: it cannot be read; Debian's package dataset-fashion-mnist has it", path));
  const auto broken = [&] {
    return Fail(Code::kDataLoss, fmt::format("{}: not the IDX file it should be", path));
  };
  std::array<uint8_t, 4> word{};
  if (!Read(file, word.data(), 4) || word != std::array<uint8_t, 4>{0, 0, 8, dimensions})
    return broken();
  size_t count = 0, bytes = 1;  // of one image
  for (uint8_t d = 0; d < dimensions; ++d) {
    if (!Read(file, word.data(), 4)) return broken();
    const size_t size =
        size_t{word[0]} << 24 | size_t{word[1]} << 16 | size_t{word[2]} << 8 | size_t{word[3]};
    if (size > kSizeMax) return broken();
    if (d == 0) {
      count = size;
    } else {
      bytes *= size;
    }
  }
  if (bytes != item) return broken();
  std::vector<uint8_t> data(count * item);
  if (!Read(file, data.data(), data.size())) return broken();
  return data;
}

Result<std::shared_ptr<const Dataset>> Load(const std::string& folder) {
  auto set = std::make_shared<Dataset>();
  UMBEL_ASSIGN(set->pixels, ReadIdx(folder + "/train-images-idx3-ubyte.gz", 3, kPixels));
  UMBEL_ASSIGN(set->labels, ReadIdx(folder + "/train-labels-idx1-ubyte.gz", 1, 1));
  if (set->pixels.size() != set->labels.size() * kPixels)
    return Fail(Code::kDataLoss, fmt::format("{}: not as many labels as images", folder));
  for (const uint8_t label : set->labels)
    if (label >= kClasses) return Fail(Code::kDataLoss, fmt::format("{}: label {}", folder, label));
  return std::shared_ptr<const Dataset>(std::move(set));
}

}  // namespace

Result<std::shared_ptr<const Dataset>> TrainingSet(const std::string& folder) {
  using Sets = std::map<std::string, std::shared_ptr<const Dataset>>;
  static umbel::Guarded<Sets> sets;
  // The first site reads, others wait for it: all of them need it.
  return sets.With([&](Sets& held) -> Result<std::shared_ptr<const Dataset>> {
    auto& set = held[folder];
    if (!set) {
      UMBEL_ASSIGN(set, Load(folder));
    }
    return set;
  });
}

}  // namespace native_softmax
