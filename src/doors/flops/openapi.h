// The description of FLOps's REST door, OpenAPI 3.1, travels inside the binary. Any thread.
#pragma once

#include <string_view>

namespace umbel::doors {

/// src/doors/flops/openapi.json, as it was when this was built: without the schemas that it has in
/// common with our own API's.
std::string_view FlopsOpenApi();

}  // namespace umbel::doors
