// Protobuf messages as the bytes that Flower hashes. Functions; safe from any thread.
#pragma once

#include <string>

namespace google::protobuf {
class MessageLite;
}

namespace umbel::flower {

/// Map entries in order of their keys.
std::string SerializeDeterministic(const google::protobuf::MessageLite& message);

}  // namespace umbel::flower
