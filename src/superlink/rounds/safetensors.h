// A kept model as a safetensors file. Functions; any thread.
#pragma once

#include <string>

#include "base/file.h"
#include "base/result.h"

namespace umbel::superlink::rounds {

/// The arrays of an .npz file under their names, in their order.
///
/// folder   where room is taken for it, without a name: it goes with the descriptor.
/// returns  the file, open for reading.
/// cost     a copy of the model on disk; 1 MiB of memory.
/// errors   kFailedPrecondition: safetensors has no such array (big-endian, in Fortran order,
///          complex): the .npz file has it; kResourceExhausted: the disk is full; kUnavailable,
///          kNotFound.
Result<Fd> MakeSafetensors(const std::string& npz, const std::string& folder);

}  // namespace umbel::superlink::rounds
