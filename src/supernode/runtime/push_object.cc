#include "supernode/runtime/push_object.h"

#include <algorithm>

#include "flower/errors.h"
#include "flwr/common.pb.h"

namespace umbel::supernode {
namespace {

constexpr size_t kPiece = size_t{256} << 10;  // stays in a core's cache between recv and hash
constexpr size_t kFieldsMax = 64 * 1024;      // all fields but the content
constexpr uint64_t kContentField = 4;

struct Varint {
  uint64_t value = 0;
  size_t size = 0;  // 0: not complete
};

Varint ReadVarint(std::string_view bytes) {
  Varint out;
  for (size_t i = 0; i < bytes.size() && i < 10; ++i) {
    const auto byte = static_cast<uint8_t>(bytes[i]);
    out.value |= static_cast<uint64_t>(byte & 0x7f) << (7 * i);
    if ((byte & 0x80) == 0) {
      out.size = i + 1;
      return out;
    }
  }
  return out;
}

tl::unexpected<Error> NotARequest() {
  return flower::WireError(flower::wire::kBadProtobuf, "the body is not a PushObjectRequest");
}

}  // namespace

FieldStart FindField(std::string_view bytes, uint64_t number) {
  FieldStart out;
  size_t at = 0;
  while (at < bytes.size()) {
    const Varint tag = ReadVarint(bytes.substr(at));
    if (tag.size == 0) {
      out.broken = bytes.size() - at >= 10;
      return out;
    }
    const size_t value_at = at + tag.size;
    const uint64_t wire_type = tag.value & 7;
    size_t size = 0;
    if (wire_type == 2) {
      const Varint length = ReadVarint(bytes.substr(value_at));
      if (length.size == 0) return out;
      if (tag.value >> 3 == number) {
        out.fields_end = at;
        out.begin = value_at + length.size;
        out.size = length.value;
        out.found = true;
        return out;
      }
      if (length.value > bytes.size()) return out;
      size = length.size + static_cast<size_t>(length.value);
    } else if (wire_type == 0) {
      size = ReadVarint(bytes.substr(value_at)).size;
      if (size == 0) return out;
    } else if (wire_type == 1 || wire_type == 5) {
      size = wire_type == 1 ? 8 : 4;
    } else {
      out.broken = true;
      return out;
    }
    at = value_at + size;
  }
  return out;
}

http::Task<Result<size_t>> PushObjectReader::Fill(size_t from, size_t size) {
  size_t filled = from;
  while (!ended_ && filled < size) {
    UMBEL_CO_ASSIGN(const size_t got,
                    co_await exchange_.ReadSome({piece_.data() + filled, size - filled}));
    ended_ = got == 0;
    filled += got;
  }
  co_return filled;
}

http::Task<Status> PushObjectReader::ReadFields() {
  UMBEL_CO_TRY(co_await exchange_.Reserve(kPiece));
  piece_.resize(kPiece);
  while (!start_.found && !start_.broken && !ended_ && filled_ < piece_.size()) {
    UMBEL_CO_ASSIGN(const size_t got, co_await exchange_.ReadSome(
                                          {piece_.data() + filled_, piece_.size() - filled_}));
    ended_ = got == 0;
    filled_ += got;
    start_ = FindField({piece_.data(), filled_}, kContentField);
  }
  if (start_.broken || (!start_.found && !ended_) || start_.fields_end > kFieldsMax)
    co_return NotARequest();
  fields_.assign(piece_, 0, start_.found ? start_.fields_end : filled_);
  at_ = start_.found ? start_.begin : filled_;
  left_ = start_.size;
  flwr::proto::PushObjectRequest request;
  if (!request.ParseFromString(fields_)) co_return NotARequest();
  object_id_ = request.object_id();
  co_return Status{};
}

http::Task<Result<std::span<const char>>> PushObjectReader::NextPiece() {
  if (left_ > 0 && at_ == filled_) {
    UMBEL_CO_ASSIGN(
        filled_, co_await Fill(0, static_cast<size_t>(std::min<uint64_t>(left_, piece_.size()))));
    at_ = 0;
    if (filled_ == 0)
      co_return flower::WireError(flower::wire::kBadProtobuf,
                                  fmt::format("object_content ends {} bytes early", left_));
  }
  const size_t take = static_cast<size_t>(std::min<uint64_t>(left_, filled_ - at_));
  const std::span<const char> bytes(piece_.data() + at_, take);
  at_ += take;
  left_ -= take;
  co_return bytes;
}

http::Task<Status> PushObjectReader::ReadRest() {
  fields_.append(piece_, at_, filled_ - at_);
  while (!ended_) {
    if (fields_.size() > 2 * kFieldsMax) co_return NotARequest();
    UMBEL_CO_ASSIGN(const size_t got, co_await exchange_.ReadSome(piece_));
    ended_ = got == 0;
    fields_.append(piece_, 0, got);
  }
  flwr::proto::PushObjectRequest request;
  if (!request.ParseFromString(fields_) || !request.object_content().empty())
    co_return NotARequest();
  // The last of a field counts, as in any protobuf; the bytes were taken for the first's.
  if (request.object_id() != object_id_) co_return NotARequest();
  session_id_ = request.session_id();
  co_return Status{};
}

}  // namespace umbel::supernode
