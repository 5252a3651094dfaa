// Unpacks FABs for the programs that run them. Functions; safe from any thread and for many
// processes at once. They write, hash and wait for the disk: not for an event loop.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "flower/fab.h"

namespace umbel::flower {

struct InstallOptions {
  std::string root;  // made if missing
  /// This group may read (not change) what is unpacked, and pass through `root`; the folders above
  /// are the caller's to open. Giving a file to a group asks for root or membership.
  std::optional<gid_t> readable_by;
};

/// Where a FAB belongs: "<root>/<publisher>.<name>.<version>.<first 8 digits of its hash>".
std::string InstallPath(const std::string& root, const FabInfo& fab);

/// Unpacks a FAB into a neighbour folder and renames that into place, so that what is there is
/// whole. A folder that is there already is used if it was made from this FAB and every file in it
/// still is what the archive says; files beside those (__pycache__) do not matter. One that has
/// lost that is replaced. Folders have mode 0700, files 0600; with `readable_by` 0750 and 0640.
///
/// zip     what `fab` was read from.
/// returns the folder.
/// errors  kFailedPrecondition: at that path is something that was not made from this FAB;
///         kInvalidArgument: an entry that is a file and a folder at once; else what FabZip and
///         the system say.
Result<std::string> InstallFab(std::string_view zip, const FabInfo& fab,
                               const InstallOptions& options);

/// Removes what killed processes left half unpacked in `root`. For when no other process can be
/// installing there: at start, under the node's lock.
Status CleanInstalls(const std::string& root);

}  // namespace umbel::flower
