#include "supernode/node.h"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "base/log.h"
#include "base/utf8.h"
#include "flower/errors.h"
#include "flower/node_signer.h"
#include "supernode/parallel.h"
#include "supernode/slots.h"
#include "tensor/tree.h"

namespace umbel::supernode {
namespace wire = flower::wire;
using flower::NodeSigner;
using flower::Parcel;
using flower::Spool;
using Steady = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr double kHeartbeatInterval = 30;  // seconds, Flower's own
constexpr seconds kPollHold{20};
constexpr milliseconds kPollPauseMin{100};  // of a SuperLink that does not hold polls
constexpr milliseconds kPollPauseMax{2000};
constexpr milliseconds kOddAnswerPause{2000};
constexpr seconds kActivatePatience{75};  // a killed node counts as online for up to 60 s
constexpr int kSweepBeats = 180;          // about an hour
constexpr seconds kReconnectEvery{10};
constexpr size_t kInFlight = 16;
constexpr size_t kPendingMax = 64;  // instructions taken and not yet answered
constexpr int kHostTries = 3;
constexpr int kPushTries = 3;

std::string Short(const ObjectId& id) { return id.Hex().substr(0, 12); }

bool IsChunk(const flower::StoredObject& object) {
  return object.head.empty() || object.head.starts_with("ArrayChunk ");
}

/// Whether after this error of the SuperLink's nobody waits for an answer, or none can be given
/// now.
bool EndsSilently(const Error& error) {
  switch (error.code) {
    case Code::kCancelled:
    case Code::kUnavailable:
    case Code::kUnauthenticated:
    case Code::kNotFound:
      return true;
    case Code::kPermissionDenied:  // the run is over
      return error.wire_code != Apps::kRefusedFab;
    default:
      return false;
  }
}

class NodeImpl final : public Node {
 public:
  NodeImpl(Shared& shared, int64_t site, bool own_key, NodeSigner signer, NodeId id,
           ConfigMap node_config, boost::asio::any_io_executor executor)
      : shared_(shared),
        site_(site),
        own_key_(own_key),
        signer_(std::move(signer)),
        fleet_(shared.client, signer_, shared.clock, shared.rng, shared.retry),
        id_(id),
        node_config_(std::move(node_config)),
        executor_(executor),
        changed_(executor),
        beat_(executor) {}

  Task<Status> Run() override {
    Status end = co_await Serve();
    stopping_ = true;
    connected_ = false;
    beat_.cancel();
    fleet_.Close();
    while (live_ > 0) co_await changed_.Wait();
    co_return end;
  }

  Task<void> Stop() override {
    stopping_ = true;
    changed_.Ring();
    beat_.cancel();
    fleet_.Close();
    if (connected_) {
      const Status gone = co_await fleet_.Deactivate(id_);
      if (!gone.ok())
        LogInfo("could not sign off", {{"node_id", id_}, {"error", gone.error().message}});
    }
    connected_ = false;
  }

  NodeId id() const override { return id_; }
  bool connected() const override { return connected_; }
  const NodeCounters& counters() const override { return counters_; }

  std::string Describe() const override {
    nlohmann::json out;
    out["site"] = site_;
    out["node_id"] = id_.value;
    out["connected"] = connected_;
    out["connected_since"] = connected_ ? IsoFormat(connected_since_) : "";
    out["working_on"] = nlohmann::json::array();
    for (const auto& [id, what] : pending_)
      out["working_on"].push_back({{"message_id", id.Hex()}, {"state", what}});
    out["instructions"] = counters_.instructions;
    out["replies"] = counters_.replies;
    out["error_replies"] = counters_.error_replies;
    out["last_error"] = last_error_.empty() ? fleet_.last_error() : last_error_;
    return out.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }

 private:
  /// An instruction that is here, or the reply to one.
  struct Work {
    ObjectId id;
    Parcel parcel;
    std::shared_ptr<const RunInfo> run;  // null for a reply that only has to be sent
    WallTime expires_at;
    double runtime_seconds = 0;
  };

  template <typename F>
  auto Journaled(F f) {
    auto work = [this, f = std::move(f)] { return f(shared_.journal); };
    return http::RunOn(shared_.pool, std::move(work));
  }

