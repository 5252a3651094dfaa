// With a Python that has Flower ($UMBEL_TEST_PYTHON, else .venv/bin/python), and with workers that
// lie everywhere.
#include "supernode/hosts/worker_host.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <boost/asio/thread_pool.hpp>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>

#include "base/file.h"
#include "base/testing.h"
#include "flower/records_testing.h"
#include "process/confine_testing.h"
#include "process/python.h"
#include "process/watch.h"
#include "supernode/environment.h"
#include "supernode/fleet_testing.h"
#include "supernode/hosts/worker_sources.h"

namespace umbel::supernode {
namespace {

using namespace testing;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;

constexpr RunId kRun{0xfedcba9876543210};

std::string TestPython() {
  const char* asked = std::getenv("UMBEL_TEST_PYTHON");
  const std::string python = asked ? asked : UMBEL_SOURCE_DIR "/.venv/bin/python";
  return ::access(python.c_str(), X_OK) == 0 ? python : "";
}

#define UMBEL_NEEDS_PYTHON()                                                            \
  if (TestPython().empty())                                                             \
  GTEST_SKIP() << "no Python with Flower: $UMBEL_TEST_PYTHON is not set, nor is there " \
               << UMBEL_SOURCE_DIR "/.venv/bin/python"

/// tests/worker/apps/behave.py, and what only these tests need.
constexpr char kProbe[] = R"(
import os, signal, sys, time
import behave
from behave import app

def waits(msg, context, config):
    with open(config["path"] + ".part", "w") as file:
        file.write(f"{os.getpid()} {os.getppid()}")
    os.rename(config["path"] + ".part", config["path"])
    time.sleep(600)

def says(msg, context, config):
    print("first", flush=True)
    os.write(1, config["text"].encode())
    if config["status"] < 0:
        os.kill(os.getpid(), -config["status"])
    os._exit(config["status"])

behave.waits = waits
behave.says = says
)";

/// Says what it likes on the control socket: `answers` by op, "PID" being its own.
constexpr char kLiar[] = R"(#!/usr/bin/env python3
import os, socket, struct, sys
control = socket.socket(fileno=3)
def value(v):
    if v is True: return b"t"
    if v is False: return b"f"
    if isinstance(v, int): return b"i" + struct.pack("<q", v)
    if isinstance(v, str): return b"s" + struct.pack("<I", len(v)) + v.encode()
    out = b"m" + struct.pack("<I", len(v))
    for key, item in v.items():
        out += struct.pack("<I", len(key)) + key.encode() + value(item)
    return out
def say(**frame):
    payload = value(frame)
    control.sendall(struct.pack("<I", len(payload)) + payload)
def hear():
    data, fds, _, _ = socket.recv_fds(control, 1 << 20, 8)
    if not data: sys.exit(0)
    return data, fds
say(op="ready", protocol=2, pid=os.getpid(), python="3.11.2", flwr="1.41.0")
hear()
say(op="loaded", fork=True, why="")
number = 0
while True:
    data, fds = hear()
    number += 1
    LIE
    for fd in fds: os.close(fd)
)";

class WorkerHostTest : public ::testing::Test {
 protected:
  WorkerHostTest() {
    std::filesystem::copy(UMBEL_SOURCE_DIR "/tests/worker/apps/behave.py", directory_.path());
    std::ofstream(directory_.path() + "/probe.py") << kProbe;
    MakeApp();
  }
  ~WorkerHostTest() override { StopHost(); }

