// push-object and pull-object: one pass from the socket to the spool, and back from the spool to
// the socket. An object is hashed while it arrives; nothing holds a whole large one in memory.
#include <algorithm>

#include "base/log.h"
#include "flwr/common.pb.h"
#include "superlink/door.h"
#include "tensor/object.h"

namespace umbel::superlink {
namespace pb = flwr::proto;
namespace {

constexpr size_t kInlineMax = size_t{64} << 10;     // smaller objects live in the database
constexpr size_t kFirstPiece = 4096;                // of a request: all its fields but the content
constexpr size_t kPiece = size_t{256} << 10;        // stays in a core's cache between recv and hash
constexpr uint64_t kObjectMax = uint64_t{1} << 30;  // chunks are 5 MiB; records may be larger
constexpr size_t kFieldsMax = 64 * 1024;            // all fields but the content
constexpr std::chrono::seconds kLookAgain{20};      // whoever waits for room is still there

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

/// Where object_content begins in a serialized request, if it begins within `bytes`.
struct ContentStart {
  size_t fields_end = 0;  // the fields before it are [0, fields_end)
  size_t begin = 0;
  uint64_t size = 0;
  bool found = false;
  bool broken = false;
};

ContentStart FindContent(std::string_view bytes) {
  ContentStart out;
  size_t at = 0;
  while (at < bytes.size()) {
    const Varint tag = ReadVarint(bytes.substr(at));
    if (tag.size == 0) return out;
    const size_t value_at = at + tag.size;
    const uint64_t wire_type = tag.value & 7;
    if (wire_type == 2) {
      const Varint length = ReadVarint(bytes.substr(value_at));
      if (length.size == 0) return out;
      if (tag.value >> 3 == 4) {
        out.fields_end = at;
        out.begin = value_at + length.size;
        out.size = length.value;
        out.found = true;
        return out;
      }
      if (length.value > bytes.size()) return out;
      at = value_at + length.size + static_cast<size_t>(length.value);
    } else if (wire_type == 0) {
      const Varint value = ReadVarint(bytes.substr(value_at));
      if (value.size == 0) return out;
      at = value_at + value.size;
    } else if (wire_type == 1 || wire_type == 5) {
      at = value_at + (wire_type == 1 ? 8 : 4);
    } else {
      out.broken = true;
      return out;
    }
  }
  return out;
}

/// Takes an object's bytes as they come: hashes them, checks the head, spools them.
class Intake {
 public:
  Intake(Site& site, RunId run_id, uint64_t size, bool keep)
      : site_(site), run_id_(run_id), size_(size), keep_(keep) {
    if (size_ >= kInlineMax) transfer_.emplace(site.hashes);
  }
  ~Intake() {
    if (extent_) site_.engine.segments().Free(*extent_);
  }
  Intake(const Intake&) = delete;
  Intake& operator=(const Intake&) = delete;

  Status Begin() {
    if (!keep_ || size_ < kInlineMax) return {};
    UMBEL_ASSIGN(extent_, site_.engine.segments().Allocate(run_id_, size_));
    return {};
  }

  /// The next bytes, hashed and stored. They are borrowed meanwhile.
  Task<Status> Add(std::span<const char> bytes) {
    const std::string_view view(bytes.data(), bytes.size());
    if (transfer_) {
      co_await transfer_->Add(hash_, view);
    } else {
      const tensor::HashPiece alone{&hash_, view, nullptr};
      tensor::HashPieces({&alone, 1});
    }
    if (!head_known_ && !malformed_) ReadHead(view);
    if (extent_) {
      UMBEL_CO_TRY(site_.engine.segments().Write(*extent_, taken_, bytes));
    } else if (keep_) {
      small_.append(bytes.data(), bytes.size());
    }
    taken_ += bytes.size();
    co_return Status();
  }