  /// A coroutine beside Run(), which waits for it at its end.
  template <typename T>
  void Spawn(T task) {
    ++live_;
    boost::asio::co_spawn(executor_, std::move(task), [this](std::exception_ptr) {
      --live_;
      changed_.Ring();
    });
  }

  // -- the connection

  Task<Status> Serve() {
    UMBEL_CO_TRY(co_await Connect());
    Spawn(Heartbeats());
    UMBEL_CO_TRY(co_await Resume());
    milliseconds pause = kPollPauseMin;
    while (!stopping_) {
      while (!stopping_ && lost_.ok() && pending_.size() >= kPendingMax) co_await changed_.Wait();
      if (stopping_) break;
      if (!lost_.ok()) co_return lost_;
      const auto asked_at = Steady::now();
      auto pulled = co_await fleet_.Pull(id_, kPollHold);
      if (!pulled.ok()) {
        const Error& error = pulled.error();
        if (stopping_ || error.code == Code::kCancelled) break;
        if (error.code == Code::kUnavailable) co_return Fail(error);  // the retry rules end it
        if (error.code == Code::kUnauthenticated) {
          UMBEL_CO_TRY(co_await Reconnect(error));
          continue;
        }
        Note(error);
        co_await fleet_.Pause(kOddAnswerPause);
        continue;
      }
      if (!*pulled) {
        // One that answers at once holds no polls: look again, sooner while there is work about.
        if (Steady::now() - asked_at > seconds(1)) continue;
        pause = pending_.empty() ? std::min(2 * pause, kPollPauseMax) : kPollPauseMin;
        co_await fleet_.Pause(pause);
        continue;
      }
      pause = kPollPauseMin;
      Parcel parcel = std::move(**pulled);
      const std::string name = parcel.head.message_id;
      const Status taken = co_await Take(std::move(parcel));
      if (stopping_) break;
      if (taken.ok()) continue;
      if (taken.error().code == Code::kUnauthenticated) {
        UMBEL_CO_TRY(co_await Reconnect(taken.error()));
      } else if (taken.error().code == Code::kUnavailable) {
        co_return taken;
      } else {
        Note(taken.error());
        LogWarn("an instruction could not be received",
                {{"message_id", name.substr(0, 12)}, {"error", taken.error().message}});
        co_await fleet_.Pause(kPollPauseMin);  // there may be no end of such
      }
    }
    co_return Status{};
  }

  Task<Status> Connect() {
    const auto begin = Steady::now();
    bool said = false, asked = false, renewed = false;
    if (own_key_ && !id_) {
      const Status registered = co_await fleet_.Register();
      if (!registered.ok() && registered.error().wire_code == wire::kRegistrationDisabled)
        co_return Fail(
            Code::kFailedPrecondition,
            "the SuperLink takes only registered SuperNodes: register a key with `flwr "
            "supernode register KEY.pub` and start with --auth-supernode-private-key KEY");
      // A key that is in use is our own, from before the answer was lost.
      if (!registered.ok() && registered.error().wire_code != wire::kPublicKeyInUse)
        co_return registered;
    }
    for (;;) {
      auto activated = co_await fleet_.Activate(kHeartbeatInterval);
      if (activated.ok()) {
        id_ = *activated;
        break;
      }
      if (activated.error().wire_code != wire::kActivateFailed &&
          activated.error().code != Code::kUnauthenticated)
        co_return Fail(std::move(activated).error());
      // Another SuperLink at that address, or one that keeps nothing, has never heard of the key.
      if (own_key_ && id_ && activated.error().wire_code == wire::kActivateFailed &&
          !std::exchange(asked, true)) {
        const Status registered = co_await fleet_.Register();
        if (registered.ok()) continue;
      }
      // It may take a killed node for online still; or the key is burnt.
      const bool patient = id_ && activated.error().wire_code == wire::kActivateFailed &&
                           Steady::now() - begin < kActivatePatience;
      if (!patient) {
        if (!own_key_)
          co_return Fail(
              Code::kUnauthenticated,
              fmt::format("the SuperLink does not take this SuperNode's key ({}): is it "
                          "registered (`flwr supernode list`), and is no other SuperNode "
                          "using it?",
                          activated.error().message));
        if (std::exchange(renewed, true))
          co_return Fail(Code::kUnauthenticated,
                         fmt::format("the SuperLink refuses a key that it has just registered: {}",
                                     activated.error().message));
        UMBEL_CO_TRY(co_await NewKey());
        continue;
      }
      if (!std::exchange(said, true))
        LogInfo("the SuperLink takes this node for online still; waiting for it to lapse",
                {{"node_id", id_}});
      co_await fleet_.Pause(seconds(1));
      if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    }
    const SiteRow row{own_key_ ? signer_.ToPem() : std::string(), id_};
    auto put = [this, row](Journal& journal) { return journal.PutSite(site_, row); };
    UMBEL_CO_TRY(co_await Journaled(std::move(put)));
    if (stopping_) {  // Stop() could not say good-bye yet
      static_cast<void>(co_await fleet_.Deactivate(id_));
      co_return Fail(Code::kCancelled, "stopping");
    }
    connected_ = true;
    connected_since_ = shared_.clock.Now();
    LogInfo("SuperNode is connected", {{"node_id", id_}, {"site", site_}});
    co_return Status{};
  }

