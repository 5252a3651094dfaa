// With stock flwr-clientapp where it is installed ($UMBEL_FLWR_BIN, else .venv/bin), and with
// programs that misbehave everywhere.
#include "supernode/hosts/stock_host.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "process/cgroup.h"
#include "process/confine_testing.h"
#include "supernode/hosts/app_process.h"
#include "supernode/hosts/process_host.h"
#include "supernode/runtime/runtime_testing.h"

namespace umbel::supernode {
namespace {

using namespace testing;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Steady = std::chrono::steady_clock;

std::string FlwrBin() {
  const char* asked = std::getenv("UMBEL_FLWR_BIN");
  const std::string bin = asked ? asked : UMBEL_SOURCE_DIR "/.venv/bin";
  return ::access((bin + "/flwr-clientapp").c_str(), X_OK) == 0 ? bin : "";
}

/// An NPY file of zeros.
std::string Npy(const std::string& descr, const std::string& shape, size_t bytes) {
  std::string header =
      fmt::format("{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}", descr, shape);
  header.resize((10 + header.size() + 64) / 64 * 64 - 10, ' ');
  header.back() = '\n';
  std::string npy("\x93NUMPY\x01\x00", 8);
  npy.push_back(static_cast<char>(header.size() & 0xff));
  npy.push_back(static_cast<char>(header.size() >> 8));
  return npy + header + std::string(bytes, '\0');
}

class StockHostTest : public DoorTest {
 protected:
  ~StockHostTest() override { StopHost(); }

  void OpenHost(StockOptions options, TaskTimes times = {}) {
    Open(times);
    options.runtime_address = fmt::format("127.0.0.1:{}", server_->port());
    options.output = [this](RunId run_id, const std::string& message_id, std::string_view line) {
      EXPECT_EQ(run_id, kRun);
      output_ += fmt::format("{} {}\n", message_id.substr(0, 8), line);
    };
    host_ = On(
        [&] { return MakeStockHost(server_->context(), *pool_, *table_, options, groups_.get()); });
  }
  void StopHost(milliseconds grace = seconds(5)) {
    if (!host_) return;
    Spawn(host_->Stop(grace)).get();
    On([&] {
      host_.reset();
      return true;
    });
    // Nothing is left, not even unreaped.
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
  }
  std::future<Result<Outcome>> Run(const Job& job) { return Spawn(host_->Run(job)); }
  void Prepare(const Job& job) {
    On([&] {
      host_->Prepare(job.run);
      return true;
    });
  }
  std::string Describe() {
    return On([&] { return host_->Describe(); });
  }
  void AwaitDescribed(std::string_view text) {
    const auto deadline = Steady::now() + seconds(60);
    while (Describe() != text) {
      ASSERT_LT(Steady::now(), deadline) << "still: " << Describe();
      std::this_thread::yield();
    }
  }

  /// A program of one shell line, in place of flwr-clientapp.
  StockOptions Script(const std::string& line) {
    StockOptions options;
    options.program = directory_.path() + "/program";
    std::ofstream(options.program) << "#!/bin/sh\n" << line << "\n";
    ::chmod(options.program.c_str(), 0700);
    options.environment = {"PATH=/usr/bin:/bin"};
    return options;
  }

