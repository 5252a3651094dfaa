// A PushObjectRequest read as it arrives: its content, which may be large, a piece at a time.
// Belongs to the coroutine that reads it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/exchange.h"

namespace umbel::supernode {

/// Where field `number`, a text or bytes, begins in a serialized message, if within `bytes`.
struct FieldStart {
  size_t fields_end = 0;  // the fields before it are [0, fields_end)
  size_t begin = 0;
  uint64_t size = 0;
  bool found = false;
  bool broken = false;
};
FieldStart FindField(std::string_view bytes, uint64_t number);

class PushObjectReader {
 public:
  explicit PushObjectReader(http::Exchange& exchange) : exchange_(exchange) {}

  /// Everything before the content, which Flower's own clients send fourth of five.
  /// errors  kBadProtobuf; those of Exchange::ReadSome and Reserve.
  http::Task<Status> ReadFields();
  const std::string& object_id() const { return object_id_; }
  uint64_t content_size() const { return start_.size; }

  /// The content's next bytes, valid until the next call; empty at its end.
  /// errors  kBadProtobuf: it ends early.
  http::Task<Result<std::span<const char>>> NextPiece();

  /// What follows the content.
  http::Task<Status> ReadRest();
  const std::string& session_id() const { return session_id_; }

 private:
  /// Fills the piece from `from` on as far as there are bytes, up to `size` of them.
  http::Task<Result<size_t>> Fill(size_t from, size_t size);

  http::Exchange& exchange_;
  std::string piece_;
  size_t filled_ = 0;
  size_t at_ = 0;
  bool ended_ = false;
  FieldStart start_;
  uint64_t left_ = 0;
  std::string fields_;  // without the content
  std::string object_id_;
  std::string session_id_;
};

}  // namespace umbel::supernode