  /// The SuperLink knows our key no more: it was restarted without its state, or removed us.
  Task<Status> Reconnect(Error why) {
    connected_ = false;
    if (!own_key_) {
      co_return Fail(Code::kUnauthenticated,
                     fmt::format("the SuperLink does not know this SuperNode's key any more ({}); "
                                 "register it again with `flwr supernode register`",
                                 why.message));
    }
    LogWarn("the SuperLink does not know this node any more; registering anew",
            {{"node_id", id_}, {"error", why.message}});
    // It may say so of every key.
    if (Steady::now() - reconnected_at_ < kReconnectEvery) co_await fleet_.Pause(kReconnectEvery);
    if (stopping_) co_return Fail(Code::kCancelled, "stopping");
    reconnected_at_ = Steady::now();
    signer_ = NodeSigner::Generate();
    id_ = NodeId{};
    co_return co_await Connect();
  }

  Task<Status> NewKey() {
    signer_ = NodeSigner::Generate();
    id_ = NodeId{};
    const Status registered = co_await fleet_.Register();
    co_return registered;
  }

  Task<void> Heartbeats() {
    for (int beat = 1; !stopping_; ++beat) {
      if (beat % kSweepBeats == 0) {
        auto sweep = [now = shared_.clock.Now()](Journal& journal) { return journal.Sweep(now); };
        if (const Status swept = co_await Journaled(std::move(sweep)); !swept.ok())
          Note(swept.error());
      }
      if (connected_) {
        const auto alive = co_await fleet_.Heartbeat(id_, kHeartbeatInterval);
        if (!alive.ok() && alive.error().code != Code::kCancelled) Note(alive.error());
        if (!alive.ok() || !*alive) {
          co_await Beat(seconds(2));  // long before Flower's 60 s are over
          continue;
        }
      }
      const double share = 0.7 + 0.2 * static_cast<double>(shared_.rng.U64() % 1000) / 1000;
      co_await Beat(milliseconds(static_cast<int64_t>((kHeartbeatInterval - 5) * share * 1000)));
    }
  }
  Task<void> Beat(Steady::duration time) {
    if (stopping_) co_return;
    beat_.expires_after(time);
    co_await beat_.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  }

  // -- instructions

