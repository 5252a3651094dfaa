#include "clientapp/native_host.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_future.hpp>
#include <future>
#include <latch>
#include <stdexcept>
#include <thread>

#include "base/testing.h"
#include "clientapp/answer.h"
#include "flower/records_testing.h"

namespace umbel::clientapp {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::seconds;
using supernode::Host;
using supernode::Job;
using supernode::Outcome;

constexpr NodeId kNode{77};
constexpr RunId kRun{5}, kOtherRun{6};

Array Floats(const std::vector<float>& values) {
  return Array::Of<float>(values, std::vector{static_cast<int64_t>(values.size())}).value();
}

struct Oddity : std::exception {
  const char* what() const noexcept override { return "odd \xff"; }
};

TEST(Answer, TypesFindTheirFunctions) {
  ClientApp app;
  const auto says = [](std::string name) {
    return [name](Message&, Context&) -> Result<RecordDict> {
      RecordDict reply;
      reply[name] = MetricRecord();
      return reply;
    };
  };
  app.train = says("train");
  app.query = says("query");
  app.actions["train.prune"] = says("prune");
  const auto answer = [&](const std::string& type) {
    Message message{type, "1", {}};
    Context context;
    const Answer came = AnswerOf(app, message, context);
    if (const auto* error = std::get_if<flower::MessageError>(&came)) return error->reason;
    return std::get<RecordDict>(came).begin()->first;
  };
  EXPECT_EQ(answer("train"), "train");
  EXPECT_EQ(answer("train.default"), "train");
  EXPECT_EQ(answer("query"), "query");
  EXPECT_EQ(answer("train.prune"), "prune");
  for (const std::string type : {"evaluate", "train.other", "", "system", ".default"}) {
    const std::string reason = answer(type);
    EXPECT_TRUE(reason.starts_with("<class 'umbel::Error'>:<'")) << reason;
    EXPECT_TRUE(reason.ends_with(fmt::format("this ClientApp has no function for '{}''>", type)))
        << reason;
  }
}

TEST(Answer, WhatIsThrownIsToldAsFlowerTellsIt) {
  const auto reason = [](Handler handler) {
    ClientApp app;
    app.train = std::move(handler);
    Message message{"train", "1", {}};
    Context context;
    const Answer came = AnswerOf(app, message, context);
    const auto* error = std::get_if<flower::MessageError>(&came);
    EXPECT_TRUE(error != nullptr && error->code == 2);
    return error == nullptr ? "" : error->reason;
  };
  EXPECT_EQ(reason([](Message&, Context&) -> Result<RecordDict> { throw std::runtime_error("x"); }),
            "<class 'std::runtime_error'>:<'x'>");
  EXPECT_EQ(reason([](Message&, Context&) -> Result<RecordDict> { throw 7; }),
            "<class 'int'>:<''>");
  EXPECT_TRUE(reason([](Message&, Context&) -> Result<RecordDict> {
                throw Oddity();
              }).ends_with("Oddity'>:<'odd ?'>"));
  EXPECT_EQ(reason([](Message&, Context&) -> Result<RecordDict> {
              return Fail(Code::kNotFound, "no data");
            }),
            fmt::format("<class 'umbel::Error'>:<'{}'>",
                        Error{Code::kNotFound, "no data", 0}.ToString()));
  const std::string cut = reason([](Message&, Context&) -> Result<RecordDict> {
    throw std::runtime_error("a" + std::string(100'000, '\xc3'));
  });
  EXPECT_LT(cut.size(), 5000U);
}

class NativeHostTest : public ::testing::Test {
 protected:
  NativeHostTest() : thread_([this] { context_.run(); }) {}
  ~NativeHostTest() override {
    if (host_) Spawn(host_->Stop(seconds(5))).get();
    On([this] {
      host_.reset();
      return true;
    });
    guard_.reset();
    thread_.join();
  }

  void Open(ClientApp app, size_t threads = 2) {
    NativeOptions options;
    options.threads = threads;
    options.on_abandon = [this] { abandoned_ = true; };
    auto shared = std::make_shared<const ClientApp>(std::move(app));
    host_ = On([&] {
      return MakeNativeHost(context_.get_executor(), shared, std::move(options), clock_);
    });
  }
  void OpenTrain(Handler train, size_t threads = 2) {
    ClientApp app;
    app.train = std::move(train);
    Open(std::move(app), threads);
  }

  template <typename F>
  std::invoke_result_t<F> On(F f) {
    std::packaged_task<std::invoke_result_t<F>()> task(std::move(f));
    auto future = task.get_future();
    asio::post(context_, [&task] { task(); });
    return future.get();
  }
  template <typename T>
  std::future<T> Spawn(http::Task<T> task) {
    return asio::co_spawn(context_, std::move(task), asio::use_future);
  }
  std::future<Result<Outcome>> Run(const Job& job) { return Spawn(host_->Run(job)); }

  Job MakeJob(const RecordDict& content, RunId run_id = kRun, const std::string& state = "") {
    const auto spool = flower::NewSpool();
    flower::MessageHead head;
    head.run_id = run_id;
    head.src = kSuperLinkNode;
    head.dst = kNode;
    head.group_id = "3";
    head.type = "train";
    head.ttl = 3600;
    head.created_at = UnixSeconds(clock_.Now());
    auto run = std::make_shared<supernode::RunInfo>();
    run->run_id = run_id;
    run->run_config = {{"lr", 0.5}};
    Job job{std::move(run),
            kNode,
            {{"site", int64_t{4}}},
            flower::MakeParcel(head, Keep(content, *spool).value(), spool).value(),
            state,
            fmt::format("{}/out-{}", directory_.path(), ++jobs_)};
    return job;
  }
  static RecordDict ContentOf(const flower::Parcel& parcel) {
    const auto records = flower::ReadRecords(parcel);
    return Load(records.value(), *parcel.objects, 1 << 20).value();
  }
  static std::string ReasonOf(const Result<Outcome>& outcome) {
    if (!outcome.ok()) return "error " + outcome.error().message;
    return outcome->reply.error ? outcome->reply.error->reason : "";
  }

  const FakeClock clock_;
  const testing::TempDir directory_;
  asio::io_context context_;
  asio::executor_work_guard<asio::io_context::executor_type> guard_{context_.get_executor()};
  std::thread thread_;
  std::unique_ptr<Host> host_;
  std::atomic<bool> abandoned_ = false;
  int jobs_ = 0;
};

TEST_F(NativeHostTest, AMessageIsAnsweredAndItsStateKept) {
  OpenTrain([](Message& message, Context& context) -> Result<RecordDict> {
    EXPECT_EQ(message.type, "train");
    EXPECT_EQ(message.group_id, "3");
    EXPECT_EQ(context.run_id, kRun);
    EXPECT_EQ(context.node_id, kNode);
    UMBEL_ASSIGN(ArrayRecord * arrays, message.content.Arrays("arrays"));
    UMBEL_ASSIGN(const auto values, Values<float>(*arrays, "w", {3}));
    UMBEL_ASSIGN(const double rate, Get<double>(context.run_config, "lr"));
    for (float& value : values) value *= static_cast<float>(rate);
    ArrayRecord* const sums = [&] {
      if (context.state.Find("sums") == nullptr)
        context.state["sums"] = ArrayRecord{{"w", Floats({0, 0, 0})}};
      return *context.state.Arrays("sums");
    }();
    UMBEL_ASSIGN(const auto sum, Values<float>(*sums, "w", {3}));
    for (size_t i = 0; i < 3; ++i) sum[i] += values[i];
    RecordDict reply;
    reply["arrays"] = std::move(*arrays);
    reply["sums"] = *sums;
    reply["metrics"] = MetricRecord{{"site", *Get<int64_t>(context.node_config, "site")}};
    return reply;
  });
  std::string state;
  for (const float round : {1.0F, 2.0F, 3.0F}) {
    RecordDict content;
    content["arrays"] = ArrayRecord{{"w", Floats({2, 4, 6})}};
    const Job job = MakeJob(content, kRun, state);
    auto outcome = Run(job).get();
    ASSERT_TRUE(outcome.ok()) << outcome.error().message;
    ASSERT_FALSE(outcome->reply.error) << outcome->reply.error->reason;
    EXPECT_EQ(outcome->reply.head.reply_to, job.instruction.head.message_id);
    EXPECT_EQ(outcome->reply.head.dst, kSuperLinkNode);
    EXPECT_GE(outcome->runtime_seconds, 0);
    RecordDict wanted;
    wanted["arrays"] = ArrayRecord{{"w", Floats({1, 2, 3})}};
    wanted["sums"] = ArrayRecord{{"w", Floats({round, 2 * round, 3 * round})}};
    wanted["metrics"] = MetricRecord{{"site", int64_t{4}}};
    EXPECT_EQ(ContentOf(outcome->reply), wanted);
    ASSERT_TRUE(outcome->state);
    state = *outcome->state;
  }
  EXPECT_EQ(On([&] { return host_->Describe(); }),
            "0 of 2 threads work, in this process: without limits");
}

TEST_F(NativeHostTest, AFailureIsAReplyAndItsStateIsKept) {
  OpenTrain([](Message&, Context& context) -> Result<RecordDict> {
    context.state["seen"] = MetricRecord{{"n", int64_t{1}}};
    throw std::runtime_error("no luck");
  });
  const auto outcome = Run(MakeJob({})).get();
  EXPECT_EQ(ReasonOf(outcome), "<class 'std::runtime_error'>:<'no luck'>");
  EXPECT_EQ(outcome->reply.error->code, 2);
  const auto spool = flower::NewSpool();
  const auto state = flower::DecodeState(outcome->state.value(), *spool);
  ASSERT_TRUE(state.ok());
  EXPECT_EQ(state->size(), 1U);
}

TEST_F(NativeHostTest, WhatCannotBeSentOrKeptIsTold) {
  OpenTrain([](Message& message, Context& context) -> Result<RecordDict> {
    const std::string bad = "\xff";
    if (message.content.Find("state") != nullptr) {
      context.state[bad] = MetricRecord();
      return RecordDict();
    }
    RecordDict reply;
    reply[bad] = MetricRecord();
    return reply;
  });
  EXPECT_TRUE(ReasonOf(Run(MakeJob({})).get()).starts_with("the reply cannot be sent: "));
  RecordDict content;
  content["state"] = MetricRecord();
  const auto outcome = Run(MakeJob(content)).get();
  EXPECT_TRUE(ReasonOf(outcome).starts_with("the context's state cannot be kept: "));
  EXPECT_FALSE(outcome->state);
}

TEST_F(NativeHostTest, AnInstructionThatCannotBeReadIsAnswered) {
  OpenTrain([](Message&, Context&) -> Result<RecordDict> {
    ADD_FAILURE() << "it was called";
    return RecordDict();
  });
  Job job = MakeJob({});
  flower::ArrayRecord arrays;
  arrays.emplace_back("w", flower::ArrayRef{"float32", {1}, "numpy.ndarray", {}});
  const auto spool = flower::NewSpool();
  job.instruction = flower::MakeParcel(job.instruction.head, {{"arrays", arrays}}, spool).value();
  const auto outcome = Run(job).get();
  EXPECT_EQ(ReasonOf(outcome),
            "the instruction cannot be read: 'arrays': 'w': NPY header: it is not whole");
  EXPECT_EQ(outcome->reply.error->code, 0);
  EXPECT_FALSE(outcome->state);
}

TEST_F(NativeHostTest, JobsRunSideBySide) {
  std::latch both(2);
  OpenTrain([&](Message&, Context&) -> Result<RecordDict> {
    both.arrive_and_wait();
    return RecordDict();
  });
  const Job first = MakeJob({}), second = MakeJob({}, kOtherRun);
  auto one = Run(first), two = Run(second);
  EXPECT_EQ(ReasonOf(one.get()), "");
  EXPECT_EQ(ReasonOf(two.get()), "");
}

TEST_F(NativeHostTest, ARunThatIsOverAsksItsCallsToStop) {
  std::latch begun(2);
  OpenTrain([&](Message&, Context& context) -> Result<RecordDict> {
    begun.arrive_and_wait();
    while (context.run_id == kRun && !context.stop.stop_requested()) std::this_thread::yield();
    return RecordDict();
  });
  const Job job = MakeJob({}), other = MakeJob({}, kOtherRun);
  auto dropped = Run(job), stays = Run(other);
  begun.wait();
  On([&] {
    host_->Drop(kRun);
    return true;
  });
  EXPECT_EQ(dropped.get().error().code, Code::kCancelled);
  EXPECT_EQ(ReasonOf(stays.get()), "");
}

TEST_F(NativeHostTest, StopAsksAndWaits) {
  std::latch begun(1);
  OpenTrain([&](Message&, Context& context) -> Result<RecordDict> {
    begun.count_down();
    while (!context.stop.stop_requested()) std::this_thread::yield();
    return RecordDict();
  });
  const Job job = MakeJob({});
  auto outcome = Run(job);
  begun.wait();
  Spawn(host_->Stop(seconds(60))).get();
  EXPECT_EQ(ReasonOf(outcome.get()), "");
  EXPECT_FALSE(abandoned_);
  EXPECT_EQ(Run(job).get().error().code, Code::kCancelled);
}

TEST_F(NativeHostTest, StopDoesNotWaitForEver) {
  std::latch begun(1), release(1), ended(1);
  OpenTrain(
      [&](Message&, Context&) -> Result<RecordDict> {
        begun.count_down();
        release.wait();
        ended.count_down();
        return RecordDict();
      },
      1);
  const Job job = MakeJob({});
  auto outcome = Run(job);
  begun.wait();
  Spawn(host_->Stop(milliseconds(20))).get();
  EXPECT_EQ(outcome.get().error().code, Code::kCancelled);
  EXPECT_TRUE(abandoned_);
  On([this] {
    host_.reset();
    return true;
  });
  // The call that was left behind touches nothing of ours.
  release.count_down();
  ended.wait();
}

}  // namespace
}  // namespace umbel::clientapp