  std::unique_ptr<process::CgroupParent> groups_;  // null: none
  std::unique_ptr<Host> host_;
  std::string output_;  // of the server's thread
};

TEST_F(StockHostTest, AProgramThatIsNotThereIsNamed) {
  StockOptions options;
  options.program = directory_.path() + "/no-such-program";
  OpenHost(options);
  const auto outcome = Run(MakeJob()).get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_NE(outcome.error().message.find("could not be started"), std::string::npos)
      << outcome.error().message;
  EXPECT_NE(outcome.error().message.find("no-such-program"), std::string::npos);
}

TEST_F(StockHostTest, NothingStartsBeforeARunAndNothingStaysAfterIt) {
  OpenHost(Script("exec sleep 1000"));
  EXPECT_EQ(Describe(), "stock: 0 working, 0 waiting, 0 starting");
  const Job job = MakeJob();
  Prepare(job);
  Prepare(job);
  EXPECT_EQ(Describe(), "stock: 0 working, 0 waiting, 1 starting");
  On([&] {
    host_->Drop(kRun);
    return true;
  });
  EXPECT_EQ(Describe(), "stock: 0 working, 0 waiting, 0 starting");
  while (::waitpid(-1, nullptr, WNOHANG) == 0) std::this_thread::yield();
}

TEST_F(StockHostTest, AProgramThatEndsAtOnceFailsItsJobInWordsAndIsNotStartedWithoutEnd) {
  OpenHost(Script("echo started >> " + directory_.path() + "/count; echo flwr is missing; exit 3"));
  const Job job = MakeJob();
  const auto outcome = Run(job).get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::kUnavailable);
  EXPECT_EQ(outcome.error().message,
            "flwr-clientapp exited with status 3 before it asked for its task: flwr is missing");
  // The spare died too; the next is not started within its second.
  AwaitDescribed("stock: 0 working, 0 waiting, 0 starting");
  const auto count = ReadFile(directory_.path() + "/count");
  ASSERT_TRUE(count.ok());
  EXPECT_EQ(std::count(count->begin(), count->end(), '\n'), 2);
}

TEST_F(StockHostTest, AnotherUsersProgramIsNotToldOurPid) {
  if (::getuid() != 0) GTEST_SKIP() << "needs root";
  StockOptions options = Script("echo \"$(id -u) $*\"; exit 3");
  options.limits.uid = 54321;
  ::chmod(directory_.path().c_str(), 0711);
  ::chmod(options.program.c_str(), 0755);
  OpenHost(options);
  const Job job = MakeJob();
  const std::string said = Run(job).get().error().message;
  EXPECT_NE(said.find(": 54321 --runtime-api-address"), std::string::npos) << said;
  EXPECT_EQ(said.find("--parent-pid"), std::string::npos) << said;
}

TEST_F(StockHostTest, AProgramThatHangsIsGivenUpAndOneThatIgnoresSignalsIsKilled) {
  OpenHost(Script("trap '' TERM INT; while :; do sleep 0.05; done"),
           {milliseconds(200), milliseconds(200)});
  const Job job = MakeJob();
  const auto outcome = Run(job).get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code, Code::kDeadlineExceeded);
  StopHost(milliseconds(100));
}

