// Random faults of the server and random ends of the process: in the end everything is with MLflow
// once, and in order. The seed is printed, and UMBEL_SEED sets it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <thread>

#include "base/file.h"
#include "base/random.h"
#include "base/testing.h"
#include "tracking/fake_mlflow.h"
#include "tracking/tracker.h"

namespace umbel::tracking {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using umbel::testing::TempDir;

constexpr WallTime kNow{seconds(1'800'000'000)};
constexpr int kRuns = 4;

uint64_t Seed() {
  if (const char* asked = std::getenv("UMBEL_SEED")) return std::strtoull(asked, nullptr, 10);
  return SystemRng().U64() % 1'000'000;
}

/// What is said of the runs, one call after another: the same each time.
struct Story {
  struct Call {
    int run = 0;
    std::function<Status(Tracker&)> say;
  };
  std::vector<Call> calls;
  std::map<std::string, std::vector<std::string>> said;  // as FakeRun::said

  explicit Story(std::mt19937_64& random) {
    std::vector<std::vector<Call>> each(kRuns);
    for (int i = 0; i < kRuns; ++i) {
      RunStart run;
      run.id = fmt::format("run-{}", i);
      run.experiment = fmt::format("experiment {}", i % 2);
      run.name = fmt::format("round {}", i);
      run.started_at = kNow;
      run.params = {{"a", "1"}, {"b", "2"}};
      auto& all = said[run.id];
      all = {"param a", "param b"};
      each[static_cast<size_t>(i)].push_back({i, [run](Tracker& t) { return t.Begin(run); }});
      int64_t step = 0;
      for (int call = 0; call < 6; ++call) {
        std::vector<Metric> metrics;
        const size_t count = random() % 4 == 0 ? 1500 : 1 + random() % 20;
        for (size_t n = 0; n < count; ++n, ++step) {
          metrics.push_back({"loss", 1.0 / static_cast<double>(step + 1), kNow, step});
          all.push_back(fmt::format("metric loss {}", step));
        }
        each[static_cast<size_t>(i)].push_back(
            {i, [id = run.id, metrics](Tracker& t) { return t.Log(id, metrics); }});
      }
      all.push_back("end FINISHED");
      each[static_cast<size_t>(i)].push_back(
          {i, [id = run.id](Tracker& t) { return t.End(id, "FINISHED", kNow); }});
    }
    // Mixed, each run's in its order.
    std::vector<size_t> at(kRuns, 0);
    for (;;) {
      std::vector<size_t> open;
      for (size_t i = 0; i < kRuns; ++i)
        if (at[i] < each[i].size()) open.push_back(i);
      if (open.empty()) break;
      const size_t i = open[random() % open.size()];
      calls.push_back(each[i][at[i]++]);
    }
  }
};

std::unique_ptr<Tracker> Open(const std::string& url, const std::string& folder) {
  Tracker::Options options;
  options.url = url;
  options.spool = folder + "/spool.db";
  options.pause_min = milliseconds(1);
  options.pause_max = milliseconds(10);
  options.request_timeout = milliseconds(3000);
  auto tracker = Tracker::Open(options);
  EXPECT_TRUE(tracker.ok()) << tracker.error().message;
  return tracker.ok() ? std::move(*tracker) : nullptr;
}

/// One request in `one_in` fares badly.
void Trouble(FakeMlflow& fake, uint64_t seed, uint64_t one_in) {
  auto random = std::make_shared<std::mt19937_64>(seed);
  fake.OnRequest([random, one_in](const std::string&, const std::string&) {
    constexpr Fault kFaults[] = {Fault::kLost,  Fault::kUnheard, Fault::kBusy,
                                 Fault::kError, Fault::kTooMany, Fault::kGarbage};
    if ((*random)() % one_in != 0) return Fault::kNone;
    return kFaults[(*random)() % std::size(kFaults)];
  });
}

void ExpectAll(FakeMlflow& fake, const Story& story) {
  for (const auto& [id, said] : story.said) {
    const auto runs = fake.RunsOf(id);
    ASSERT_EQ(runs.size(), 1U) << id;
    EXPECT_EQ(runs[0].said, said) << id;
    EXPECT_EQ(runs[0].status, "FINISHED") << id;
  }
}

/// Until the server has got `count` requests, or a moment is over: then it gets none.
void AwaitRequests(FakeMlflow& fake, size_t count) {
  const auto limit = std::chrono::steady_clock::now() + milliseconds(200);
  while (fake.requests() < count && std::chrono::steady_clock::now() < limit)
    std::this_thread::yield();
}

TEST(Simulation, FaultsAndRestartsLoseAndDoubleNothing) {
  FakeMlflow fake;
  const uint64_t first = Seed();
  for (uint64_t seed = first; seed < first + 6; ++seed) {
    SCOPED_TRACE(fmt::format("UMBEL_SEED={}", seed));
    const TempDir folder;
    std::mt19937_64 random(seed);
    const Story story(random);
    Trouble(fake, seed, 3);
    auto tracker = Open(fake.url(), folder.path());
    ASSERT_NE(tracker, nullptr);
    for (const Story::Call& call : story.calls) {
      const Status said = call.say(*tracker);
      ASSERT_TRUE(said.ok()) << said.error().message;
      if (random() % 3 != 0) continue;
      // The next process comes while a request is under way, or right after one.
      AwaitRequests(fake, fake.requests() + random() % 4);
      tracker.reset();
      tracker = Open(fake.url(), folder.path());
      ASSERT_NE(tracker, nullptr);
    }
    const Status flushed = tracker->Flush(seconds(60));
    ASSERT_TRUE(flushed.ok()) << flushed.error().message;
    EXPECT_EQ(tracker->state().refused, 0U) << tracker->state().trouble;
    ExpectAll(fake, story);
    tracker.reset();
    fake.Forget();
  }
}

/// What a child is told to do.
struct Order {
  size_t from = 0;  // the first call that was not reported as kept
  char url[64] = {};
};

/// A process that waits for its order, then says the story and reports each call that is kept as
/// 'k', the end as 'e'. All are forked before this process has any threads.
class Child {
 public:
  Child(const Story& story, const std::string& folder) {
    int order[2], report[2];
    UMBEL_CHECK(::pipe2(order, O_CLOEXEC) == 0 && ::pipe2(report, O_CLOEXEC) == 0);
    pid_ = ::fork();
    UMBEL_CHECK(pid_ >= 0);
    if (pid_ == 0) {
      ::close(order[1]);
      ::close(report[0]);
      ::_exit(Main(story, folder, order[0], report[1]));
    }
    ::close(order[0]);
    ::close(report[1]);
    order_ = Fd(order[1]);
    report_ = Fd(report[0]);
  }
  ~Child() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  Child(const Child&) = delete;

  void Start(size_t from, const std::string& url) {
    Order order;
    order.from = from;
    url.copy(order.url, sizeof order.url - 1);
    ASSERT_EQ(::write(order_.get(), &order, sizeof order), static_cast<ssize_t>(sizeof order));
  }
  /// 0 when the process is gone.
  char Report() {
    char word = 0;
    return ::read(report_.get(), &word, 1) == 1 ? word : '\0';
  }
  void Kill() { ::kill(pid_, SIGKILL); }
  /// The status of waitpid.
  int Wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, 0), &status, 0);
    return status;
  }