  /// Whether all bytes came, form an object, and are the one that was announced.
  bool Matches(const ObjectId& id) {
    if (taken_ != size_ || !head_known_ || malformed_) return false;
    Digest digest;
    const tensor::HashPiece last{&hash_, {}, &digest};
    tensor::HashPieces({&last, 1});
    return digest == id;
  }
  bool malformed() const { return malformed_ || !head_known_; }

  std::string& small() { return small_; }
  std::optional<store::Extent> TakeExtent() { return std::exchange(extent_, std::nullopt); }

 private:
  void ReadHead(std::string_view bytes) {
    // The head is in the first piece but for records of thousands of entries.
    std::string_view prefix = bytes;
    if (!head_.empty() || taken_ > 0) {
      head_.append(bytes);
      if (head_.size() < next_try_) return;
      prefix = head_;
    }
    const auto head = tensor::ParseObjectHead(prefix);
    if (!head.ok()) {
      malformed_ = true;
    } else if (*head) {
      head_known_ = true;
      malformed_ = (*head)->head_size + (*head)->body_size != size_;
    } else {
      if (head_.empty()) head_.assign(bytes);
      next_try_ = std::min<uint64_t>(size_, prefix.size() * 2);
      return;
    }
    head_.clear();
    head_.shrink_to_fit();
  }