  /// Fetches, journals and confirms an instruction, then queues it behind those of its series.
  Task<Status> Take(Parcel parcel) {
    UMBEL_CO_ASSIGN(const ObjectId id, ObjectId::FromHex(parcel.head.message_id));
    const RunId run_id = parcel.head.run_id;
    auto find = [this, id](Journal& journal) { return journal.Find(site_, id); };
    UMBEL_CO_ASSIGN(const auto known, co_await Journaled(std::move(find)));
    if (known && *known != Progress::kSent) {
      // Handed out again: its confirmation was lost. The reply is on its way.
      co_return co_await fleet_.Confirm(id_, run_id, id);
    }
    if (known) {  // the SuperLink has lost the reply it took
      auto forget = [this, id](Journal& journal) { return journal.Forget(site_, id); };
      UMBEL_CO_TRY(co_await Journaled(std::move(forget)));
    }
    ++counters_.instructions;
    LogInfo("instruction", {{"run_id", run_id},
                            {"type", parcel.head.type},
                            {"group", parcel.head.group_id},
                            {"message_id", Short(id)}});
    Work work;
    work.id = id;
    work.expires_at = FromUnixSeconds(parcel.head.created_at + parcel.head.ttl);
    auto run = co_await shared_.apps.RunOf(fleet_, id_, run_id);
    if (!run.ok()) {
      if (stopping_ || EndsSilently(run.error())) co_return Fail(std::move(run).error());
      co_return co_await Refuse(std::move(work), std::move(parcel), run.error());
    }
    work.run = *run;
    shared_.host.Prepare(work.run);
    Mark(id, "fetching");
    Status fetched = co_await Fetch(id, parcel);
    if (fetched.ok()) fetched = co_await Keep(work, parcel);
    if (fetched.ok()) {
      fetched = co_await fleet_.Confirm(id_, run_id, id);
      if (!fetched.ok() && !EndsSilently(fetched.error())) {
        Note(fetched.error());  // all of it is here nevertheless
        fetched = Status{};
      }
    }
    if (!fetched.ok()) {
      const Code code = fetched.error().code;
      // Else a restart goes on.
      if (code != Code::kUnavailable && code != Code::kCancelled && !stopping_)
        co_await Discard(id);
      Unmark(id);
      if (stopping_ || EndsSilently(fetched.error())) co_return fetched;
      co_return co_await Refuse(std::move(work), std::move(parcel), fetched.error());
    }
    work.parcel = std::move(parcel);
    Enqueue(std::move(work));
    co_return Status{};
  }

  Task<Status> Fetch(const ObjectId& id, Parcel& parcel) {
    UMBEL_CO_ASSIGN(const tensor::TreeIds tree, tensor::ParseTree(parcel.tree));
    ::unlink(Path(id, "in").c_str());  // of an attempt that did not end
    UMBEL_CO_ASSIGN(parcel.objects, Spool::Create(Path(id, "in")));
    auto fetch = [&](size_t i) -> Task<Status> {
      UMBEL_CO_ASSIGN(const std::string object,
                      co_await fleet_.PullObject(id_, parcel.head.run_id, tree.ids[i]));
      counters_.bytes_in += object.size();
      co_return parcel.objects->Put(tree.ids[i], object);
    };
    co_return co_await ForEach(tree.ids.size(), kInFlight, std::move(fetch));
  }

  Task<Status> Keep(const Work& work, const Parcel& parcel) {
    InstructionRow row;
    row.site = site_;
    row.message_id = work.id;
    row.run_id = parcel.head.run_id;
    row.series_id = work.run ? work.run->series_id : SeriesId{};
    row.expires_at = work.expires_at;
    row.instruction = {parcel.message, parcel.tree, parcel.objects->Index()};
    auto take = [row = std::move(row)](Journal& journal) { return journal.Take(row); };
    co_return co_await Journaled(std::move(take));
  }

  /// Answers with an error without running anything.
  Task<Status> Refuse(Work work, Parcel parcel, Error why) {
    UMBEL_CO_ASSIGN(parcel.objects, Spool::Create(""));
    UMBEL_CO_ASSIGN(Outcome outcome, MakeRefusal(parcel.head, work.id, std::move(why)));
    UMBEL_CO_TRY(co_await Keep(work, parcel));
    work.parcel = std::move(parcel);
    Mark(work.id, "refusing");
    Spawn(FinishAndSend(std::move(work), std::move(outcome)));
    co_return Status{};
  }

  Result<Outcome> MakeRefusal(const flower::MessageHead& asked, const ObjectId& id, Error why) {
    LogWarn("an instruction is not carried out",
            {{"run_id", asked.run_id}, {"message_id", Short(id)}, {"reason", why.message}});
    if (why.wire_code == Apps::kRefusedFab || why.code == Code::kInvalidArgument)
      return MakeError(asked, id, ReplyError::kInvalidFab, std::move(why.message));
    return MakeError(asked, id, ReplyError::kUnknown,
                     "This site could not receive the instruction: " + why.message);
  }

  void Enqueue(Work work) {
    Mark(work.id, "waiting");
    auto& lane = lanes_[work.run->series_id];
    const SeriesId series = work.run->series_id;
    lane.push_back(std::move(work));
    if (lane.size() == 1) Spawn(Drain(series));
  }

