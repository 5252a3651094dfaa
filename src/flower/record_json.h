// The JSON bodies of Flower's objects, to the byte as Python's json.dumps writes them. Read without
// a document in memory: nesting and numbers are a stranger's. Functions; safe from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "flower/budget.h"
#include "flower/records.h"

namespace umbel::flower {

/// Body of an Array. `chunks` are indices into the object's children.
struct ArrayBody {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string stype;
  std::vector<uint64_t> chunks;

  bool operator==(const ArrayBody&) const = default;
};

/// Body of a RecordDict or an ArrayRecord: `{"name": "<id>", ...}`. Names are UTF-8.
std::string WriteNames(const Ordered<ObjectId>& names);
std::string WriteArray(const ArrayBody& array);

/// errors  kInvalidArgument: not JSON, of another form, a name twice; kResourceExhausted.
Result<Ordered<ObjectId>> ReadNames(std::string_view json, Budget& budget);
Result<ArrayBody> ReadArray(std::string_view json, Budget& budget);

}  // namespace umbel::flower
