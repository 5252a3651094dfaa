#include "tracking/tracker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <limits>
#include <thread>

#include "base/file.h"
#include "base/testing.h"
#include "tracking/fake_mlflow.h"

namespace umbel::tracking {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using umbel::testing::TempDir;

constexpr WallTime kNow{seconds(1'800'000'000)};
constexpr milliseconds kLong{30000};

class Bell final : public Wakeable {
 public:
  void Wake() override {
    std::lock_guard lock(mutex_);
    rung_ = true;
    changed_.notify_all();
  }
  /// Until `done`, looked at after each ringing.
  bool Until(const std::function<bool()>& done) {
    const auto until = std::chrono::steady_clock::now() + kLong;
    while (!done()) {
      std::unique_lock lock(mutex_);
      if (!changed_.wait_until(lock, until, [&] { return rung_; })) return false;
      rung_ = false;
    }
    return true;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool rung_ = false;
};

class TrackerTest : public ::testing::Test {
 protected:
  TrackerTest() { options_.url = fake_.url(); }

  void Open() {
    tracker_.reset();
    options_.spool = folder_.path() + "/spool.db";
    options_.pause_min = milliseconds(2);
    options_.pause_max = milliseconds(50);
    auto opened = Tracker::Open(options_);
    ASSERT_TRUE(opened.ok()) << opened.error().message;
    tracker_ = std::move(*opened);
    bell_ = std::make_shared<Bell>();
    tracker_->Watch(bell_);
  }
  static RunStart Round(int number) {
    RunStart run;
    run.id = fmt::format("p1/round/{}", number);
    run.experiment = "FLOps Project p1";
    run.name = fmt::format("FLOps FL round {}", number);
    run.started_at = kNow + seconds(number);
    run.params = {{"fraction_fit", "1.0"}, {"min_fit_clients", "2"}};
    return run;
  }
  static Metric At(const std::string& key, double value, int64_t step) {
    return {key, value, kNow + milliseconds(step) + Micros(999), step};
  }
  void Begin(int number) { Ok(tracker_->Begin(Round(number))); }
  static void Ok(const Status& status) { EXPECT_TRUE(status.ok()) << status.error().message; }
  void Flushed() { Ok(tracker_->Flush(kLong)); }
  static Code CodeOf(const Status& status) { return status.ok() ? Code{0} : status.error().code; }

  FakeMlflow fake_;
  TempDir folder_;
  Tracker::Options options_;
  std::shared_ptr<Bell> bell_;
  std::unique_ptr<Tracker> tracker_;
};

TEST_F(TrackerTest, ARunFromBeginningToEnd) {
  Open();
  RunStart start = Round(1);
  start.tags = {{"mlflow.note.content", "two\nlines \"quoted\" ✓"}};
  Ok(tracker_->Begin(start));
  Ok(tracker_->Log(start.id, {At("loss", 0.25, 1), At("accuracy", 0.1, 1)}));
  Ok(tracker_->Tag(start.id, "umbel.best", "true"));
  Ok(tracker_->End(start.id, "FINISHED", kNow + seconds(5)));
  Flushed();
  const FakeRun run = fake_.RunOf(start.id);
  EXPECT_EQ(run.name, "FLOps FL round 1");
  EXPECT_EQ(run.start_ms, 1'800'000'001'000);
  EXPECT_EQ(run.end_ms, 1'800'000'005'000);
  EXPECT_EQ(run.status, "FINISHED");
  EXPECT_EQ(run.params, start.params);
  EXPECT_EQ(run.tags.at("mlflow.note.content"), start.tags["mlflow.note.content"]);
  EXPECT_EQ(run.tags.at("umbel.best"), "true");
  const decltype(run.points) points = {{"loss", "0.25", 1'800'000'000'001, 1},
                                       {"accuracy", "0.1", 1'800'000'000'001, 1}};
  EXPECT_EQ(run.points, points);
  EXPECT_EQ(run.said.back(), "end FINISHED");
  EXPECT_EQ(tracker_->RunIdOf(start.id), run.id);
  EXPECT_EQ(tracker_->ExperimentIdOf(start.id), run.experiment_id);
  EXPECT_EQ(tracker_->RunIdOf("p1/round/2"), std::nullopt);
  EXPECT_EQ(tracker_->state().waiting, 0U);
  EXPECT_EQ(tracker_->state().trouble, "");
}

TEST_F(TrackerTest, NumbersThatJsonHasNoWordFor) {
  Open();
  Begin(1);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  Ok(tracker_->Log("p1/round/1",
                   {At("nan", std::nan(""), 1), At("up", kInfinity, 1), At("down", -kInfinity, 1),
                    At("tiny", 5e-324, 1), At("third", 1.0 / 3, 1), At("minus", -0.0, -7)}));
  Flushed();
  std::vector<std::string> values;
  for (const auto& point : fake_.RunOf("p1/round/1").points) values.push_back(std::get<1>(point));
  EXPECT_EQ(values, (std::vector<std::string>{"\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "5e-324",
                                              "0.3333333333333333", "-0.0"}));
}

TEST_F(TrackerTest, WhatIsSaidWhileTheServerIsDownWaitsAndIsSentByTheNextProcess) {
  fake_.Stop();
  Open();
  Begin(1);
  Ok(tracker_->Log("p1/round/1", {At("loss", 1, 1)}));
  ASSERT_TRUE(bell_->Until([&] { return !tracker_->state().trouble.empty(); }));
  EXPECT_NE(tracker_->state().trouble.find(fake_.url()), std::string::npos);
  EXPECT_EQ(tracker_->state().waiting, 4U);
  const Status late = tracker_->Flush(milliseconds(1));
  EXPECT_EQ(CodeOf(late), Code::kDeadlineExceeded);
  EXPECT_NE(late.error().message.find("cannot connect"), std::string::npos) << late.error().message;
  EXPECT_EQ(tracker_->RunIdOf("p1/round/1"), std::nullopt);

  Open();
  EXPECT_EQ(tracker_->state().waiting, 4U);
  Ok(tracker_->End("p1/round/1", "FAILED", kNow));
  fake_.Restart();
  Flushed();
  EXPECT_EQ(fake_.RunOf("p1/round/1").status, "FAILED");
  EXPECT_EQ(fake_.RunOf("p1/round/1").points.size(), 1U);
  EXPECT_EQ(tracker_->state().trouble, "");
}

TEST_F(TrackerTest, WhatIsOfNoMoreUseIsForgottenOnceItIsSaid) {
  Open();
  for (const int number : {1, 2}) Begin(number);
  RunStart other = Round(3);
  other.id = "p11/round/1";
  Ok(tracker_->Begin(other));
  Flushed();
  fake_.Stop();
  Ok(tracker_->End("p1/round/2", "KILLED", kNow));
  Ok(tracker_->Forget("p1/"));
  EXPECT_EQ(tracker_->RunIdOf("p1/round/1"), std::nullopt);
  EXPECT_NE(tracker_->RunIdOf("p1/round/2"), std::nullopt);  // its end is still to be said
  EXPECT_NE(tracker_->RunIdOf("p11/round/1"), std::nullopt);
  Open();
  fake_.Restart();
  Flushed();
  EXPECT_EQ(fake_.RunOf("p1/round/2").status, "KILLED");
  EXPECT_EQ(tracker_->RunIdOf("p1/round/2"), std::nullopt);
  EXPECT_NE(tracker_->RunIdOf("p11/round/1"), std::nullopt);
  EXPECT_EQ(CodeOf(tracker_->End("p1/round/1", "KILLED", kNow)), Code::kNotFound);
  Ok(tracker_->Forget("p1/"));
}

TEST_F(TrackerTest, ABacklogGoesInBatchesThatTheServerTakes) {
  fake_.Stop();
  Open();
  RunStart start = Round(1);
  for (int i = 0; i < 250; ++i) start.params[fmt::format("p{}", i)] = std::string(4000, 'v');
  for (int i = 0; i < 250; ++i) start.tags[fmt::format("t{}", i)] = "\x01\x01 broken \xff UTF-8";
  Ok(tracker_->Begin(start));
  std::vector<std::string> wanted;
  for (int64_t step = 0; step < 25'000;) {
    std::vector<Metric> metrics;
    for (int i = 0; i < 2500; ++i, ++step) metrics.push_back(At("loss", 0.5, step));
    Ok(tracker_->Log(start.id, metrics));
  }
  fake_.Restart();
  Flushed();
  const FakeRun run = fake_.RunOf(start.id);
  EXPECT_EQ(run.params, start.params);
  EXPECT_EQ(run.tags.at("t249"), "\x01\x01 broken \xef\xbf\xbd UTF-8");
  ASSERT_EQ(run.points.size(), 25'000U);
  for (size_t i = 0; i < run.points.size(); ++i)
    ASSERT_EQ(std::get<3>(run.points[i]), static_cast<int64_t>(i));
  EXPECT_EQ(tracker_->state().refused, 0U);
  EXPECT_LT(fake_.requests(), 60U);
}

TEST_F(TrackerTest, TheSameKeyTwiceIsTheLastValueOfATagAndTheFirstOfAParam) {
  fake_.Stop();
  Open();
  Begin(1);
  Ok(tracker_->Tag("p1/round/1", "state", "first"));
  Ok(tracker_->Log("p1/round/1", {At("loss", 1, 1)}));
  Ok(tracker_->Tag("p1/round/1", "state", "last"));
  Begin(1);  // once more, as after a crash: nothing new
  fake_.Restart();
  Flushed();
  EXPECT_EQ(fake_.RunOf("p1/round/1").tags.at("state"), "last");
  EXPECT_EQ(tracker_->state().refused, 0U);
}

TEST_F(TrackerTest, WhatIsRefusedIsSetAsideAndTheRestGetsThrough) {
  Open();
  Begin(1);
  std::vector<Metric> metrics;
  for (int64_t step = 0; step < 900; ++step)
    metrics.push_back(At(step == 17 || step == 612 ? "#" : "loss", 1, step));
  Ok(tracker_->Log("p1/round/1", metrics));
  Ok(tracker_->End("p1/round/1", "FINISHED", kNow));
  Flushed();
  FakeRun run = fake_.RunOf("p1/round/1");
  ASSERT_EQ(run.points.size(), 898U);
  EXPECT_TRUE(std::is_sorted(run.points.begin(), run.points.end(),
                             [](auto& a, auto& b) { return std::get<3>(a) < std::get<3>(b); }));
  EXPECT_EQ(run.status, "FINISHED");
  EXPECT_EQ(tracker_->state().refused, 2U);
  const std::string told = tracker_->state().trouble;
  EXPECT_NE(told.find("2 entries are set aside"), std::string::npos) << told;
  EXPECT_NE(told.find("metric '#' of step 612 of run 'p1/round/1'"), std::string::npos) << told;
  EXPECT_NE(told.find("400 INVALID_PARAMETER_VALUE: Invalid metric name"), std::string::npos);
  Open();
  EXPECT_EQ(tracker_->state().refused, 2U);
  EXPECT_EQ(tracker_->state().trouble, told);
}

TEST_F(TrackerTest, ARunThatWasDeletedTakesNothingMore) {
  Open();
  Begin(1);
  Begin(2);
  Flushed();
  fake_.DeleteRun(*tracker_->RunIdOf("p1/round/1"));
  std::vector<Metric> metrics(500, At("loss", 1, 1));
  const size_t before = fake_.requests();
  Ok(tracker_->Log("p1/round/1", metrics));
  Ok(tracker_->End("p1/round/1", "FINISHED", kNow));
  Ok(tracker_->Log("p1/round/2", {At("loss", 1, 1)}));
  Flushed();
  EXPECT_LE(fake_.requests() - before, 5U);
  EXPECT_EQ(fake_.RunOf("p1/round/2").points.size(), 1U);
  Ok(tracker_->Log("p1/round/1", metrics));
  EXPECT_EQ(tracker_->state().waiting, 0U);
  EXPECT_EQ(tracker_->state().refused, 1001U);
  EXPECT_NE(tracker_->state().trouble.find("it was deleted there"), std::string::npos);
}

TEST_F(TrackerTest, ADeletedExperimentIsTakenOutOfTheTrash) {
  fake_.PutExperiment("FLOps Project p1", true);
  Open();
  Begin(1);
  Flushed();
  EXPECT_FALSE(fake_.ExperimentIsDeleted("FLOps Project p1"));
  EXPECT_EQ(fake_.RunsOf("p1/round/1").size(), 1U);
}

TEST_F(TrackerTest, ARunIsMadeOnceWhenTheServersAnswerIsNotHeard) {
  for (const Fault fault : {Fault::kUnheard, Fault::kGarbage, Fault::kLost, Fault::kError}) {
    const int number = 10 + static_cast<int>(fault);
    int left = 2;
    fake_.OnRequest([&left, fault](const std::string& route, const std::string&) {
      return route == "runs/create" && left-- > 0 ? fault : Fault::kNone;
    });
    Open();
    Begin(number);
    Flushed();
    fake_.OnRequest(nullptr);
    EXPECT_EQ(fake_.RunsOf(Round(number).id).size(), 1U) << number;
  }
}

TEST_F(TrackerTest, ARunThatWasMadeLongAfterItsRequestWasGivenUpIsDeleted) {
  // The first request is carried out only when the second one, and its search, are over.
  int creates = 0;
  fake_.OnRequest([&](const std::string& route, const std::string&) {
    return route == "runs/create" && creates++ == 0 ? Fault::kLost : Fault::kNone;
  });
  Open();
  Begin(1);
  Flushed();
  const std::string ours = *tracker_->RunIdOf("p1/round/1");
  auto client = MlflowClient::Make(fake_.url(), {});
  ASSERT_TRUE(client.ok());
  ASSERT_TRUE((*client)
                  ->CreateRun({.experiment_id = *tracker_->ExperimentIdOf("p1/round/1"),
                               .name = "FLOps FL round 1",
                               .started_at = kNow,
                               .tags = {{"umbel.run", "p1/round/1"}}})
                  .ok());
  ASSERT_EQ(fake_.RunsOf("p1/round/1").size(), 2U);
  Ok(tracker_->End("p1/round/1", "FINISHED", kNow));
  Flushed();
  EXPECT_EQ(fake_.RunOf("p1/round/1").id, ours);
}

TEST_F(TrackerTest, AParamThatHasAnotherValueThereIsRefusedAlone) {
  fake_.PutParams({{"fraction_fit", "0.5"}});
  Open();
  Begin(1);
  Ok(tracker_->Log("p1/round/1", {At("loss", 1, 1)}));
  Flushed();
  const FakeRun run = fake_.RunOf("p1/round/1");
  EXPECT_EQ(run.params.at("fraction_fit"), "0.5");
  EXPECT_EQ(run.params.at("min_fit_clients"), "2");
  EXPECT_EQ(run.points.size(), 1U);
  EXPECT_EQ(tracker_->state().refused, 1U);
  EXPECT_NE(tracker_->state().trouble.find("param 'fraction_fit' of run 'p1/round/1'"),
            std::string::npos)
      << tracker_->state().trouble;
}

TEST_F(TrackerTest, AnErrorAtOneRunDelaysNoOther) {
  Open();
  Begin(1);
  Flushed();
  const std::string sick = *tracker_->RunIdOf("p1/round/1");
  std::atomic<bool> broken{true};
  fake_.OnRequest([&](const std::string&, const std::string& body) {
    return broken && body.find(sick) != std::string::npos ? Fault::kError : Fault::kNone;
  });
  Ok(tracker_->Log("p1/round/1", {At("loss", 1, 1)}));
  ASSERT_TRUE(bell_->Until([&] { return !tracker_->state().trouble.empty(); }));
  Begin(2);
  Ok(tracker_->Log("p1/round/2", {At("loss", 1, 1)}));
  ASSERT_TRUE(bell_->Until([&] { return tracker_->state().waiting == 1; }));
  EXPECT_EQ(fake_.RunOf("p1/round/2").points.size(), 1U);
  EXPECT_NE(tracker_->state().trouble.find("500 INTERNAL_ERROR"), std::string::npos);
  broken = false;
  Flushed();
  EXPECT_EQ(fake_.RunOf("p1/round/1").points.size(), 1U);
  EXPECT_EQ(tracker_->state().trouble, "");
}

TEST_F(TrackerTest, AServerThatDoesNotAnswerIsLeftAtOnce) {
  fake_.OnRequest([](const std::string&, const std::string&) { return Fault::kHang; });
  Open();
  Begin(1);
  while (fake_.requests() == 0) std::this_thread::yield();
  const auto begin = std::chrono::steady_clock::now();
  tracker_.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(5));
}

TEST_F(TrackerTest, AServerThatDoesNotAnswerIsAskedAgain) {
  std::atomic<int> asked{0};
  fake_.OnRequest([&](const std::string&, const std::string&) {
    return asked++ < 2 ? Fault::kHang : Fault::kNone;
  });
  options_.request_timeout = milliseconds(200);
  Open();
  Begin(1);
  ASSERT_TRUE(bell_->Until([&] { return !tracker_->state().trouble.empty() || asked > 2; }));
  Flushed();
  EXPECT_GE(asked, 3);
}

TEST_F(TrackerTest, WhatIsNotMlflowIsToldAndNothingIsGivenUp) {
  std::atomic<bool> right{false};
  fake_.OnRequest([&](const std::string&, const std::string&) {
    return right ? Fault::kNone : Fault::kGarbage;
  });
  Open();
  Begin(1);
  ASSERT_TRUE(bell_->Until([&] { return !tracker_->state().trouble.empty(); }));
  EXPECT_NE(tracker_->state().trouble.find("the answer is not MLflow's"), std::string::npos)
      << tracker_->state().trouble;
  right = true;
  Flushed();
  EXPECT_EQ(tracker_->state().refused, 0U);
  EXPECT_EQ(fake_.RunsOf("p1/round/1").size(), 1U);
}

TEST_F(TrackerTest, AFullSpoolRefusesMetricsButNotTheEnd) {
  fake_.Stop();
  options_.spool_bytes_max = 512 * 1024;
  Open();
  Begin(1);
  const auto some = [](size_t number) {
    std::vector<Metric> metrics;
    for (size_t i = 0; i < 500; ++i)
      metrics.push_back(At("loss", 1, static_cast<int64_t>(number * 500 + i)));
    return metrics;
  };
  Status full;
  size_t taken = 0;
  for (; taken < 100 && full.ok(); ++taken) full = tracker_->Log("p1/round/1", some(taken));
  EXPECT_EQ(CodeOf(full), Code::kResourceExhausted);
  EXPECT_NE(full.error().message.find("512 KiB are allowed"), std::string::npos);
  EXPECT_GT(taken, 3U);
  EXPECT_LT(taken, 30U);
  Ok(tracker_->End("p1/round/1", "FINISHED", kNow));
  fake_.Restart();
  Flushed();
  EXPECT_EQ(fake_.RunOf("p1/round/1").points.size(), (taken - 1) * 500);
  EXPECT_EQ(fake_.RunOf("p1/round/1").status, "FINISHED");
  Ok(tracker_->Log("p1/round/1", some(taken)));  // there is room again
}

TEST_F(TrackerTest, WhatMakesNoSenseIsRefusedAtOnce) {
  Open();
  EXPECT_EQ(CodeOf(tracker_->Log("nobody", {At("a", 1, 1)})), Code::kNotFound);
  EXPECT_EQ(CodeOf(tracker_->Tag("nobody", "a", "b")), Code::kNotFound);
  EXPECT_EQ(CodeOf(tracker_->End("nobody", "FINISHED", kNow)), Code::kNotFound);
  for (const std::string& id : {std::string(), std::string("a'b"), std::string("a b"),
                                std::string("a\nb"), std::string(251, 'x')}) {
    RunStart run = Round(1);
    run.id = id;
    EXPECT_EQ(CodeOf(tracker_->Begin(run)), Code::kInvalidArgument) << id;
  }
  Begin(1);
  EXPECT_EQ(CodeOf(tracker_->End("p1/round/1", "DONE", kNow)), Code::kInvalidArgument);
  EXPECT_EQ(CodeOf(tracker_->Tag("p1/round/1", "umbel.run", "x")), Code::kInvalidArgument);
  Tracker::Options other = options_;
  for (const char* url : {"", "127.0.0.1:5000", "ftp://a", "http://", "http://a:0",
                          "http://a:99999", "http://u:p@h", "http://a/?x", "http://a b"}) {
    other.url = url;
    const auto opened = Tracker::Open(other);
    ASSERT_FALSE(opened.ok()) << url;
    EXPECT_EQ(opened.error().code, Code::kInvalidArgument) << opened.error().message;
  }
}

TEST_F(TrackerTest, ASpoolHasOneOwner) {
  Open();
  const auto second = Tracker::Open(options_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Code::kUnavailable);
  EXPECT_NE(second.error().message.find(options_.spool), std::string::npos);
}

TEST_F(TrackerTest, AFileThatIsNoSpoolIsLeftAlone) {
  options_.spool = folder_.path() + "/letter.txt";
  ASSERT_TRUE(WriteFileAtomic(options_.spool, std::string(5000, 'x')).ok());
  const auto opened = Tracker::Open(options_);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, Code::kDataLoss) << opened.error().message;
  EXPECT_EQ(*ReadFile(options_.spool), std::string(5000, 'x'));
}

}  // namespace
}  // namespace umbel::tracking
