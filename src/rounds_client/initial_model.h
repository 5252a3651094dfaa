// A model in a file as the arrays of a message. Functions.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "flower/records.h"
#include "flower/spool.h"

namespace umbel::rounds_client {

bool IsSafetensors(std::string_view path);

/// The arrays of an .npz file, or of a .safetensors file by its suffix: in its order, under their
/// names there. Their bytes are copied to `spool`.
///
/// errors  kNotFound; kInvalidArgument: not such a file, or an array is none of numbers; the
/// message
///         names file and array.
Result<flower::ArrayRecord> ReadModel(const std::string& path, flower::Spool& spool);

}  // namespace umbel::rounds_client
