// A model in an .npz file as the arrays of a message. Functions.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "flower/records.h"
#include "flower/spool.h"

namespace umbel::rounds_client {

/// The arrays of an .npz file, in its order, under the names np.savez gave them. Their bytes are
/// copied to `spool`.
///
/// errors  kNotFound; kInvalidArgument: not an .npz file, or an entry is no array of numbers; the
///         message names file and entry.
Result<flower::ArrayRecord> ReadNpz(const std::string& path, flower::Spool& spool);

}  // namespace umbel::rounds_client