  void MakeApp() {
    auto app = std::make_shared<App>();
    app->fab_id = "umbel/probe";
    app->version = "1.0.0";
    app->hash = tensor::Sha256Of(directory_.path());
    app->directory = directory_.path();
    app->clientapp = "probe:app";
    auto run = std::make_shared<RunInfo>();
    run->run_id = kRun;
    run->series_id = SeriesId{5};
    run->app = app;
    run_ = run;
  }
  void Open(bool resident = false, Limits limits = {}, bool grouped = true,
            std::string python = TestPython()) {
    WorkerOptions options;
    options.python = std::move(python);
    options.sources = WriteWorkerSources(directory_.path() + "/worker").value();
    options.environment = ClientAppEnvironment();
    options.limits = limits;
    options.view = view_;
    const bool kept = grouped && groups_->memory() && groups_->processes() && groups_->kill();
    host_ = thread_.On([&] {
      return MakeWorkerHost(thread_.io().get_executor(), pool_, std::move(options),
                            kept ? groups_.get() : nullptr, resident, clock_, 1);
    });
  }
  void AwaitDescribed(const std::string& wanted) {
    const auto until = Steady::now() + seconds(240);
    const auto describe = [&] { return thread_.On([&] { return host_->Describe(); }); };
    while (describe() != wanted && Steady::now() < until) std::this_thread::yield();
    EXPECT_EQ(describe(), wanted);
  }
  void StopHost() {
    if (!host_) return;
    Finish(thread_.Spawn(host_->Stop(seconds(5))));
    // Nothing is left, not even unreaped.
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
    thread_.On([&] {
      host_.reset();
      return true;
    });
    pool_.join();
    thread_.Stop();
  }

  Job MakeJob(const std::string& what, flower::ConfigRecord config = {}, std::string state = "") {
    config.emplace_back("do", what);
    Job job;
    job.run = run_;
    job.node_id = kSite;
    job.state = std::move(state);
    job.spool_path = fmt::format("{}/reply-{}", directory_.path(), ++jobs_);
    auto spool = flower::NewSpool();
    std::string npy("\x93NUMPY\x01\x00\x76\x00", 10);
    std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000,), }";
    header.resize(0x75, ' ');
    npy += header + "\n";
    for (int i = 0; i < 1000; ++i) {
      const float value = static_cast<float>(i) / 7;
      npy.append(reinterpret_cast<const char*>(&value), sizeof value);
    }
    flower::ArrayRef array;
    array.dtype = "float32";
    array.shape = {1000};
    array.stype = "numpy.ndarray";
    array.pieces = {spool->Append(npy).value()};
    const flower::RecordDict records{{"arrays", flower::ArrayRecord{{"w", array}}},
                                     {"config", std::move(config)}};
    flower::MessageHead head;
    head.run_id = kRun;
    head.src = kSuperLinkNode;
    head.dst = kSite;
    head.group_id = "3";
    head.type = "train";
    head.ttl = 3600;
    head.created_at = UnixSeconds(clock_.Now());
    job.instruction = flower::MakeParcel(std::move(head), records, spool).value();
    return job;
  }
  std::future<Result<Outcome>> Begin(const Job& job) { return thread_.Spawn(host_->Run(job)); }
  Result<Outcome> Run(const Job& job) { return Finish(Begin(job)); }
  /// An import of Flower on a busy machine takes a while.
  template <typename T>
  static T Finish(std::future<T> future) {
    UMBEL_CHECK(future.wait_for(seconds(240)) == std::future_status::ready);
    return future.get();
  }

  /// The reply's records, or those of a failure for the test to show.
  static flower::RecordDict RecordsOf(const Result<Outcome>& outcome) {
    EXPECT_TRUE(outcome.ok()) << outcome.error().message;
    if (!outcome.ok()) return {};
    EXPECT_FALSE(outcome->reply.error) << outcome->reply.error->reason;
    if (outcome->reply.error) return {};
    return flower::ReadRecords(outcome->reply).value();
  }
  template <typename T>
  static const T* Find(const flower::RecordDict& records, const std::string& name) {
    for (const auto& [key, record] : records)
      if (key == name) return std::get_if<T>(&record);
    return nullptr;
  }
  static int64_t Number(const Result<Outcome>& outcome, const std::string& key) {
    const auto records = RecordsOf(outcome);
    const auto* result = Find<flower::ConfigRecord>(records, "result");
    if (result != nullptr)
      for (const auto& [name, value] : *result)
        if (name == key) return std::get<int64_t>(value);
    ADD_FAILURE() << "no " << key;
    return -1;
  }
  static void IsError(const Result<Outcome>& outcome, int64_t code, const std::string& text) {
    ASSERT_TRUE(outcome.ok()) << outcome.error().message;
    ASSERT_TRUE(outcome->reply.error);
    EXPECT_EQ(outcome->reply.error->code, code) << outcome->reply.error->reason;
    EXPECT_NE(outcome->reply.error->reason.find(text), std::string::npos)
        << outcome->reply.error->reason;
  }
  static void IsKilled(const Result<Outcome>& outcome) {
    ASSERT_FALSE(outcome.ok()) << (outcome->reply.error ? outcome->reply.error->reason : "");
    EXPECT_EQ(outcome.error().code, Code::kUnavailable) << outcome.error().message;
  }

  /// Begins a job that stays in the app; its pid and its parent's.
  std::pair<pid_t, pid_t> BeginWaiting(const Job& job, std::future<Result<Outcome>>& outcome) {
    outcome = Begin(job);
    const std::string path = directory_.path() + "/pids";
    const auto until = Steady::now() + seconds(240);
    while (::access(path.c_str(), F_OK) != 0 && Steady::now() < until)
      if (outcome.wait_for(milliseconds(1)) == std::future_status::ready) break;
    std::pair<pid_t, pid_t> pids{0, 0};
    std::ifstream(path) >> pids.first >> pids.second;
    std::filesystem::remove(path);
    UMBEL_CHECK(pids.first > 1 && pids.second > 0);  // 1: the first of a namespace
    return pids;
  }
  /// Stays: the host refers to a job for as long as it runs.
  const Job& Waiting() {
    return waiting_.emplace_back(MakeJob("waits", {{"path", directory_.path() + "/pids"}}));
  }
  void DeclareSpawn() {
    std::ofstream(directory_.path() + "/pyproject.toml")
        << "[tool.umbel.clientapp]\nhost = \"spawn\"\n";
  }
  std::string Liar(const std::string& lie) {
    const std::string path = directory_.path() + "/python";
    std::string text = kLiar;
    text.replace(text.find("LIE"), 3, lie);
    std::ofstream(path) << text;
    ::chmod(path.c_str(), 0700);
    return path;
  }

  /// From the next Open() on the app sees no more than it needs; false where that is not allowed.
  bool Isolate() {
    if (!process::TryIsolation().ok()) return false;
    view_.emplace();
    view_->shown = process::PythonFolders(TestPython());
    view_->writable = {directory_.path()};  // the app, and where these tests look
    return true;
  }

  umbel::testing::TempDir directory_;
  std::optional<process::View> view_;
  SystemClock clock_;
  std::shared_ptr<const RunInfo> run_;
  int jobs_ = 0;
  std::deque<Job> waiting_;
  const std::unique_ptr<process::CgroupParent> groups_ = process::CgroupParent::Open();
  boost::asio::thread_pool pool_{2};
  std::unique_ptr<Host> host_;
  IoThread thread_;
};

