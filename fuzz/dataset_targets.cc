// What clients of data servers ask for, and files of images.
#include "dataset/criteria.h"
#include "dataset/images.h"
#include "dataset/names.h"
#include "targets.h"

namespace umbel::fuzz {

void DataRequest(std::string_view bytes) {
  const auto tags = dataset::ParseCriteria(bytes);
  if (tags.has_value()) UMBEL_CHECK(!tags->empty() && !tags->front().empty());
  const auto claim = dataset::ParseClaim(bytes);
  if (claim.has_value()) {
    UMBEL_CHECK(claim->of > 0 && claim->index.value_or(0) < claim->of && !claim->tags.empty());
    UMBEL_CHECK(dataset::ParseRelease(bytes).has_value());
  }
  if (dataset::CheckFileName(bytes).has_value())
    UMBEL_CHECK(bytes.find('/') == std::string_view::npos && bytes != "..");
  UMBEL_CHECK(bytes.starts_with(dataset::TagOf(bytes)));
}

void DataImages(std::string_view bytes) {
  if (const auto images = dataset::ParseIdxImages(bytes); images.has_value())
    UMBEL_CHECK(images->pixels.size() % (size_t{images->width} * images->height) == 0);
  if (const auto labels = dataset::ParseIdxLabels(bytes); labels.has_value())
    UMBEL_CHECK(labels->size() + 8 == bytes.size());
  if (const auto digits = dataset::ParseDigits(bytes); digits.has_value())
    UMBEL_CHECK(digits->pixels.size() == digits->size() * 64);
}

}  // namespace umbel::fuzz