  /// One series: a job after another, since each begins with what the one before has left.
  Task<void> Drain(SeriesId series) {
    auto& lane = lanes_[series];
    while (!lane.empty()) {
      if (!stopping_) co_await WorkOn(lane.front());
      lane.pop_front();
    }
    lanes_.erase(series);
  }

  Task<void> WorkOn(Work& work) {
    co_await shared_.slots.Take();
    if (stopping_) {
      shared_.slots.Give();
      co_return;
    }
    Mark(work.id, "running");
    auto outcome = co_await RunHost(work);
    shared_.slots.Give();
    if (!outcome.ok()) {
      // The run is over; or not even an error can be written down, which the next process may.
      if (!stopping_ && outcome.error().code == Code::kCancelled) co_await Discard(work.id);
      if (outcome.error().code != Code::kCancelled) Note(outcome.error());
      Unmark(work.id);
      co_return;
    }
    co_await FinishAndSend(std::move(work), std::move(*outcome));
  }

  Task<Result<Outcome>> RunHost(Work& work) {
    auto read = [this, series = work.run->series_id](Journal& journal) {
      return journal.ReadContext(site_, series);
    };
    auto state = co_await Journaled(std::move(read));
    if (!state.ok()) {
      Note(state.error());
      co_return MakeError(work.parcel.head, work.id, ReplyError::kUnknown,
                          "This site could not read the context: " + state.error().message);
    }
    Job job{work.run, id_, node_config_, work.parcel, std::move(*state), Path(work.id, "out")};
    Error last;
    for (int attempt = 0; attempt < kHostTries; ++attempt) {
      ::unlink(job.spool_path.c_str());
      auto outcome = co_await shared_.host.Run(job);
      if (outcome.ok() || outcome.error().code == Code::kCancelled || stopping_) co_return outcome;
      last = outcome.error();
      LogWarn("the host failed; trying again",
              {{"message_id", Short(work.id)}, {"error", last.message}});
    }
    Note(last);
    co_return MakeError(work.parcel.head, work.id, ReplyError::kCrashed,
                        "ClientApp stopped responding. " + last.message);
  }

  Result<Outcome> MakeError(const flower::MessageHead& asked, const ObjectId& id, ReplyError code,
                            std::string reason) {
    ::unlink(Path(id, "out").c_str());
    UMBEL_ASSIGN(auto spool, Spool::Create(Path(id, "out")));
    reason = ValidUtf8(reason);  // a SuperLink or a host said it
    Outcome outcome;
    UMBEL_ASSIGN(
        outcome.reply,
        flower::MakeErrorParcel(flower::ReplyHead(asked, UnixSeconds(shared_.clock.Now())),
                                {static_cast<int64_t>(code), std::move(reason)}, std::move(spool)));
    return outcome;
  }

  Task<void> FinishAndSend(Work work, Outcome outcome) {
    const ParcelRow row{outcome.reply.message, outcome.reply.tree, outcome.reply.objects->Index()};
    auto answer = [&](Journal& journal) {
      return journal.Answer(site_, work.id, row, outcome.runtime_seconds,
                            work.run ? work.run->series_id : SeriesId{}, outcome.state);
    };
    const Status kept = co_await Journaled(answer);
    if (!kept.ok()) {
      Note(kept.error());
      LogError("a reply could not be kept", {{"error", kept.error().message}});
      // The context is as it was before: a reply would tell of what is forgotten.
      auto error = MakeError(work.parcel.head, work.id, ReplyError::kUnknown,
                             "This site could not keep the reply: " + kept.error().message);
      if (!error.ok()) {
        Unmark(work.id);
        co_return;
      }
      outcome = std::move(*error);
    }
    if (outcome.reply.error) {
      ++counters_.error_replies;
      LogWarn("the reply is an error", {{"message_id", Short(work.id)},
                                        {"code", outcome.reply.error->code},
                                        {"reason", outcome.reply.error->reason}});
    }
    work.parcel = std::move(outcome.reply);
    work.runtime_seconds = outcome.runtime_seconds;
    co_await SendReply(work);
  }

