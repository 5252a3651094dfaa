// What tests of records share. Functions; one thread.
#pragma once

#include <memory>
#include <string>

#include "flower/records.h"
#include "tensor/object.h"

namespace umbel::flower {

inline std::shared_ptr<Spool> NewSpool() {
  auto spool = Spool::Create("");
  UMBEL_CHECK(spool.ok());
  return *std::move(spool);
}

inline std::string DataOf(const ArrayRef& array, const Spool& spool) {
  std::string data;
  for (const FileRange& piece : array.pieces) data += spool.Read(piece).value();
  return data;
}

/// Two dictionaries with the same names, values and array bytes, wherever those lie. Values that
/// are NaN are the same when their bits are: records are compared as their objects.
inline bool SameRecords(const RecordDict& a, const std::shared_ptr<Spool>& a_spool,
                        const RecordDict& b, const std::shared_ptr<Spool>& b_spool) {
  const auto left = MakeParcel({}, a, a_spool);
  const auto right = MakeParcel({}, b, b_spool);
  return left.ok() && right.ok() && left->head.message_id == right->head.message_id;
}

}  // namespace umbel::flower
