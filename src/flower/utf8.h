// Text of programs we do not control, made fit for protobuf strings. Functions; any thread.
#pragma once

#include "base/utf8.h"

namespace umbel::flower {

using umbel::IsUtf8;
using umbel::ValidUtf8;
using umbel::WholeCharacters;

}  // namespace umbel::flower