  Site& site_;
  const RunId run_id_;
  const uint64_t size_;
  const bool keep_;
  tensor::HashStream hash_;
  std::optional<HashQueue::Transfer> transfer_;  // of one that is not small
  std::optional<store::Extent> extent_;
  std::string small_;
  std::string head_;
  uint64_t next_try_ = 0;
  uint64_t taken_ = 0;
  bool head_known_ = false;
  bool malformed_ = false;
};

Task<Status> ReplyStored(Exchange& exchange, bool stored) {
  pb::PushObjectResponse response;
  response.set_stored(stored);
  co_return co_await ReplyMessage(exchange, response);
}

/// Makes the object durable, then visible.
Task<Status> Store(Site& site, Exchange& exchange, ObjectCaller caller, const ObjectId& id,
                   const std::string& session_id, uint64_t size, Intake& intake, bool keep) {
  Engine& engine = site.engine;
  uint64_t number = 0;
  if (keep) {
    store::ObjectRow row;
    row.run_id = caller.run_id;
    row.object_id = id;
    row.size = size;
    ExtentPtr extent;
    if (const auto taken = intake.TakeExtent()) {
      extent = engine.OwnExtent(*taken);
      row.segment = taken->segment;
      row.offset = taken->offset;
      if (engine.sync_files()) {
        auto sync = [&engine, extent] { return engine.segments().Sync(*extent); };
        const Status synced = co_await OnPool(site, exchange, std::move(sync));
        UMBEL_CO_TRY(synced);
      }
    } else {
      row.content = std::move(intake.small());
    }
    auto [kept, commit] = engine.Apply([&](State& state, WallTime, Changes& changes) {
      Run* run = state.FindRun(caller.run_id);
      return run ? state.KeepObject(*run, std::move(row), std::move(extent), changes) : 0;
    });
    number = kept;
    if (number == 0) co_return co_await ReplyStored(exchange, false);
    UMBEL_CO_TRY(co_await Durable(exchange, commit));
  }
  const bool stored = engine.Read([&](State& state, WallTime now) {
    Run* run = state.FindRun(caller.run_id);
    if (!run || !state.ObjectStored(*run, caller.owner, id, session_id, number, now)) return false;
    if (caller.owner != kSuperLinkNode) run->traffic.bytes_recv += size;
    return true;
  });
  if (!stored) co_return co_await ReplyStored(exchange, false);
  ++site.metrics.objects_received;
  site.metrics.object_bytes_received += size;
  co_return co_await ReplyStored(exchange, true);
}

/// Native training takes so many replies at once as its disk may hold: others are not read on.
Task<Status> AwaitRoom(Site& site, Exchange& exchange, ObjectCaller caller) {
  for (;;) {
    const bool let_in = site.engine.Read([&](State& state, WallTime now) {
      Run* run = state.FindRun(caller.run_id);
      return !run || state.LetIn(*run, caller.owner, exchange.waker(), now);
    });
    if (let_in) co_return Status();
    const auto deadline = std::chrono::steady_clock::now() + kLookAgain;
    const http::HoldEnd end = co_await exchange.Hold(deadline, false);
    if (end == http::HoldEnd::kGone) co_return Fail(Code::kCancelled, "the peer is gone");
    if (end == http::HoldEnd::kStopping)
      co_return Fail(Code::kUnavailable, "the SuperLink is stopping", 503);
  }
}

}  // namespace

Task<Status> ReceiveObject(Site& site, Exchange& exchange, Authorize authorize) {
  UMBEL_CO_TRY(CheckContentType(exchange));
  // What waits for room holds no more than this.
  UMBEL_CO_TRY(co_await exchange.Reserve(kFirstPiece));
  std::string piece(kFirstPiece, '\0');
  size_t filled = 0;
  ContentStart start;
  bool ended = false;
  // The first bytes: everything up to the content, which Flower's own clients send fourth of five.
  while (!start.found && !start.broken && !ended && filled <= kFieldsMax) {
    if (filled == piece.size()) {
      UMBEL_CO_TRY(co_await exchange.Reserve(piece.size()));
      piece.resize(2 * piece.size());
    }
    UMBEL_CO_ASSIGN(const size_t got,
                    co_await exchange.ReadSome({piece.data() + filled, piece.size() - filled}));
    ended = got == 0;
    filled += got;
    start = FindContent({piece.data(), filled});
  }
  if (start.broken || (!start.found && !ended) || start.fields_end > kFieldsMax)
    co_return WireError(wire::kBadProtobuf, "the body is not a PushObjectRequest");
  pb::PushObjectRequest request;
  const std::string_view fields(piece.data(), start.found ? start.fields_end : filled);
  if (!request.ParseFromArray(fields.data(), static_cast<int>(fields.size())))
    co_return WireError(wire::kBadProtobuf, "the body is not a PushObjectRequest");
  UMBEL_CO_ASSIGN(const ObjectCaller caller,
                  co_await authorize(request.node().node_id(), request.run_id()));
  if (start.size > kObjectMax)
    co_return Fail(Code::kResourceExhausted,
                   fmt::format("object_content has {} bytes, more than {}", start.size, kObjectMax),
                   413);
  const auto id = ObjectId::FromHex(request.object_id());
  // The session's name comes after the content: until then, whoever lists the object will do.
  const State::Upload early =
      !id.ok() ? State::Upload::kRefused : site.engine.Read([&](State& state, WallTime now) {
        const Run* run = state.FindRun(caller.run_id);
        return run ? state.CheckUpload(*run, caller.owner, *id, "", now) : State::Upload::kRefused;
      });
  const bool keep = early == State::Upload::kWanted;
  if (keep && start.size >= kInlineMax) UMBEL_CO_TRY(co_await AwaitRoom(site, exchange, caller));
  if (start.size > piece.size()) {
    UMBEL_CO_TRY(co_await exchange.Reserve(kPiece - piece.size()));
    piece.resize(kPiece);
  }
  Intake intake(site, caller.run_id, start.size, keep);
  UMBEL_CO_TRY(intake.Begin());
  uint64_t left = start.size;
  size_t at = start.begin;
  while (left > 0) {
    if (at == filled) at = filled = 0;
    // Whole pieces: those that are hashed side by side should be of one length.
    const size_t take = static_cast<size_t>(std::min<uint64_t>(left, piece.size() - at));
    while (filled - at < take) {
      UMBEL_CO_ASSIGN(const size_t got,
                      co_await exchange.ReadSome({piece.data() + filled, piece.size() - filled}));
      if (got == 0)
        co_return WireError(wire::kBadProtobuf,
                            fmt::format("object_content ends {} bytes early",
                                        left - static_cast<uint64_t>(filled - at)));
      filled += got;
    }
    UMBEL_CO_TRY(co_await intake.Add({piece.data() + at, take}));
    at += take;
    left -= take;
  }
  std::string tail(piece.data() + at, filled - at);
  while (!ended) {
    UMBEL_CO_ASSIGN(const size_t got, co_await exchange.ReadSome(piece));
    ended = got == 0;
    tail.append(piece.data(), got);
    if (tail.size() > kFieldsMax)
      co_return WireError(wire::kBadProtobuf, "the body is not a PushObjectRequest");
  }
  if (!request.MergeFromString(tail) || !request.object_content().empty())
    co_return WireError(wire::kBadProtobuf, "the body is not a PushObjectRequest");
  if (!id.ok() || !intake.Matches(*id)) co_return co_await ReplyStored(exchange, false);
  const State::Upload upload = site.engine.Read([&](State& state, WallTime now) {
    const Run* run = state.FindRun(caller.run_id);
    return run ? state.CheckUpload(*run, caller.owner, *id, request.session_id(), now)
               : State::Upload::kRefused;
  });
  if (upload == State::Upload::kRefused) co_return co_await ReplyStored(exchange, false);
  if (upload == State::Upload::kWanted && !keep)  // it was here when this began; it is not now
    co_return Fail(Code::kUnavailable, "the object is wanted after all; send it again", 503);
  co_return co_await Store(site, exchange, caller, *id, request.session_id(), start.size, intake,
                           keep);
}

Task<Status> SendObject(Site& site, Exchange& exchange, ObjectCaller caller,
                        const std::string& object_id) {
  struct Found {
    bool found = false;
    bool available = false;
    uint64_t size = 0;
    ExtentPtr extent;
    std::string content;
    bool made_here = false;
  };
  Engine& engine = site.engine;
  const auto id = ObjectId::FromHex(object_id);
  auto [object, commit] = engine.Apply([&](State& state, WallTime, Changes& changes) {
    Found out;
    Run* run = state.FindRun(caller.run_id);
    if (!run || !id.ok()) return out;
    const auto slot = run->objects.find(*id);
    if (slot == run->objects.end()) return out;
    out.found = true;
    out.available = slot->second.available;
    out.size = slot->second.size;
    out.extent = slot->second.extent;
    if (const auto made = run->made_objects.find(*id); made != run->made_objects.end()) {
      out.content = made->second;
      out.made_here = true;
    }
    if (caller.owner != kSuperLinkNode) {
      state.TouchInstruction(*run, caller.owner, *id, changes);
      if (out.available) run->traffic.bytes_sent += out.size;
    }
    return out;
  });
  static_cast<void>(commit);  // a lost touch means one delivery more, of the same message
  pb::PullObjectResponse response;
  response.set_object_found(object.found);
  response.set_object_available(object.available);
  if (!object.available) co_return co_await ReplyMessage(exchange, response);
  ++site.metrics.objects_sent;
  site.metrics.object_bytes_sent += object.size;
  if (object.extent) {
    auto file = engine.segments().File(*object.extent);
    if (!file.ok()) co_return Fail(file.error());
    std::string prefix = response.SerializeAsString();
    prefix.push_back('\x1a');  // field 3, length-delimited: object_content
    for (uint64_t rest = object.size;; rest >>= 7) {
      const bool more = rest >= 0x80;
      prefix.push_back(static_cast<char>((rest & 0x7f) | (more ? 0x80 : 0)));
      if (!more) break;
    }
    co_return co_await exchange.ReplyFile("application/protobuf", std::move(prefix), (*file)->fd(),
                                          object.extent->offset, object.size);
  }
  if (!object.made_here) {
    auto content = co_await OnPool(site, exchange, [&engine, run_id = caller.run_id, id = *id] {
      return engine.store().ReadInline(run_id, id);
    });
    if (!content.ok()) co_return Fail(content.error());
    object.content = std::move(*content);
  }
  response.set_object_content(std::move(object.content));
  co_return co_await ReplyMessage(exchange, response);
}

}  // namespace umbel::superlink
