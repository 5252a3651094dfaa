// One call of a ClientApp, and what came of it. Functions; safe from any thread.
#pragma once

#include <variant>

#include "clientapp/client_app.h"
#include "flower/records.h"

namespace umbel::clientapp {

/// The reply's content, or the error in the form that Flower gives to Python's exceptions:
/// "<class 'std::runtime_error'>:<'text'>", with code 2.
using Answer = std::variant<RecordDict, flower::MessageError>;

/// Calls the function that the message's type asks for. No exception leaves.
Answer AnswerOf(const ClientApp& app, Message& message, Context& context);

}  // namespace umbel::clientapp