TEST_F(StockHostTest, OutputIsTaggedCutAndCounted) {
  StockOptions options = Script("while [ ! -e " + directory_.path() +
                                "/go ]; do sleep 0.01; done; "
                                "head -c 20000 /dev/zero | tr '\\0' x; echo; echo two; yes | "
                                "head -n 100000; exit 1");
  options.spares = 0;
  options.limits.output_bytes = 10'000;
  OpenHost(options);
  const Job job = MakeJob();
  auto outcome = Run(job);
  AwaitDescribed("stock: 1 working, 0 waiting, 0 starting");
  std::ofstream(directory_.path() + "/go") << "go";
  EXPECT_FALSE(outcome.get().ok());
  const std::string output = On([&] { return output_; });
  const std::string tag = job.instruction.head.message_id.substr(0, 8);
  EXPECT_TRUE(output.starts_with(tag + " " + std::string(8192, 'x') + "\n" + tag + " two\n"));
  EXPECT_LT(output.size(), 30'000u);
  EXPECT_NE(output.find("bytes more were not kept"), std::string::npos);
}

TEST_F(StockHostTest, WhatAProcessLeavesBehindEndsWithItAndItsMemoryIsBounded) {
  groups_ = process::CgroupParent::Open();
  if (!groups_->memory() || !groups_->kill()) GTEST_SKIP() << groups_->found();
  const std::string left = directory_.path() + "/left";
  StockOptions options = Script("setsid sleep 1000 & echo $! > " + left + "; exit 4");
  options.spares = 0;
  OpenHost(options);
  const auto outcome = Run(MakeJob()).get();
  ASSERT_FALSE(outcome.ok());
  EXPECT_NE(outcome.error().message.find("status 4"), std::string::npos);
  StopHost();
  Close();
  const pid_t deserter = std::atoi(ReadFile(left).value().c_str());
  ASSERT_GT(deserter, 0);
  const Fd pidfd = process::OpenPidFd(deserter, process::StartTicks(deserter));
  EXPECT_TRUE(!pidfd.valid() || process::WaitForEnd(pidfd.get(), milliseconds(0)));

  options = Script("head -c 200m /dev/zero | tail > /dev/null; exit 5");
  options.spares = 0;
  options.limits.memory_bytes = 50 << 20;
  OpenHost(options);
  const auto eaten = Run(MakeJob()).get();
  ASSERT_FALSE(eaten.ok());
  EXPECT_NE(eaten.error().message.find("needed more memory than this site's limit, 50 MiB"),
            std::string::npos)
      << eaten.error().message;
}

/// With stock Flower and the toy app.
class StockFlowerTest : public StockHostTest {
 protected:
  void SetUp() override {
    bin_ = FlwrBin();
    if (bin_.empty()) GTEST_SKIP() << "flwr-clientapp is not installed; see UMBEL_FLWR_BIN";
    fab_ = BuildFab();
    ASSERT_FALSE(fab_.empty());
  }
  StockOptions Stock() {
    StockOptions options;
    options.program = bin_ + "/flwr-clientapp";
    options.environment = Environment();
    return options;
  }
  std::vector<std::string> Environment() const {
    return {"PATH=" + bin_ + ":/usr/bin:/bin",
            "HOME=" + directory_.path(),
            "FLWR_HOME=" + directory_.path() + "/flwr",
            "FLWR_TELEMETRY_ENABLED=0",
            "FLWR_DISABLE_UPDATE_CHECK=1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL=0.05",
            "LANG=C.UTF-8"};
  }
  /// The toy app's, made once by `flwr build`.
  std::string BuildFab() {
    static std::string fab;
    if (!fab.empty()) return fab;
    const std::string folder = directory_.path() + "/build";
    std::filesystem::create_directories(folder);
    std::filesystem::copy(UMBEL_SOURCE_DIR "/tests/apps/toy", folder + "/toy",
                          std::filesystem::copy_options::recursive);
    const std::string command = fmt::format(
        "cd {} && FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1 FLWR_HOME={}/flwr "
        "{}/flwr build --app toy >build.log 2>&1",
        folder, folder, bin_);
    EXPECT_EQ(std::system(command.c_str()), 0);
    for (const auto& entry : std::filesystem::directory_iterator(folder))
      if (entry.path().extension() == ".fab") fab = ReadFile(entry.path()).value();
    return fab;
  }
  /// A train message of the toy app.
  Job ToyJob(ConfigMap config = {}, std::string state = "") {
    Job job = MakeJob(std::move(state));
    auto app = std::make_shared<App>(*job.run->app);
    app->content = fab_;
    app->hash = tensor::Sha256Of(fab_);
    auto run = std::make_shared<RunInfo>(*job.run);
    run->app = app;
    run->run_config = {{"seed", int64_t{1}},
                       {"train-seconds", 0.0},
                       {"gate", ""},
                       {"slow-site", int64_t{-1}},
                       {"client-raise", ""},
                       {"client-raise-site", int64_t{-1}},
                       {"trace", directory_.path() + "/trace"}};
    for (const auto& [key, value] : config) run->run_config[key] = value;
    job.run = run;
    job.node_config = {{"site", int64_t{0}}, {"examples", int64_t{32}}};
    auto spool = flower::Spool::Create("").value();
    const auto array = [&](std::string dtype, std::vector<int64_t> shape, const std::string& npy) {
      flower::ArrayRef ref;
      ref.dtype = std::move(dtype);
      ref.shape = std::move(shape);
      ref.stype = "numpy.ndarray";
      ref.pieces = {spool->Append(npy).value()};
      return ref;
    };
    flower::ArrayRecord arrays;
    arrays.emplace_back("weights",
                        array("float32", {1000, 256}, Npy("<f4", "(1000, 256)", 1024000)));
    arrays.emplace_back("bias", array("float64", {3}, Npy("<f8", "(3,)", 24)));
    const flower::RecordDict records{
        {"arrays", arrays}, {"config", flower::ConfigRecord{{"server-round", int64_t{1}}}}};
    flower::MessageHead head = job.instruction.head;
    head.message_id.clear();
    job.instruction = flower::MakeParcel(head, records, spool).value();
    return job;
  }
  /// A value of the reply's metrics.
  static int64_t Metric(const Outcome& outcome, std::string_view name) {
    const auto records = flower::ReadRecords(outcome.reply);
    EXPECT_TRUE(records.ok()) << records.error().message;
    if (!records.ok()) return -1;
    for (const auto& [key, record] : *records)
      if (const auto* metrics = std::get_if<flower::MetricRecord>(&record))
        for (const auto& [metric, value] : *metrics)
          if (metric == name) return std::get<int64_t>(value);
    return -1;
  }
  void AwaitTrace(std::string_view text) {
    const auto deadline = Steady::now() + seconds(60);
    for (;;) {
      const auto trace = ReadFile(directory_.path() + "/trace");
      if (trace.ok() && trace->find(text) != std::string::npos) return;
      ASSERT_LT(Steady::now(), deadline);
      std::this_thread::yield();
    }
  }
  /// The process whose command line holds `token`.
  pid_t ProcessOf(const std::string& token) {
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const pid_t pid = std::atoi(entry.path().filename().c_str());
      const auto line = pid > 0 ? ReadFile(entry.path() / "cmdline") : Result<std::string>("");
      if (line.ok() && line->find(token) != std::string::npos) return pid;
    }
    return 0;
  }

  std::string bin_;
  std::string fab_;
};

