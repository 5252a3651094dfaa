// After the machine itself went down, files may lack what their rows promise. Used once, at start.
#pragma once

#include <vector>

#include "store/segments.h"
#include "store/store.h"

namespace umbel::superlink {

/// Hashes every stored object and takes those that are not what their id says out of `snapshot`. A
/// reply that needs one of them goes too, and its instruction will be handed out again.
/// returns  what the store has to forget.
/// cost     reads all live objects once.
std::vector<store::Write> DropDamaged(store::Snapshot& snapshot, store::Store& store,
                                      store::Segments& segments);

}  // namespace umbel::superlink
