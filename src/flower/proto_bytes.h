// Protobuf messages as the bytes that Flower hashes. Functions; safe from any thread.
#pragma once

#include <string>

#include "flower/spool.h"

namespace google::protobuf {
class MessageLite;
}
namespace flwr::proto {
class PushObjectRequest;
}

namespace umbel::flower {

/// Map entries in order of their keys.
std::string SerializeDeterministic(const google::protobuf::MessageLite& message);

/// A PushObjectRequest whose content comes last, so that what of the object lies in a file can be
/// sent from there: the bytes before that. `request` has no content.
std::string PushObjectHead(const flwr::proto::PushObjectRequest& request,
                           const StoredObject& object);

}  // namespace umbel::flower
