// Where our own programs are. Any thread.
#pragma once

#include <string>

#include "base/result.h"

namespace umbel::cli {

/// The running umbel.
Result<std::string> OwnProgram();

/// umbel-dataserver, as installed beside `own` or as the build leaves it; "": there is none.
std::string DataServerBeside(const std::string& own);

}  // namespace umbel::cli
