// Passwords: from a file, from standard input, or asked for. Never from the command line, where
// whoever lists processes would read them. One thread.
#pragma once

#include <string>

#include "base/result.h"

namespace umbel::cli {

/// The first line of `file`; of standard input where that is "-"; where it is "", what is typed at
/// the terminal without being shown.
/// flag    that names the file, for the error of whoever has no terminal.
/// errors  kNotFound, kUnavailable: the file; kFailedPrecondition: there is nobody to ask.
Result<std::string> ReadPassword(const std::string& file, const std::string& prompt,
                                 const std::string& flag);

}  // namespace umbel::cli
