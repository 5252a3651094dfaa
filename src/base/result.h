// Result<T>: a value or an Error, and the macros that pass errors up. Safe from any thread.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <type_traits>
#include <utility>

namespace umbel {

/// gRPC's canonical codes: what went wrong, in words every door can translate.
enum class Code {
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
};

std::string_view CodeName(Code code);

/// What failed. `message` names the thing, its value and the rule. `wire_code` is the peer
/// protocol's own number for it (Flower's ApiErrorCode), 0 when it has none.
struct Error {
  Code code = Code::kUnknown;
  std::string message;
  int wire_code = 0;

  std::string ToString() const { return fmt::format("{}: {}", CodeName(code), message); }
};

template <typename T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
 public:
  using tl::expected<T, Error>::expected;
  Result(tl::unexpected<Error> error) : tl::expected<T, Error>(std::move(error)) {}

  bool ok() const { return this->has_value(); }
};

using Status = Result<void>;

inline tl::unexpected<Error> Fail(Code code, std::string message, int wire_code = 0) {
  return tl::unexpected<Error>(Error{code, std::move(message), wire_code});
}
inline tl::unexpected<Error> Fail(Error error) { return tl::unexpected<Error>(std::move(error)); }

/// Ends the process: one of our own invariants does not hold.
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);

}  // namespace umbel

#define UMBEL_CONCAT_INNER(a, b) a##b
#define UMBEL_CONCAT(a, b) UMBEL_CONCAT_INNER(a, b)

#define UMBEL_CHECK(condition) \
  ((condition) ? void(0) : ::umbel::CheckFailed(#condition, __FILE__, __LINE__))

/// Evaluates a Status or Result; on error returns that error from the enclosing function.
#define UMBEL_TRY(...) UMBEL_TRY_WITH(return, UMBEL_CONCAT(umbel_try_, __LINE__), __VA_ARGS__)
#define UMBEL_CO_TRY(...) UMBEL_TRY_WITH(co_return, UMBEL_CONCAT(umbel_try_, __LINE__), __VA_ARGS__)
#define UMBEL_TRY_WITH(ret, name, ...)                                                            \
  do {                                                                                            \
    if (auto name = (__VA_ARGS__); !name.has_value()) ret ::umbel::Fail(std::move(name).error()); \
  } while (false)

/// UMBEL_ASSIGN(auto x, Make()): declares x from the value, or returns the error.
#define UMBEL_ASSIGN(declaration, ...) \
  UMBEL_ASSIGN_WITH(return, UMBEL_CONCAT(umbel_assign_, __LINE__), declaration, __VA_ARGS__)
#define UMBEL_CO_ASSIGN(declaration, ...) \
  UMBEL_ASSIGN_WITH(co_return, UMBEL_CONCAT(umbel_assign_, __LINE__), declaration, __VA_ARGS__)
#define UMBEL_ASSIGN_WITH(ret, name, declaration, ...)               \
  auto name = (__VA_ARGS__);                                         \
  if (!name.has_value()) ret ::umbel::Fail(std::move(name).error()); \
  declaration = std::move(*name)
