#include "dataset/png.h"

#include <png.h>

namespace umbel::dataset {

Result<std::string> EncodePng(std::span<const uint8_t> pixels, uint32_t width, uint32_t height) {
  UMBEL_CHECK(pixels.size() == size_t{width} * height);
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = width;
  image.height = height;
  image.format = PNG_FORMAT_GRAY;
  image.flags = PNG_IMAGE_FLAG_FAST;  // a tenth larger, in a fraction of the time
  std::string png(PNG_IMAGE_PNG_SIZE_MAX(image), '\0');
  png_alloc_size_t size = png.size();
  if (png_image_write_to_memory(&image, png.data(), &size, 0, pixels.data(), 0, nullptr) == 0)
    return Fail(Code::kInternal, fmt::format("cannot encode a PNG: {}", image.message));
  png.resize(size);
  return png;
}

}  // namespace umbel::dataset
