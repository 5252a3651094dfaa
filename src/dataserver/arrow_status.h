// Arrow's Status and Result as ours, and back, as Flight's clients are to see them. Functions; any
// thread.
#pragma once

#include <arrow/result.h>
#include <arrow/status.h>

#include <exception>
#include <utility>

#include "base/result.h"

namespace umbel::dataserver {

Error FromArrow(const arrow::Status& status);
arrow::Status ToArrow(const Error& error);

inline Status From(const arrow::Status& status) {
  if (status.ok()) return {};
  return Fail(FromArrow(status));
}
template <typename T>
Result<T> From(arrow::Result<T> result) {
  if (result.ok()) return std::move(result).ValueUnsafe();
  return Fail(FromArrow(result.status()));
}
inline arrow::Status To(const Status& status) {
  return status.ok() ? arrow::Status::OK() : ToArrow(status.error());
}

/// Calls into Arrow and Parquet, whose exceptions end here.
template <typename F>
auto Caught(F&& call) -> decltype(call()) {
  try {
    return call();
  } catch (const std::exception& error) {
    return Fail(Code::kInternal, error.what());
  }
}

}  // namespace umbel::dataserver
