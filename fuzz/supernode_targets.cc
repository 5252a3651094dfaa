// Records, and what a worker says.
#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "flower/records.h"
#include "supernode/hosts/worker_wire.h"
#include "targets.h"

namespace umbel::fuzz {
namespace {

constexpr uint64_t kArraysMax = 1 << 20;  // bytes of them that are hashed again

std::shared_ptr<flower::Spool> NewSpool() {
  auto spool = flower::Spool::Create("");
  UMBEL_CHECK(spool.has_value());
  return *std::move(spool);
}

/// Objects, each with two bytes before it: 14 bits of length, one for "in the file", one for "half
/// of it in the file". Their ids are their numbers, so that a mutator can refer to them; the last
/// one is the message.
flower::Parcel ParcelFrom(std::string_view bytes) {
  flower::Parcel parcel;
  parcel.objects = NewSpool();
  ObjectId id;
  for (uint16_t number = 0; bytes.size() >= 2; ++number) {
    uint16_t prefix = 0;
    std::memcpy(&prefix, bytes.data(), sizeof prefix);
    bytes.remove_prefix(sizeof prefix);
    const std::string_view whole = bytes.substr(0, prefix & 0x3fff);
    bytes.remove_prefix(whole.size());
    id.bytes[30] = static_cast<uint8_t>(number >> 8);
    id.bytes[31] = static_cast<uint8_t>(number);
    flower::StoredObject object;
    const size_t inside = (prefix & 0x8000) != 0 ? 0 : whole.size() / ((prefix >> 14) + 1);
    object.head = whole.substr(0, inside);
    object.body = parcel.objects->Append(whole.substr(inside)).value();
    parcel.objects->Add(id, std::move(object));
  }
  parcel.head.message_id = id.Hex();
  return parcel;
}

uint64_t ArrayBytes(const flower::RecordDict& records) {
  uint64_t sum = 0;
  for (const auto& [name, record] : records)
    if (const auto* arrays = std::get_if<flower::ArrayRecord>(&record))
      for (const auto& [key, array] : *arrays) sum += array.size();
  return sum;
}

/// What was read can be said, and is then read as the same.
void CheckSaid(const flower::RecordDict& records, const std::shared_ptr<flower::Spool>& spool) {
  if (ArrayBytes(records) > kArraysMax) return;
  const auto made = flower::MakeParcel({}, records, spool);
  UMBEL_CHECK(made.has_value());
  const auto read = flower::ReadRecords(*made);
  UMBEL_CHECK(read.has_value());
  const auto again = flower::MakeParcel({}, *read, spool);
  UMBEL_CHECK(again.has_value() && again->head.message_id == made->head.message_id);
}

std::string Said(const flower::RecordDict& records) {
  return supernode::EncodeFrame(supernode::RecordsToValue(records)).value();
}

void CheckAnswer(const supernode::JobFrame& frame) {
  std::visit(
      [](const auto& answer) {
        const auto again =
            supernode::RecordsFromValue(supernode::RecordsToValue(answer.state), answer.out_end);
        UMBEL_CHECK(again.has_value() && Said(*again) == Said(answer.state));
        UMBEL_CHECK(ArrayBytes(answer.state) <= answer.out_end);
      },
      frame);
  if (const auto* reply = std::get_if<supernode::Reply>(&frame))
    UMBEL_CHECK(ArrayBytes(reply->content) + ArrayBytes(reply->state) <= reply->out_end);
}

}  // namespace

/// The bytes as the objects of a message, and as a context's state.
void Records(std::string_view bytes) {
  const flower::Parcel parcel = ParcelFrom(bytes);
  const auto records = flower::ReadRecords(parcel);
  UMBEL_CHECK(records.has_value() || !records.error().message.empty());
  if (records.has_value()) CheckSaid(*records, parcel.objects);

  const auto spool = NewSpool();
  const auto state = flower::DecodeState(bytes, *spool);
  if (!state.has_value()) return;
  CheckSaid(*state, spool);
  const auto encoded = flower::EncodeState(*state, *spool);
  UMBEL_CHECK(encoded.has_value());
  const auto again = flower::DecodeState(*encoded, *spool);
  UMBEL_CHECK(again.has_value() && flower::EncodeState(*again, *spool).value() == *encoded);
}

void WorkerFrame(std::string_view bytes) {
  const auto value = supernode::DecodeValue(bytes);
  const auto control = supernode::ReadControlFrame(bytes);
  const auto job = supernode::ReadJobFrame(bytes, 0);
  UMBEL_CHECK(!(control.has_value() && job.has_value()));
  if (!value.has_value()) {
    UMBEL_CHECK(!value.error().message.empty() && !control.has_value() && !job.has_value());
    return;
  }
  const std::string frame = supernode::EncodeFrame(*value).value();
  UMBEL_CHECK(frame.substr(4) == bytes);
  if (job.has_value()) CheckAnswer(*job);
}

}  // namespace umbel::fuzz
