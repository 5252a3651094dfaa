#include "superlink/verify.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/log.h"
#include "tensor/sha256.h"
#include "tensor/tree.h"

namespace umbel::superlink {

std::vector<store::Write> DropDamaged(store::Snapshot& snapshot, store::Store& store,
                                      store::Segments& segments) {
  std::vector<store::Write> writes;
  std::set<std::pair<RunId, ObjectId>> damaged;
  for (const store::ObjectRow& row : snapshot.objects) {
    const auto content = row.segment == 0
                             ? store.ReadInline(row.run_id, row.object_id)
                             : segments.Read({row.run_id, row.segment, row.offset, row.size});
    if (content.ok() && tensor::Sha256Of(*content) == row.object_id) continue;
    damaged.emplace(row.run_id, row.object_id);
    writes.push_back(store::DropObject{row.run_id, row.object_id});
  }
  if (damaged.empty()) return writes;
  std::erase_if(snapshot.objects, [&](const store::ObjectRow& row) {
    return damaged.contains({row.run_id, row.object_id});
  });
  std::set<std::pair<RunId, ObjectId>> unanswered;
  std::erase_if(snapshot.messages, [&](const store::MessageRow& row) {
    if (!row.reply_to) return false;
    const auto tree = tensor::ParseTree(row.tree);
    const bool whole =
        tree.ok() && std::none_of(tree->ids.begin(), tree->ids.end(), [&](const ObjectId& id) {
          return damaged.contains({row.run_id, id});
        });
    if (whole) return false;
    unanswered.emplace(row.run_id, *row.reply_to);
    writes.push_back(store::DropMessage{row.run_id, row.message_id});
    return true;
  });
  for (store::MessageRow& row : snapshot.messages)
    if (unanswered.contains({row.run_id, row.message_id})) row.touched = false;
  LogWarn("objects were damaged when the machine went down",
          {{"objects", damaged.size()}, {"replies_asked_again", unanswered.size()}});
  return writes;
}

}  // namespace umbel::superlink
