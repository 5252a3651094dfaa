// Grey images as PNG files. Functions; any thread.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace umbel::dataset {

/// pixels  8 bit grey, row by row, width * height of them.
Result<std::string> EncodePng(std::span<const uint8_t> pixels, uint32_t width, uint32_t height);

}  // namespace umbel::dataset