  Task<void> SendReply(const Work& work) {
    Mark(work.id, "sending");
    Status sent;
    for (int attempt = 0; attempt < kPushTries; ++attempt) {
      sent = co_await Push(work);
      if (sent.ok() || sent.error().code != Code::kAborted) break;
    }
    const Code why = sent.ok() ? Code{0} : sent.error().code;
    if (!sent.ok() && (stopping_ || why == Code::kCancelled || why == Code::kUnavailable ||
                       why == Code::kUnauthenticated)) {
      // Kept for the next process.
      if (!stopping_ && why == Code::kUnavailable) lost_ = sent;
      Unmark(work.id);
      co_return;
    }
    if (sent.ok()) {
      ++counters_.replies;
      LogInfo("reply sent", {{"run_id", work.parcel.head.run_id}, {"message_id", Short(work.id)}});
    } else {
      ++counters_.dropped;
      LogInfo("a reply is not wanted",
              {{"message_id", Short(work.id)}, {"error", sent.error().message}});
    }
    auto done = [this, id = work.id](Journal& journal) { return journal.Sent(site_, id); };
    if (const Status kept = co_await Journaled(std::move(done)); !kept.ok()) Note(kept.error());
    RemoveSpools(work.id);
    Unmark(work.id);
  }

  /// errors  kAborted: the SuperLink let go of what was sent; push again.
  Task<Status> Push(const Work& work) {
    const Parcel& reply = work.parcel;
    UMBEL_CO_ASSIGN(PushReply push,
                    co_await fleet_.PushReplyMessage(id_, reply, work.runtime_seconds));
    // Small ones first: then the SuperLink knows where each chunk belongs when it comes.
    const Spool& spool = *reply.objects;
    for (const ObjectId& id : push.wanted)
      if (spool.Find(id) == nullptr)
        co_return Fail(Code::kDataLoss, fmt::format("the SuperLink asks for {}, which the reply "
                                                    "does not have",
                                                    id.Hex()));
    const auto chunks =
        std::stable_partition(push.wanted.begin(), push.wanted.end(),
                              [&](const ObjectId& id) { return !IsChunk(*spool.Find(id)); });
    const size_t small = static_cast<size_t>(chunks - push.wanted.begin());
    const auto send = [&](size_t i) -> Task<Status> {
      const flower::StoredObject& object = *spool.Find(push.wanted[i]);
      auto stored = co_await fleet_.PushObject(id_, reply.head.run_id, push.wanted[i], object,
                                               spool.fd(), push.session_id);
      if (!stored.ok()) co_return Fail(std::move(stored).error());
      if (!*stored) co_return Fail(Code::kAborted, "push-object: stored=false");
      counters_.bytes_out += object.size();
      co_return Status{};
    };
    const auto send_chunk = [&, small](size_t i) { return send(small + i); };
    UMBEL_CO_TRY(co_await ForEach(small, kInFlight, send));
    co_return co_await ForEach(push.wanted.size() - small, kInFlight, send_chunk);
  }

  // -- what a former process left

  Task<Status> Resume() {
    auto read = [this](Journal& journal) { return journal.Unfinished(site_); };
    UMBEL_CO_ASSIGN(std::vector<InstructionRow> rows, co_await Journaled(std::move(read)));
    for (InstructionRow& row : rows) {
      const bool answered = row.progress == Progress::kAnswered;
      const ParcelRow& kept = answered ? row.reply : row.instruction;
      Work work;
      work.id = row.message_id;
      work.expires_at = row.expires_at;
      work.runtime_seconds = row.runtime_seconds;
      auto parcel = flower::ReadParcel(kept.message, kept.tree);
      auto spool = Spool::Open(Path(row.message_id, answered ? "out" : "in"), kept.index);
      if (!parcel.ok() || (answered && !spool.ok())) {
        const Error& why = parcel.ok() ? spool.error() : parcel.error();
        LogWarn("what was kept of an instruction is damaged; it is given up",
                {{"message_id", Short(work.id)}, {"error", why.message}});
        co_await Discard(work.id);
        continue;
      }
      if (!spool.ok()) {
        work.parcel = std::move(*parcel);
        co_await RefuseKept(std::move(work), spool.error());
        continue;
      }
      parcel->objects = std::move(*spool);
      work.parcel = std::move(*parcel);
      LogInfo("taking up",
              {{"message_id", Short(work.id)}, {"what", answered ? "a reply" : "an instruction"}});
      if (answered) {
        Spawn(SendKept(std::move(work)));
        continue;
      }
      auto run = co_await shared_.apps.RunOf(fleet_, id_, row.run_id);
      if (!run.ok()) {
        if (run.error().code == Code::kUnavailable || run.error().code == Code::kCancelled)
          co_return Fail(std::move(run).error());
        if (EndsSilently(run.error())) {
          co_await Discard(work.id);
        } else {
          co_await RefuseKept(std::move(work), run.error());
        }
        continue;
      }
      work.run = std::move(*run);
      shared_.host.Prepare(work.run);
      const Status confirmed = co_await fleet_.Confirm(id_, row.run_id, work.id);
      if (!confirmed.ok() && confirmed.error().code == Code::kPermissionDenied) {
        co_await Discard(work.id);
        continue;
      }
      Enqueue(std::move(work));
    }
    auto sweep = [now = shared_.clock.Now()](Journal& journal) { return journal.Sweep(now); };
    co_return co_await Journaled(std::move(sweep));
  }

