// Names of files of data, and the tags in them: `<tag>.<digest>.parquet`. Functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::dataset {

inline constexpr size_t kNameBytesMax = 200;
inline constexpr size_t kTagBytesMax = 150;

/// Whether a client may name a file so: what passes is one name inside the folder, never a path.
/// errors  kInvalidArgument: empty, longer than kNameBytesMax, begins with '.', not UTF-8, or with
///         a '/', a '\' or a control character in it.
Status CheckFileName(std::string_view name);

/// Whether data may be put under this tag. As of a file name, but for ',': FLOps hands a learner
/// its tags as "a,b".
Status CheckTag(std::string_view tag);

/// The tag of a file. Of `<tag>.<32 hexadecimal digits>.parquet`, which is how FLOps' clients and
/// ours name files, all that stands before the digest: a tag may have dots. Of any other name the
/// text before its first dot, which is FLOps' rule; "" when it has none.
std::string_view TagOf(std::string_view name);

std::string FileName(std::string_view tag, std::string_view digest);

/// Where a data server whose folder for learners' sockets is `sockets` serves one learner.
std::string LearnerSocket(const std::string& sockets, const std::string& project,
                          const std::string& learner);
/// Whether such paths are not too long for the kernel.
bool LearnerSocketsFit(std::string_view sockets);

}  // namespace umbel::dataset