enum class How { kFork, kSpawn, kResident };
class IsolatedHostTest : public WorkerHostTest,
                         public ::testing::WithParamInterface<std::pair<How, bool>> {};
INSTANTIATE_TEST_SUITE_P(Hosts, IsolatedHostTest,
                         ::testing::Values(std::pair(How::kFork, true),
                                           std::pair(How::kFork, false),
                                           std::pair(How::kSpawn, true),
                                           std::pair(How::kResident, true),
                                           std::pair(How::kResident, false)));

/// The host knows the app's processes by other numbers than it does itself.
TEST_P(IsolatedHostTest, AnAppWithAViewAnswersAndFails) {
  UMBEL_NEEDS_PYTHON();
  if (!Isolate()) GTEST_SKIP() << "no namespaces here";
  const auto [how, grouped] = GetParam();
  if (how == How::kSpawn) DeclareSpawn();
  Limits limits;
  limits.processes = 64;
  Open(how == How::kResident, limits, grouped);
  EXPECT_EQ(Number(Run(MakeJob("counts")), "calls"), 1);
  EXPECT_EQ(Number(Run(MakeJob("counts")), "calls"), how == How::kResident ? 2 : 1);
  IsError(Run(MakeJob("says", {{"text", "last words\n"}, {"status", int64_t{5}}})), 8,
          "It ended with status 5. Its last words: last words");
  IsError(Run(MakeJob("says", {{"text", "ouch\n"}, {"status", int64_t{-SIGSEGV}}})), 8,
          "It died of signal 11");
  std::future<Result<Outcome>> outcome;
  const auto [pid, parent] = BeginWaiting(Waiting(), outcome);
  EXPECT_LT(pid, 1000);
  EXPECT_LT(parent, 1000);
  // As when memory is short. Others may bear the same number in namespaces of their own.
  for (const process::ProcessEntry& entry : process::Descendants(::getpid()))
    if (entry.parent == ::getpid())
      if (const auto inside = process::FindInside(entry.id.pid, pid))
        if (const auto name = ReadFile(fmt::format("/proc/{}/comm", inside->id.pid));
            name.ok() && name->starts_with("python"))
          ::kill(inside->id.pid, SIGKILL);
  IsKilled(Finish(std::move(outcome)));
  EXPECT_EQ(Number(Run(MakeJob("counts")), "calls"), 1);
}

