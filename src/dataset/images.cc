#include "dataset/images.h"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <memory>

namespace umbel::dataset {
namespace {

constexpr size_t kPixelsMax = size_t{1} << 30;
constexpr uint32_t kSideMax = 4096;

tl::unexpected<Error> Wrong(std::string message) {
  return Fail(Code::kInvalidArgument, std::move(message));
}

uint32_t BigEndian(std::string_view bytes, size_t at) {
  uint32_t value = 0;
  for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[at + i]);
  return value;
}

/// The dimensions, and what follows them.
Result<std::vector<uint32_t>> ParseIdxHead(std::string_view& bytes, size_t rank) {
  const size_t head = 4 + 4 * rank;
  if (bytes.size() < head)
    return Wrong(fmt::format("IDX: {} bytes, the head alone has {}", bytes.size(), head));
  const uint32_t magic = BigEndian(bytes, 0), wanted = 0x0800 + static_cast<uint32_t>(rank);
  if (magic != wanted)
    return Wrong(fmt::format("IDX: begins with {:#010x}, not {:#010x}", magic, wanted));
  std::vector<uint32_t> sizes;
  uint64_t count = 1;
  for (size_t i = 0; i < rank; ++i) {
    sizes.push_back(BigEndian(bytes, 4 + 4 * i));
    if (sizes[i] == 0 || (i > 0 && sizes[i] > kSideMax))
      return Wrong(fmt::format("IDX: dimension {} is {}", i, sizes[i]));
    count *= sizes[i];
    if (count > kPixelsMax) return Wrong(fmt::format("IDX: more than {} values", kPixelsMax));
  }
  bytes.remove_prefix(head);
  if (bytes.size() != count)
    return Wrong(fmt::format("IDX: {} values, the head says {}", bytes.size(), count));
  return sizes;
}

Error In(const std::string& path, const Error& error) {
  return {error.code, fmt::format("'{}': {}", path, error.message), 0};
}

std::vector<uint8_t> Bytes(std::string_view text) { return {text.begin(), text.end()}; }

std::vector<std::string> Numerals() { return {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}; }

}  // namespace

Result<IdxImages> ParseIdxImages(std::string_view bytes) {
  UMBEL_ASSIGN(const std::vector<uint32_t> sizes, ParseIdxHead(bytes, 3));
  return IdxImages{sizes[2], sizes[1], Bytes(bytes)};
}

Result<std::vector<uint8_t>> ParseIdxLabels(std::string_view bytes) {
  UMBEL_TRY(ParseIdxHead(bytes, 1));
  return Bytes(bytes);
}

Result<std::string> ReadGzip(const std::string& path, size_t limit) {
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(::gzopen(path.c_str(), "rbe"), ::gzclose);
  if (!file) return Fail(Code::kNotFound, fmt::format("cannot open '{}'", path));
  if (::gzdirect(file.get()) != 0) return Wrong(fmt::format("'{}' is not a gzip file", path));
  std::string content;
  char buffer[65536];
  for (;;) {
    const int n = ::gzread(file.get(), buffer, sizeof buffer);
    int problem = Z_OK;
    // A cut file is told of by the error only, not by the count.
    const char* why = ::gzerror(file.get(), &problem);
    if (n < 0 || (problem != Z_OK && problem != Z_STREAM_END))
      return Wrong(fmt::format("'{}' is damaged: {}", path, why));
    if (n == 0) return content;
    if (content.size() + static_cast<size_t>(n) > limit)
      return Fail(Code::kResourceExhausted,
                  fmt::format("'{}' has more than {} bytes", path, limit));
    content.append(buffer, static_cast<size_t>(n));
  }
}

Result<LabelledImages> ReadFashionMnist(const std::string& folder) {
  const std::string images_path = folder + "/train-images-idx3-ubyte.gz";
  const std::string labels_path = folder + "/train-labels-idx1-ubyte.gz";
  UMBEL_ASSIGN(const std::string images_file, ReadGzip(images_path, kPixelsMax));
  UMBEL_ASSIGN(const std::string labels_file, ReadGzip(labels_path, kPixelsMax));
  auto images = ParseIdxImages(images_file);
  if (!images.ok()) return Fail(In(images_path, images.error()));
  auto labels = ParseIdxLabels(labels_file);
  if (!labels.ok()) return Fail(In(labels_path, labels.error()));
  LabelledImages all{images->width,
                     images->height,
                     std::move(images->pixels),
                     std::move(*labels),
                     {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt",
                      "Sneaker", "Bag", "Ankle boot"}};
  if (all.pixels.size() != all.size() * all.width * all.height)
    return Wrong(fmt::format("'{}' has not one label for each image", labels_path));
  if (*std::max_element(all.labels.begin(), all.labels.end()) >= all.label_names.size())
    return Wrong(fmt::format("'{}' has a label above 9", labels_path));
  return all;
}

Result<LabelledImages> ParseDigits(std::string_view csv) {
  constexpr uint32_t kSide = 8;
  constexpr unsigned kGreyest = 16;
  LabelledImages all{kSide, kSide, {}, {}, Numerals()};
  for (size_t line = 1; !csv.empty(); ++line) {
    const size_t end = std::min(csv.find('\n'), csv.size());
    std::string_view row = csv.substr(0, end);
    csv.remove_prefix(std::min(end + 1, csv.size()));
    if (row.ends_with('\r')) row.remove_suffix(1);
    if (row.empty()) continue;
    for (uint32_t column = 0; column <= kSide * kSide; ++column) {
      const bool label = column == kSide * kSide;
      unsigned value = 0;
      const auto [rest, problem] = std::from_chars(row.data(), row.data() + row.size(), value);
      const size_t used = static_cast<size_t>(rest - row.data());
      const bool ended = label ? used == row.size() : used < row.size() && row[used] == ',';
      if (problem != std::errc() || !ended || value > (label ? 9 : kGreyest))
        return Wrong(fmt::format("line {}: value {} is not a number from 0 to {}", line, column + 1,
                                 label ? 9 : kGreyest));
      if (label) {
        all.labels.push_back(static_cast<uint8_t>(value));
      } else {
        all.pixels.push_back(static_cast<uint8_t>((value * 255 + kGreyest / 2) / kGreyest));
        row.remove_prefix(used + 1);
      }
    }
  }
  if (all.labels.empty()) return Wrong("no digits in it");
  return all;
}

Result<LabelledImages> ReadDigits(const std::string& path) {
  UMBEL_ASSIGN(const std::string csv, ReadGzip(path, size_t{64} << 20));
  auto digits = ParseDigits(csv);
  if (!digits.ok()) return Fail(In(path, digits.error()));
  return digits;
}

}  // namespace umbel::dataset