TEST_F(StockFlowerTest, WarmProcessesAnswerAtOnceAndTheSeriesKeepsItsState) {
  OpenHost(Stock());
  const Job first = ToyJob();
  Prepare(first);
  AwaitDescribed("stock: 0 working, 1 waiting, 0 starting");
  const auto begin = Steady::now();
  const auto one = Run(first).get();
  std::printf("warm: %lld ms\n",
              static_cast<long long>(
                  std::chrono::duration_cast<milliseconds>(Steady::now() - begin).count()));
  ASSERT_TRUE(one.ok()) << one.error().message;
  ASSERT_FALSE(one->reply.error) << one->reply.error->reason;
  EXPECT_EQ(Metric(*one, "num-examples"), 32);
  EXPECT_EQ(Metric(*one, "trained"), 1);
  EXPECT_EQ(one->reply.head.reply_to, first.instruction.head.message_id);
  EXPECT_EQ(one->reply.head.type, "train");
  ASSERT_TRUE(one->state);
  EXPECT_GT(one->runtime_seconds, 0);
  AwaitDescribed("stock: 0 working, 1 waiting, 0 starting");
  Job second = ToyJob({}, *one->state);
  second.spool_path += "2";
  const auto two = Run(second).get();
  ASSERT_TRUE(two.ok());
  ASSERT_FALSE(two->reply.error) << two->reply.error->reason;
  EXPECT_EQ(Metric(*two, "trained"), 2);
}