TEST_F(WorkerHostTest, AForkedAppAnswersAndFailsInEveryWay) {
  UMBEL_NEEDS_PYTHON();
  Open();
  const Job job = MakeJob("double");
  const auto outcome = Run(job);
  const auto records = RecordsOf(outcome);
  const auto* arrays = Find<flower::ArrayRecord>(records, "arrays");
  ASSERT_TRUE(arrays != nullptr && arrays->size() == 1);
  const std::string data = flower::DataOf(arrays->at(0).second, *outcome->reply.objects);
  ASSERT_EQ(data.size(), 128u + 4000);
  for (int i = 0; i < 1000; ++i) {
    float value = 0;
    std::memcpy(&value, data.data() + 128 + i * 4, 4);
    ASSERT_EQ(value, static_cast<float>(i) / 7 * 2) << i;
  }
  EXPECT_EQ(outcome->reply.head.reply_to, job.instruction.head.message_id);
  EXPECT_EQ(outcome->reply.head.src, kSite);
  EXPECT_EQ(outcome->reply.head.dst, kSuperLinkNode);
  EXPECT_EQ(outcome->reply.head.type, "train");
  EXPECT_GT(outcome->runtime_seconds, 0);
  // The state goes on, the process does not.
  ASSERT_TRUE(outcome->state);
  auto spool = flower::NewSpool();
  const auto more = Run(MakeJob("double", {}, *outcome->state));
  ASSERT_TRUE(more.ok() && more->state);
  const auto state = flower::DecodeState(*more->state, *spool).value();
  EXPECT_EQ(*Find<flower::ConfigRecord>(state, "counts"),
            (flower::ConfigRecord{{"train", int64_t{2}}}));
  EXPECT_EQ(Number(Run(MakeJob("counts")), "calls"), 1);
  EXPECT_EQ(Number(Run(MakeJob("counts")), "calls"), 1);

  IsError(Run(MakeJob("raises", {{"what", "value"}, {"text", "boo"}})), 2,
          "<class 'ValueError'>:<'boo'>");
  IsError(Run(MakeJob("nothing")), 2, "returned None");
  IsError(Run(MakeJob("own_error")), 77, "as I say");
  IsError(Run(MakeJob("end", {{"status", int64_t{0}}})), 8, "It ended with status 0.");
  IsError(Run(MakeJob("segfault")), 8, "It died of signal 11");

  // What it prints is in the log, and the last of it in the reason, cut between characters.
  ::testing::internal::CaptureStdout();
  std::string words;
  for (int i = 0; i < 400; ++i) words += "\xc3\xa9";
  for (const char* before : {"", "x"}) {
    const auto crashed = Run(MakeJob("says", {{"text", before + words}, {"status", int64_t{3}}}));
    IsError(crashed, 8, fmt::format("It ended with status 3. Its last words: {}\xc3\xa9", before));
    ASSERT_TRUE(crashed.ok() && crashed->reply.error);
    EXPECT_TRUE(crashed->reply.error->reason.ends_with("\xc3\xa9"));
  }
  IsError(Run(MakeJob("says", {{"text", "ouch\n\n"}, {"status", int64_t{-6}}})), 8,
          "It died of signal 6 (Aborted). Its last words: ouch");
  RecordsOf(Run(MakeJob("prints", {{"bytes", int64_t{10'000}}})));
  StopHost();  // what a pipe holds is read until its end
  const std::string printed = ::testing::internal::GetCapturedStdout();
  for (const char* line : {"text=first", "ouch", "from Python", "to stderr", "from C",
                           "from a subprocess", "no end of line"})
    EXPECT_NE(printed.find(line), std::string::npos) << line;
}

TEST_F(WorkerHostTest, WhatWasKilledFromOutsideMayBeTriedAgain) {
  UMBEL_NEEDS_PYTHON();
  Open();
  std::future<Result<Outcome>> outcome;
  const auto [child, worker] = BeginWaiting(Waiting(), outcome);
  ::kill(child, SIGKILL);
  IsKilled(Finish(std::move(outcome)));
  const auto [second, same] = BeginWaiting(Waiting(), outcome);
  EXPECT_EQ(same, worker);
  EXPECT_NE(second, child);
  ::kill(worker, SIGKILL);
  IsKilled(Finish(std::move(outcome)));
  EXPECT_EQ(Number(Run(MakeJob("counts")), "calls"), 1);
}

TEST_F(WorkerHostTest, AnAppThatMayNotBeForkedHasAFreshProcessForEachMessage) {
  UMBEL_NEEDS_PYTHON();
  DeclareSpawn();
  Open(false, {}, false);
  host_->Prepare(run_);
  const int64_t first = Number(Run(MakeJob("counts")), "pid");
  const auto again = Run(MakeJob("counts"));
  EXPECT_EQ(Number(again, "calls"), 1);
  EXPECT_NE(Number(again, "pid"), first);
  // At once, once, and with the status.
  IsError(Run(MakeJob("says", {{"text", "ouch\n"}, {"status", int64_t{3}}})), 8,
          "It ended with status 3. Its last words: ouch");
  std::future<Result<Outcome>> outcome;
  const auto [process, parent] = BeginWaiting(Waiting(), outcome);
  EXPECT_EQ(parent, ::getpid());
  ::kill(process, SIGKILL);
  IsKilled(Finish(std::move(outcome)));
}

TEST_F(WorkerHostTest, AResidentKeepsItsStateAndItsTime) {
  UMBEL_NEEDS_PYTHON();
  Limits limits;
  limits.wall_time = seconds(2);
  Open(true, limits);
  const auto first = Run(MakeJob("counts"));
  EXPECT_EQ(Number(first, "calls"), 1);
  const auto second = Run(MakeJob("counts"));
  EXPECT_EQ(Number(second, "calls"), 2);
  EXPECT_EQ(Number(second, "pid"), Number(first, "pid"));
  // One that died meanwhile is started anew, and the message is not lost.
  ::kill(static_cast<pid_t>(Number(first, "pid")), SIGKILL);
  const auto third = Run(MakeJob("counts"));
  EXPECT_EQ(Number(third, "calls"), 1);
  IsError(Run(MakeJob("sleeps")), 8, "It had not answered after 2 s");
  EXPECT_EQ(Number(Run(MakeJob("counts")), "calls"), 1);
  IsError(Run(MakeJob("end", {{"status", int64_t{9}}})), 8, "It ended with status 9.");
}

TEST_F(WorkerHostTest, AResidentThatMayNotBeForkedIsLetGoOfWhole) {
  UMBEL_NEEDS_PYTHON();
  DeclareSpawn();
  Open(true);
  const auto first = Run(MakeJob("counts"));
  const auto second = Run(MakeJob("counts"));
  EXPECT_EQ(Number(second, "calls"), 2);
  EXPECT_EQ(Number(second, "pid"), Number(first, "pid"));
  IsError(Run(MakeJob("end", {{"status", int64_t{4}}})), 8, "It ended with status 4.");
  // Its end is not counted for ever: there is the one that is idle.
  AwaitDescribed("1 workers, 1 apps, 0 ClientApps");
}

TEST_F(WorkerHostTest, AResidentThatIsLoadedAheadIsLoadedOnce) {
  UMBEL_NEEDS_PYTHON();
  DeclareSpawn();
  Open(true);
  const Status loaded = Finish(thread_.Spawn(host_->Preload(run_->app)));
  ASSERT_TRUE(loaded.ok()) << loaded.error().message;
  AwaitDescribed("2 workers, 1 apps, 0 ClientApps");  // it, and the one that is idle
  const auto prepare = [&] { thread_.On([&] { host_->Prepare(run_); }); };
  prepare();
  const auto first = Run(MakeJob("counts"));
  prepare();
  const auto second = Run(MakeJob("counts"));
  EXPECT_EQ(Number(second, "calls"), 2);
  EXPECT_EQ(Number(second, "pid"), Number(first, "pid"));
  AwaitDescribed("2 workers, 1 apps, 1 ClientApps");
}

TEST_F(WorkerHostTest, AnAppThatCannotBeLoadedAheadSaysWhy) {
  UMBEL_NEEDS_PYTHON();
  auto app = std::make_shared<App>(*run_->app);
  app->clientapp = "nowhere:app";
  Open(true);
  const Status loaded = Finish(thread_.Spawn(host_->Preload(app)));
  ASSERT_FALSE(loaded.ok());
  EXPECT_NE(loaded.error().message.find("nowhere"), std::string::npos) << loaded.error().message;
}

TEST_F(WorkerHostTest, StopEndsJobsWhereverTheyAre) {
  UMBEL_NEEDS_PYTHON();
  Open();
  std::future<Result<Outcome>> running;
  const auto [child, worker] = BeginWaiting(Waiting(), running);
  // Others wait for their app to be loaded: one loads it, the other waits for that one.
  std::filesystem::create_directory(directory_.path() + "/slow");
  std::ofstream(directory_.path() + "/slow/slow.py")
      << "import time\nopen('" << directory_.path() << "/loading', 'w')\ntime.sleep(600)\n";
  auto app = std::make_shared<App>(*run_->app);
  app->hash = tensor::Sha256Of("slow");
  app->directory = directory_.path() + "/slow";
  app->clientapp = "slow:app";
  auto run = std::make_shared<RunInfo>(*run_);
  run->app = app;
  Job slow = MakeJob("counts"), other = MakeJob("counts");
  slow.run = other.run = run;
  auto loading = Begin(slow), waiting = Begin(other);
  const auto until = Steady::now() + seconds(240);
  while (::access((directory_.path() + "/loading").c_str(), F_OK) != 0 && Steady::now() < until)
    std::this_thread::yield();
  const auto begin = Steady::now();
  StopHost();
  EXPECT_LT(Steady::now() - begin, seconds(10));
  for (auto* outcome : {&running, &loading, &waiting}) {
    const auto end = Finish(std::move(*outcome));
    ASSERT_FALSE(end.ok());
    EXPECT_EQ(end.error().code, Code::kCancelled) << end.error().message;
  }
  // Gone, or on their way to init, which reaps when it likes.
  for (const pid_t pid : {child, worker}) {
    const auto left = process::FindProcess(pid);
    EXPECT_TRUE(!left || left->ended) << pid;
  }
}

TEST_F(WorkerHostTest, APythonWithoutFlowerIsNamed) {
  const std::string python = directory_.path() + "/python";
  std::ofstream(python) << "#!/bin/sh\necho no >&2\nexit 1\n";
  ::chmod(python.c_str(), 0700);
  Open(false, {}, false, python);
  const auto outcome = Run(MakeJob("counts"));
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::kUnavailable);
}

TEST_F(WorkerHostTest, AWorkersWordAboutPidsIsNotBelieved) {
  const pid_t victim = ::fork();
  if (victim == 0)
    for (;;) ::pause();
  for (const bool grouped : {true, false}) {
    for (const pid_t named : {victim, ::getpid(), pid_t{1}}) {
      // Later it names another, and says that all of them are done with.
      const std::string python =
          Liar(fmt::format("say(op='forked', id=number, pid={}); say(op='forked', id=number, "
                           "pid={}); say(op='forked', id=7, pid={})",
                           named, victim, victim));
      WorkerOptions options;
      options.python = python;
      options.environment = {"PATH=/usr/bin:/bin"};
      auto host = thread_.On([&] {
        return MakeWorkerHost(thread_.io().get_executor(), pool_, options,
                              grouped && groups_->kill() ? groups_.get() : nullptr, false, clock_,
                              1);
      });
      const Job job = MakeJob("counts");
      const auto outcome = Finish(thread_.Spawn(host->Run(job)));
      ASSERT_FALSE(outcome.ok());
      EXPECT_EQ(outcome.error().code, Code::kUnavailable);
      EXPECT_NE(outcome.error().message.find("not its child"), std::string::npos)
          << outcome.error().message;
      Finish(thread_.Spawn(host->Stop(seconds(1))));
      thread_.On([&] {
        host.reset();
        return true;
      });
    }
  }
  EXPECT_EQ(::waitpid(victim, nullptr, WNOHANG), 0);  // it lives
  ::kill(victim, SIGKILL);
  EXPECT_EQ(::waitpid(victim, nullptr, 0), victim);
}

TEST_F(WorkerHostTest, AWorkerThatBreaksItsProtocolIsEnded) {
  for (const char* lie :
       {"control.sendall(b'\\xff' * 100)", "control.sendall(b'\\x02\\0\\0\\0zz')",
        "say(op='forked')", "say(op='ready', protocol=1, pid=1, python='', flwr='')", "sys.exit(0)",
        "say(op='exited', id=number, pid=0, status=256)"}) {
    WorkerOptions options;
    options.python = Liar(lie);
    options.environment = {"PATH=/usr/bin:/bin"};
    auto host = thread_.On([&] {
      return MakeWorkerHost(thread_.io().get_executor(), pool_, options, nullptr, false, clock_, 1);
    });
    const Job job = MakeJob("counts");
    IsKilled(Finish(thread_.Spawn(host->Run(job))));
    Finish(thread_.Spawn(host->Stop(seconds(1))));
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << lie;
    thread_.On([&] {
      host.reset();
      return true;
    });
  }
}

TEST_F(WorkerHostTest, AnAppWithoutItsDependenciesIsAnErrorReply) {
  std::ofstream(directory_.path() + "/pyproject.toml")
      << "[project]\ndependencies = ['no-such-package']\n";
  const umbel::testing::TempDir elsewhere;
  EnvironmentOptions own;
  own.root = elsewhere.path() + "/environments";
  own.python = elsewhere.path() + "/python";
  own.variables = {"PATH=/usr/bin:/bin"};
  const auto script = [&](const std::string& line) {
    std::ofstream(own.python) << "#!/bin/sh\necho x >> " << elsewhere.path() << "/calls\n" << line;
    ::chmod(own.python.c_str(), 0700);
  };
  script("[ \"$1\" = -VV ] || { echo no-such-package is not there; exit 1; }");
  WorkerOptions options;
  options.python = Liar("pass");
  options.environment = {"PATH=/usr/bin:/bin"};
  host_ = thread_.On([&] {
    return MakeWorkerHost(thread_.io().get_executor(), pool_, options, nullptr, false, clock_, 1,
                          Environments::Open(thread_.io(), pool_, own, nullptr).value());
  });
  for (int i = 0; i < 2; ++i)
    IsError(Run(MakeJob("counts")), 2,
            "uv sync exited with status 1. Its last words: no-such-pack");
  EXPECT_EQ(ReadFile(elsewhere.path() + "/calls").value(), "x\nx\n");

  // Also what is being made ends when the host does.
  script("echo y >> " + elsewhere.path() + "/calls; exec sleep 1000");
  auto again = std::make_shared<RunInfo>(*run_);
  again->run_id = RunId{7};
  run_ = again;
  const Job job = MakeJob("counts");
  auto outcome = Begin(job);
  while (ReadFile(elsewhere.path() + "/calls").value().find('y') == std::string::npos)
    std::this_thread::yield();
  StopHost();
  EXPECT_EQ(Finish(std::move(outcome)).error().code, Code::kCancelled);
}

}  // namespace
}  // namespace umbel::supernode
