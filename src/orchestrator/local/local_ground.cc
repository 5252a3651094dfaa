#include "orchestrator/local/local_ground.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <map>
#include <set>
#include <thread>

#include "base/guarded.h"
#include "base/lock_file.h"
#include "orchestrator/local/instance_log.h"
#include "orchestrator/local/instances.h"
#include "orchestrator/local/machine.h"
#include "orchestrator/spec.h"

namespace umbel::orchestrator {
namespace {

constexpr uint64_t kWakeEvent = 0;
constexpr uint64_t kLogEvent = ~uint64_t{0};

class LocalGroundImpl final : public LocalGround {
 public:
  LocalGroundImpl(LocalGroundOptions options, const Clock& clock, LockFile lock)
      : options_(std::move(options)),
        lock_(std::move(lock)),
        machine_(options_.use_groups),
        event_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
        log_events_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)),
        instances_(options_, clock, machine_) {}

  ~LocalGroundImpl() override {
    if (!thread_.joinable()) return;
    thread_.request_stop();
    Notify();
    thread_.join();
  }

  Status Begin() {
    machine_.ClearStaleGroups();
    UMBEL_TRY(instances_.Adopt());
    UMBEL_TRY(Follow(event_, kWakeEvent));
    if (log_events_.valid()) UMBEL_TRY(Follow(log_events_, kLogEvent));
    view_.With([this](View& view) { view = instances_.Look(); });
    thread_ = std::jthread([this](const std::stop_token& stop) {
      ::pthread_setname_np(::pthread_self(), "ground");
      Loop(stop);
    });
    return {};
  }

  std::vector<Node> Nodes() override {
    return view_.With([](const View& view) { return view.nodes; });
  }

  Status Apply(const InstanceSpec& spec) override {
    UMBEL_TRY(CheckSpec(spec));
    UMBEL_TRY(CheckNode(spec, options_.nodes));
    if ((!spec.network || spec.isolated) && !machine_.isolation().ok())
      return Fail(
          Code::kFailedPrecondition,
          fmt::format("instance '{}' is to be isolated, which this machine does not allow: {}",
                      spec.name, machine_.isolation().error().message));
    UMBEL_ASSIGN(const auto leaving, Ask([&] { return instances_.Apply(spec); }));
    return Await(leaving);
  }

  Status Remove(std::string_view name) override {
    UMBEL_ASSIGN(const auto leaving, Ask([&] { return instances_.Remove(name); }));
    return Await(leaving);
  }

  std::vector<InstanceStatus> List() override {
    return view_.With([](const View& view) {
      std::vector<InstanceStatus> all;
      for (const auto& [_, shown] : view.instances) all.push_back(shown.status);
      return all;
    });
  }

  std::optional<InstanceStatus> Find(std::string_view name) override {
    const auto shown = Look(name);
    if (!shown) return std::nullopt;
    return shown->status;
  }

  Result<LogPart> Logs(std::string_view name, uint64_t offset, size_t limit) override {
    // Looked at before the log: what ends meanwhile may still have something to say.
    const auto shown = Look(name);
    if (!shown) return Fail(Code::kNotFound, fmt::format("no instance '{}'", name));
    UMBEL_ASSIGN(LogPart part, ReadLog(shown->folder, offset, limit));
    part.ended = shown->over && part.bytes.size() < std::min(limit, kLogReadMax);
    return part;
  }

  bool WatchLog(std::string_view name, const std::shared_ptr<Wakeable>& waker) override {
    const auto shown = Look(name);
    if (!shown || !log_events_.valid()) return false;
    return log_readers_.With([&](auto& readers) {
      // As one watch of a folder ends with its first event, the next one is another.
      const int watch = ::inotify_add_watch(log_events_.get(), shown->folder.c_str(),
                                            IN_MODIFY | IN_CREATE | IN_ONESHOT);
      if (watch >= 0) readers[watch].Add(waker);
      return watch >= 0;
    });
  }

  void Watch(std::shared_ptr<Wakeable> waker) override {
    watchers_.With([&](auto& watchers) {
      std::erase_if(watchers, [](const auto& weak) { return weak.expired(); });
      watchers.push_back(waker);
    });
  }

  Status SetUp(std::string_view name, bool up) override {
    return Ask([&] { return instances_.SetUp(name, up); });
  }

  Status Shutdown() override {
    const std::vector<Leaving> leaving = Ask([&] { return instances_.Shutdown(); });
    for (const Leaving& each : leaving) UMBEL_TRY(AwaitEnd(each));
    return {};
  }

  const std::string& Limits() const override { return machine_.text(); }
  const Status& Isolation() const override { return machine_.isolation(); }

 private:
  // Callers' side.

  std::optional<Shown> Look(std::string_view name) {
    return view_.With([&](const View& view) -> std::optional<Shown> {
      const auto it = view.instances.find(name);
      if (it == view.instances.end()) return std::nullopt;
      return it->second;
    });
  }

  void Notify() {
    const uint64_t one = 1;
    static_cast<void>(!::write(event_.get(), &one, sizeof one));
  }

