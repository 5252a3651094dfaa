#include "clientapp/answer.h"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>
#include <typeinfo>

#include "base/utf8.h"
#include "supernode/host.h"

namespace umbel::clientapp {
namespace {

using flower::MessageError;

constexpr size_t kTextMax = 4096;

MessageError Raised(std::string_view type, std::string_view text) {
  const std::string_view part = text.substr(0, kTextMax);
  const std::string_view whole = part.substr(0, WholeCharacters(part));
  return {static_cast<int64_t>(supernode::ReplyError::kRaised),
          ValidUtf8(fmt::format("<class '{}'>:<'{}'>", type, whole))};
}

MessageError Raised(const Error& error) { return Raised("umbel::Error", error.ToString()); }

/// Of the exception that is being handled.
std::string TypeName() {
  const std::type_info* const type = abi::__cxa_current_exception_type();
  if (type == nullptr) return "unknown";
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(type->name(), nullptr, nullptr, &status), &std::free);
  return name ? name.get() : type->name();
}

const Handler* Find(const ClientApp& app, std::string_view type) {
  if (type == "train") return &app.train;
  if (type == "evaluate") return &app.evaluate;
  if (type == "query") return &app.query;
  const auto found = app.actions.find(std::string(type));
  return found == app.actions.end() ? nullptr : &found->second;
}

}  // namespace

Answer AnswerOf(const ClientApp& app, Message& message, Context& context) {
  std::string_view type = message.type;
  // Flower knows the plain types by this name too.
  if (type.ends_with(".default")) type.remove_suffix(std::string_view(".default").size());
  const Handler* const handler = Find(app, type);
  if (handler == nullptr || !*handler)
    return Raised(Error{Code::kUnimplemented,
                        fmt::format("this ClientApp has no function for '{}'", message.type), 0});
  try {
    auto reply = (*handler)(message, context);
    if (!reply.ok()) return Raised(reply.error());
    return *std::move(reply);
  } catch (const std::exception& error) {
    return Raised(TypeName(), error.what());
  } catch (...) {
    return Raised(TypeName(), "");
  }
}

}  // namespace umbel::clientapp
