#include "dataset/png.h"

#include <gtest/gtest.h>
#include <png.h>
#include <rapidcheck.h>

#include <vector>

namespace umbel::dataset {
namespace {

TEST(PngTest, PixelsComeBack) {
  rc::check("decoded = encoded", [] {
    const auto width = *rc::gen::inRange<uint32_t>(1, 40),
               height = *rc::gen::inRange<uint32_t>(1, 40);
    const auto pixels = *rc::gen::container<std::vector<uint8_t>>(size_t{width} * height,
                                                                  rc::gen::arbitrary<uint8_t>());
    const auto png = EncodePng(pixels, width, height);
    RC_ASSERT(png.ok());
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    RC_ASSERT(png_image_begin_read_from_memory(&image, png->data(), png->size()) != 0);
    RC_ASSERT(image.width == width);
    RC_ASSERT(image.height == height);
    RC_ASSERT(image.format == PNG_FORMAT_GRAY);  // the file itself is grey
    std::vector<uint8_t> back(pixels.size());
    RC_ASSERT(png_image_finish_read(&image, nullptr, back.data(), 0, nullptr) != 0);
    RC_ASSERT(back == pixels);
  });
}

}  // namespace
}  // namespace umbel::dataset