 private:
  static int Main(const Story& story, const std::string& folder, int orders, int reports) {
    Order order;
    if (::read(orders, &order, sizeof order) != static_cast<ssize_t>(sizeof order)) return 0;
    const auto tracker = Open(order.url, folder);
    if (tracker == nullptr) return 2;
    const auto report = [&](char word) { return ::write(reports, &word, 1) == 1; };
    // What was kept but not reported is said again, and must not be doubled.
    for (size_t i = order.from; i < story.calls.size(); ++i)
      if (!story.calls[i].say(*tracker).ok() || !report('k')) return 3;
    return tracker->Flush(seconds(60)).ok() && report('e') ? 0 : 4;
  }

  pid_t pid_ = 0;
  Fd order_;
  Fd report_;
};

TEST(Simulation, KilledAtAnyMomentNothingIsLostOrDoubled) {
  const uint64_t seed = Seed();
  SCOPED_TRACE(fmt::format("UMBEL_SEED={}", seed));
  constexpr size_t kKills = 25;
  const TempDir folder;
  std::mt19937_64 random(seed);
  const Story story(random);
  std::vector<std::unique_ptr<Child>> children;
  for (size_t i = 0; i <= kKills; ++i)
    children.push_back(std::make_unique<Child>(story, folder.path()));
  FakeMlflow fake;
  Trouble(fake, seed, 6);
  size_t kept = 0;
  bool ended = false;
  for (size_t i = 0; i < children.size() && !ended; ++i) {
    Child& child = *children[i];
    child.Start(kept, fake.url());
    const auto hear = [&] {
      const char word = child.Report();
      kept += word == 'k';
      ended = ended || word == 'e';
      return word != '\0';
    };
    const bool kill = i < kKills;
    // Killed after some calls and some requests more.
    const size_t requests = fake.requests() + random() % 8;
    for (size_t calls = random() % 4; (!kill || calls > 0) && hear();) calls -= kill ? 1 : 0;
    if (kill) {
      AwaitRequests(fake, requests);
      child.Kill();
    }
    while (hear()) {
    }
    const int status = child.Wait();
    ASSERT_TRUE((kill && WIFSIGNALED(status)) || (WIFEXITED(status) && WEXITSTATUS(status) == 0))
        << "child " << i << ": " << status;
  }
  EXPECT_TRUE(ended);
  EXPECT_EQ(kept, story.calls.size());
  ExpectAll(fake, story);
}

}  // namespace
}  // namespace umbel::tracking
