// The description of our REST door, OpenAPI 3.1, travels inside the binary. Any thread.
#pragma once

#include <string_view>

namespace umbel::doors {

/// src/doors/api/openapi.json, as it was when this was built.
std::string_view OpenApi();

}  // namespace umbel::doors
