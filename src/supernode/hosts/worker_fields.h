// A map of the worker protocol, read by its keys. Belongs to one thread.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "supernode/hosts/worker_value.h"

namespace umbel::supernode {

/// "<where>: '<key>' <rule>"
tl::unexpected<Error> BadField(std::string_view where, std::string_view key, std::string_view rule);

class Fields {
 public:
  /// where  what the map is, for errors.
  static Result<Fields> Of(Value value, std::string where);

  // errors  kInvalidArgument: the key is missing, or its value is of another type or out of range.
  // What has been taken is gone from the map.
  Result<Value> Take(std::string_view key);
  Result<std::string> TakeText(std::string_view key);
  Result<bool> TakeBool(std::string_view key);
  Result<int64_t> TakeInteger(std::string_view key);
  Result<uint64_t> TakeUnsigned(std::string_view key);
  Result<int> TakeInt(std::string_view key, int64_t min);
  /// An integer passes, as in Python.
  Result<double> TakeNumber(std::string_view key);

  const std::string& where() const { return where_; }
  void Rename(std::string where) { where_ = std::move(where); }

 private:
  Fields(Value::Map map, std::string where) : map_(std::move(map)), where_(std::move(where)) {}

  Value::Map map_;
  std::string where_;
};

}  // namespace umbel::supernode