  /// Runs `f` on the thread, and what follows of it.
  template <typename F>
  auto Ask(F&& f) -> decltype(f()) {
    // Shared, as it must outlast the moment in which it wakes us.
    const auto answer = std::make_shared<std::promise<decltype(f())>>();
    auto future = answer->get_future();
    commands_.With([&](auto& commands) {
      commands.push_back([this, &f, answer] {
        auto value = f();
        Settle();
        answer->set_value(std::move(value));
      });
    });
    Notify();
    return future.get();
  }

  Status AwaitEnd(const Leaving& leaving) {
    if (leaving.done.wait_for(options_.grace + 2 * kKeeperMore) == std::future_status::ready)
      return {};
    return Fail(Code::kDeadlineExceeded,
                fmt::format("what is kept in '{}' does not end", leaving.folder));
  }

  Status Await(const std::vector<Leaving>& leaving) {
    for (const Leaving& each : leaving) {
      UMBEL_TRY(AwaitEnd(each));
      RemoveFolder(each.folder);
    }
    return {};
  }

  // The thread's side.

  Status Follow(const Fd& fd, uint64_t what) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = what;
    if (::epoll_ctl(instances_.epoll(), EPOLL_CTL_ADD, fd.get(), &event) != 0)
      return Fail(SystemError("watch", "events"));
    return {};
  }

  void TakeLogEvents() {
    alignas(inotify_event) char bytes[16384];
    ssize_t size;
    while ((size = ::read(log_events_.get(), bytes, sizeof bytes)) > 0) {
      for (const char* at = bytes; at < bytes + size;) {
        inotify_event event;
        std::memcpy(&event, at, sizeof event);
        at += sizeof event + event.len;
        log_readers_.With([&](auto& readers) {
          // Too many events at once: who is meant is not told.
          if (event.mask & IN_Q_OVERFLOW)
            for (auto& [_, waiting] : std::exchange(readers, {})) waiting.WakeAll();
          else if (auto node = readers.extract(event.wd); !node.empty())
            node.mapped().WakeAll();
        });
      }
    }
  }

  void Loop(const std::stop_token& stop) {
    Settle();
    while (!stop.stop_requested()) {
      epoll_event events[64];
      const int n =
          ::epoll_wait(instances_.epoll(), events, std::size(events), instances_.Patience());
      for (int i = 0; i < n; ++i) {
        uint64_t count;
        if (events[i].data.u64 == kWakeEvent)
          static_cast<void>(!::read(event_.get(), &count, sizeof count));
        else if (events[i].data.u64 == kLogEvent)
          TakeLogEvents();
        else
          instances_.Take(events[i].data.u64);
      }
      Settle();
      for (const auto& command : commands_.With([](auto& all) { return std::exchange(all, {}); }))
        command();
    }
  }

  void Settle() {
    instances_.Reconcile();
    if (!instances_.TakeChanged()) return;
    View view = instances_.Look();
    view_.With([&](View& shared) { std::swap(shared, view); });
    const auto wake = watchers_.With([](auto& watchers) {
      std::vector<std::shared_ptr<Wakeable>> living;
      for (const auto& weak : watchers)
        if (auto waker = weak.lock()) living.push_back(std::move(waker));
      return living;
    });
    for (const auto& waker : wake) waker->Wake();
  }

  const LocalGroundOptions options_;
  const LockFile lock_;
  const Machine machine_;
  const Fd event_;
  const Fd log_events_;
  Instances instances_;  // the thread's own
  Guarded<View> view_;
  Guarded<std::vector<std::weak_ptr<Wakeable>>> watchers_;
  Guarded<std::map<int, WaitList>> log_readers_;  // by watch of their instance's folder
  Guarded<std::vector<std::function<void()>>> commands_;
  std::jthread thread_;
};

}  // namespace

Result<std::unique_ptr<LocalGround>> LocalGround::Open(LocalGroundOptions options,
                                                       const Clock& clock) {
  if (options.folder.empty()) return Fail(Code::kInvalidArgument, "the ground has no folder");
  std::error_code error;
  options.folder = std::filesystem::absolute(options.folder, error).lexically_normal().native();
  if (options.nodes.empty()) options.nodes = DefaultNodes();
  UMBEL_TRY(MakeDirectories(options.folder + "/instances"));
  const Resources share = ShareOfMachine(options.folder, options.nodes.size());
  std::set<std::string_view> names;
  for (Node& node : options.nodes) {
    if (node.name.empty() || node.name.find('\n') != std::string::npos ||
        !names.insert(node.name).second)
      return Fail(Code::kInvalidArgument,
                  fmt::format("node name '{}' is empty or there twice", node.name));
    if (node.address.empty()) node.address = "127.0.0.1";
    if (node.capacity == Resources{}) node.capacity = share;
    node.reserved = {};
  }
  UMBEL_ASSIGN(LockFile lock, LockFile::Take(LockPath(options.folder),
                                             fmt::format("the ground '{}'", options.folder)));
  auto ground = std::make_unique<LocalGroundImpl>(std::move(options), clock, std::move(lock));
  UMBEL_TRY(ground->Begin());
  return std::unique_ptr<LocalGround>(std::move(ground));
}

}  // namespace umbel::orchestrator
