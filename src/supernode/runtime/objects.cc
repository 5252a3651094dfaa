// push-object and pull-object: from the socket to the reply's spool, and from the instruction's
// spool to the socket. Nothing holds a whole large object in memory.
#include "flwr/common.pb.h"
#include "http/tasks.h"
#include "supernode/runtime/push_object.h"
#include "supernode/runtime/reply.h"
#include "supernode/runtime/routes.h"

namespace umbel::supernode {
namespace pb = flwr::proto;
namespace {

constexpr uint64_t kObjectMax = uint64_t{1} << 30;  // chunks are 5 MiB; records may be larger
constexpr size_t kAskMax = 64 * 1024;
constexpr size_t kHashHere = 16 * 1024;  // less is not worth the way to another thread

Task<Status> ReplyStored(Exchange& exchange, bool stored) {
  pb::PushObjectResponse response;
  response.set_stored(stored);
  co_return co_await flower::ReplyMessage(exchange, response);
}

}  // namespace

Task<Status> PushObject(RuntimeDoor& door, Exchange& exchange) {
  UMBEL_CO_TRY(flower::CheckContentType(exchange));
  PushObjectReader reader(exchange);
  UMBEL_CO_TRY(co_await reader.ReadFields());
  UMBEL_CO_ASSIGN(const AppTaskPtr task, TaskOfToken(door, exchange));
  const uint64_t size = reader.content_size();
  if (size > kObjectMax)
    co_return Fail(Code::kResourceExhausted,
                   fmt::format("object_content has {} bytes, more than {}", size, kObjectMax), 413);
  const auto id = ObjectId::FromHex(reader.object_id());
  // The session's name comes after the content: until then, any session will do.
  const std::shared_ptr<ReplyIntake> reply = task->reply;
  const bool wanted = reply && id.ok() && reply->Check(*id, "") == ReplyIntake::Upload::kWanted;
  ObjectIntake intake(wanted ? reply : nullptr, size);
  Status written;
  for (;;) {
    auto next = co_await reader.NextPiece();
    if (!next.ok()) co_return Fail(next.error());
    const std::span<const char> piece = *next;
    if (piece.empty()) break;
    Status added;
    if (piece.size() < kHashHere) {
      added = intake.Add(piece);
    } else {
      auto add = [&intake, piece] { return intake.Add(piece); };
      added = co_await http::RunOn(door.tasks().pool(), std::move(add));
    }
    if (!added.ok() && written.ok()) written = added;  // a full disk: not to be tried for ever
  }
  UMBEL_CO_TRY(co_await reader.ReadRest());
  if (task->state != TaskState::kRunning) co_return co_await ReplyStored(exchange, false);
  ReplyIntake::Upload upload = ReplyIntake::Upload::kRefused;
  if (reply && id.ok() && intake.Matches(*id)) upload = reply->Check(*id, reader.session_id());
  if (written.ok() && wanted && upload == ReplyIntake::Upload::kWanted) written = intake.Keep(*id);
  const bool stored = written.ok() && upload != ReplyIntake::Upload::kRefused;
  if (!written.ok()) {
    task->refused = written.error().message;
  } else if (!stored) {
    task->refused = fmt::format("object '{}' is not wanted, or not what its name says",
                                reader.object_id().substr(0, 80));
  }
  co_return co_await ReplyStored(exchange, stored);
}

Task<Status> PullObject(RuntimeDoor& door, Exchange& exchange) {
  pb::PullObjectRequest request;
  UMBEL_CO_ASSIGN(const AppTaskPtr task, co_await ReadFor(door, exchange, &request, kAskMax));
  pb::PullObjectResponse response;
  const auto id = ObjectId::FromHex(request.object_id());
  const std::shared_ptr<flower::Spool> spool = task->job ? task->job->instruction.objects : nullptr;
  const flower::StoredObject* object = spool && id.ok() ? spool->Find(*id) : nullptr;
  response.set_object_found(object != nullptr);
  response.set_object_available(object != nullptr);
  if (object == nullptr) co_return co_await flower::ReplyMessage(exchange, response);
  std::string prefix = response.SerializeAsString();
  prefix.push_back('\x1a');  // field 3, length-delimited: object_content
  for (uint64_t rest = object->size();; rest >>= 7) {
    const bool more = rest >= 0x80;
    prefix.push_back(static_cast<char>((rest & 0x7f) | (more ? 0x80 : 0)));
    if (!more) break;
  }
  prefix += object->head;
  co_return co_await exchange.ReplyFile(std::string(flower::kProtobuf), std::move(prefix),
                                        spool->fd(), object->body.offset, object->body.size);
}

}  // namespace umbel::supernode