  /// Of an instruction in the journal.
  Task<void> RefuseKept(Work work, Error why) {
    auto outcome = MakeRefusal(work.parcel.head, work.id, std::move(why));
    if (!outcome.ok()) {
      Note(outcome.error());
      co_return;
    }
    Mark(work.id, "refusing");
    Spawn(FinishAndSend(std::move(work), std::move(*outcome)));
  }

  Task<void> SendKept(Work work) { co_await SendReply(work); }

  Task<void> Discard(ObjectId id) {
    auto forget = [this, id](Journal& journal) { return journal.Forget(site_, id); };
    if (const Status done = co_await Journaled(std::move(forget)); !done.ok()) Note(done.error());
    RemoveSpools(id);
  }
  void RemoveSpools(const ObjectId& id) {
    ::unlink(Path(id, "in").c_str());
    ::unlink(Path(id, "out").c_str());
  }
  std::string Path(const ObjectId& id, std::string_view what) const {
    return fmt::format("{}/{}-{}.{}", shared_.spool_directory, site_, id.Hex(), what);
  }

  void Mark(const ObjectId& id, const char* what) { pending_[id] = what; }
  void Unmark(const ObjectId& id) {
    pending_.erase(id);
    changed_.Ring();
  }
  void Note(const Error& error) {
    last_error_ = fmt::format("{} {}", IsoFormat(shared_.clock.Now()), error.message);
  }

  Shared& shared_;
  const int64_t site_;
  const bool own_key_;
  NodeSigner signer_;
  FleetClient fleet_;
  NodeId id_;
  const ConfigMap node_config_;
  const boost::asio::any_io_executor executor_;
  Bell changed_;  // something ended, or we are to stop
  boost::asio::steady_timer beat_;
  std::map<SeriesId, std::deque<Work>> lanes_;
  std::map<ObjectId, const char*> pending_;
  NodeCounters counters_;
  std::string last_error_;
  WallTime connected_since_;
  Steady::time_point reconnected_at_{};
  Status lost_;  // the SuperLink stayed away for longer than the retry rules allow
  size_t live_ = 0;
  bool connected_ = false;
  bool stopping_ = false;
};

}  // namespace

Result<std::unique_ptr<Node>> Node::Make(Shared& shared, int64_t site, const std::string& key_file,
                                         ConfigMap node_config,
                                         const boost::asio::any_io_executor& executor) {
  UMBEL_ASSIGN(const std::optional<SiteRow> kept, shared.journal.ReadSite(site));
  const bool own = key_file.empty();
  NodeId id = kept ? kept->node_id : NodeId{};
  std::optional<NodeSigner> signer;
  if (!own) {
    UMBEL_ASSIGN(signer, NodeSigner::FromFile(key_file));
    if (kept && !kept->key_pem.empty()) id = NodeId{};  // it had a key of its own
  } else if (kept && !kept->key_pem.empty()) {
    UMBEL_ASSIGN(signer, NodeSigner::FromText(kept->key_pem, "the node's own key"));
  } else {
    signer = NodeSigner::Generate();
    id = NodeId{};
    // Kept before the SuperLink hears of it.
    UMBEL_TRY(shared.journal.PutSite(site, {signer->ToPem(), NodeId{}}));
  }
  return std::unique_ptr<Node>(std::make_unique<NodeImpl>(shared, site, own, std::move(*signer), id,
                                                          std::move(node_config), executor));
}

}  // namespace umbel::supernode
