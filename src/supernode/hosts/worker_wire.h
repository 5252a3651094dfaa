// What the node and its Python workers say to each other: docs/worker-protocol.md. Functions and
// values; safe from any thread.
//
// A worker runs a stranger's code: ids, pids and texts here are what it says, no more. Every reader
// has these errors: kInvalidArgument names the key and what is wrong there; kResourceExhausted.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>

#include "base/ids.h"
#include "base/result.h"
#include "flower/config.h"
#include "flower/records.h"
#include "supernode/hosts/worker_value.h"

namespace umbel::supernode {

using flower::ConfigMap;
using flower::ConfigScalar;

inline constexpr int64_t kWorkerProtocol = 2;

// -- values

Value RecordsToValue(const flower::RecordDict& records);
/// Kinds of numbers and lists as Flower chooses them: an integer above 2^63 - 1 makes its list one
/// of uint64; an empty list is of floats in metrics and of bools in a config.
/// file_end  pieces end here at the latest, and all together are no longer than that.
Result<flower::RecordDict> RecordsFromValue(Value value, uint64_t file_end);

Value HeadToValue(const flower::MessageHead& head);
Value ConfigToValue(const ConfigMap& config);
Result<ConfigMap> ConfigFromValue(const Value& value);

// -- what the worker says on the control socket

/// errors  kFailedPrecondition: it speaks another protocol.
struct Ready {
  pid_t pid = 0;
  std::string python;  // "3.11.2"
  std::string flwr;    // "1.41.0"
};
struct Unfit {
  std::string reason;
};
struct Loaded {
  bool fork = false;
  std::string why;
};
struct LoadFailed {
  int64_t code = 0;
  std::string reason;
  std::string traceback;
};
struct Forked {
  uint64_t id = 0;
  pid_t pid = 0;
};
struct Exited {
  uint64_t id = 0;
  pid_t pid = 0;   // 0: it never began
  int status = 0;  // of waitpid
};
using ControlFrame = std::variant<Ready, Unfit, Loaded, LoadFailed, Forked, Exited>;
Result<ControlFrame> ReadControlFrame(std::string_view payload);

// -- what a child says on its job socket

/// Pieces of content and state lie in the output file, before out_end.
struct Reply {
  flower::MessageHead head;  // as the app made it; run_id, message_id and task ids are empty
  flower::RecordDict content;
  flower::RecordDict state;
  double runtime_seconds = 0;
  uint64_t out_end = 0;
};
struct AppError {
  int64_t code = 0;
  std::string reason;
  flower::RecordDict state;
  double runtime_seconds = 0;
  uint64_t out_end = 0;
};
struct Nothing {
  flower::RecordDict state;
  double runtime_seconds = 0;
  uint64_t out_end = 0;
};
using JobFrame = std::variant<Reply, AppError, Nothing>;
/// out_offset  of the call that is answered: out_end is not before it.
Result<JobFrame> ReadJobFrame(std::string_view payload, uint64_t out_offset);

// -- what the node says: whole frames, ready for the socket
// errors  kInvalidArgument: text is not UTF-8; kResourceExhausted: longer than a frame may be.

/// 0 or "": leave as it is.
struct ChildLimits {
  uint64_t uid = 0;
  uint64_t gid = 0;
  uint64_t open_files = 0;
  uint64_t processes = 0;
  uint64_t address_space = 0;
  uint64_t file_bytes = 0;
  std::string cwd;
};

/// environment  a folder whose packages come first; "": none.
Result<std::string> LoadFrame(std::string_view directory, std::string_view ref,
                              std::string_view app, std::string_view environment);
/// With descriptors [job socket, output].
Result<std::string> ForkFrame(uint64_t id, const ChildLimits& limits);
Result<std::string> ServeFrame(uint64_t id, const ChildLimits& limits);
Result<std::string> StopFrame();

/// Pieces of content and state lie in the input file.
struct Call {
  const flower::MessageHead& message;
  const flower::RecordDict& content;
  NodeId node_id;
  SeriesId series_id;
  const ConfigMap& node_config;
  const ConfigMap& run_config;
  const flower::RecordDict& state;
  uint64_t out_offset = 0;
};
/// With descriptors [input, output file].
Result<std::string> CallFrame(const Call& call);

}  // namespace umbel::supernode