TEST_F(StockFlowerTest, WhatTheAppRaisesIsItsReply) {
  OpenHost(Stock());
  const Job job = ToyJob({{"client-raise", "boom"}});
  const auto outcome = Run(job).get();
  ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  ASSERT_TRUE(outcome->reply.error);
  EXPECT_EQ(outcome->reply.error->code, static_cast<int64_t>(ReplyError::kRaised));
  EXPECT_EQ(outcome->reply.error->reason, "<class 'RuntimeError'>:<'boom'>");
  EXPECT_TRUE(outcome->state);
  EXPECT_NE(On([&] { return output_; }).find("RuntimeError: boom"), std::string::npos);
}

TEST_F(StockFlowerTest, AKilledAppMayBeTriedAgainAtOnce) {
  StockOptions options = Stock();
  options.spares = 0;
  OpenHost(options);
  const Job job = ToyJob({{"train-seconds", 600.0}});
  auto outcome = Run(job);
  AwaitTrace("train begins");
  const std::string address = fmt::format("127.0.0.1:{}", server_->port());
  const pid_t pid = ProcessOf(address);
  ASSERT_GT(pid, 0);
  ::kill(pid, SIGKILL);
  const auto begin = Steady::now();
  const auto done = outcome.get();
  EXPECT_LT(Steady::now() - begin, seconds(5));
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().code, Code::kUnavailable);
  EXPECT_EQ(done.error().message, "The process of the ClientApp was killed by signal 9 (SIGKILL).");
}

TEST_F(StockFlowerTest, ADroppedRunEndsItsProcess) {
  OpenHost(Stock());
  const Job job = ToyJob({{"train-seconds", 600.0}});
  auto outcome = Run(job);
  AwaitTrace("train begins");
  On([&] {
    host_->Drop(kRun);
    return true;
  });
  EXPECT_EQ(outcome.get().error().code, Code::kCancelled);
  const std::string address = fmt::format("127.0.0.1:{}", server_->port());
  const auto deadline = Steady::now() + seconds(10);
  while (ProcessOf(address) != 0) ASSERT_LT(Steady::now(), deadline);
}

TEST_F(StockFlowerTest, AStockSuperExecTakesJobsWithTheSecret) {
  const std::string secret_file = directory_.path() + "/secret";
  ASSERT_TRUE(WriteFileAtomic(secret_file, "a secret of some length, for two").ok());
  flower::SuperExecAuth auth("a secret of some length, for two");
  RuntimeDoorOptions door;
  door.external = true;
  door.superexec = &auth;
  Open({}, door);
  auto host = MakeProcessHost(*table_);
  process::CommandSpec command;
  command.arguments = {bin_ + "/flower-superexec",
                       "--insecure",
                       "--runtime-api-address",
                       fmt::format("127.0.0.1:{}", server_->port()),
                       "--superexec-auth-secret-file",
                       secret_file,
                       "--parent-pid",
                       std::to_string(::getpid())};
  command.environment = Environment();
  std::promise<void> ended;
  AppProcess::Observer observer;
  observer.line = [](std::string_view line) {
    std::printf("%.*s\n", static_cast<int>(line.size()), line.data());
  };
  observer.end = [&](const AppProcess::End&) { ended.set_value(); };
  const auto superexec = On([&] {
    return AppProcess::Start(server_->context(), *pool_, command, Limits(), nullptr, "", observer)
        .value();
  });
  const Job job = ToyJob();
  const auto outcome = Spawn(host->Run(job)).get();
  ASSERT_TRUE(outcome.ok()) << outcome.error().message;
  ASSERT_FALSE(outcome->reply.error) << outcome->reply.error->reason;
  EXPECT_EQ(Metric(*outcome, "trained"), 1);
  EXPECT_TRUE(outcome->state);
  On([&] {
    superexec->EndSoon(milliseconds(0), seconds(5));
    return true;
  });
  ended.get_future().get();
}

}  // namespace
}  // namespace umbel::supernode
