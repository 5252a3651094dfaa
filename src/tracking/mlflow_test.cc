#include "tracking/mlflow.h"

#include <gtest/gtest.h>

#include <cmath>
#include <deque>
#include <thread>

#include "tracking/answers.h"
#include "tracking/fake_mlflow.h"

namespace umbel::tracking {
namespace {

using std::chrono::milliseconds;

/// Answers each request with the next of what it was given, and notes what it was asked.
class Parrot {
 public:
  Parrot() {
    http::ServerOptions options;
    options.port = 0;
    auto server =
        http::Server::Start(options, [this](http::Exchange& exchange) -> http::Task<void> {
          auto body = co_await exchange.ReadBody(size_t{1} << 20);
          http::Response answer = Next(exchange, body.ok() ? *body : std::string());
          co_await exchange.Reply(std::move(answer));
        });
    UMBEL_CHECK(server.ok());
    server_ = std::move(*server);
  }

  std::string url() const { return fmt::format("http://127.0.0.1:{}", server_->port()); }
  void Say(int status, std::string body) {
    std::lock_guard lock(mutex_);
    answers_.emplace_back(status, "application/json", std::move(body));
  }
  std::string asked() {
    std::lock_guard lock(mutex_);
    return asked_;
  }

 private:
  http::Response Next(http::Exchange& exchange, const std::string& body) {
    std::lock_guard lock(mutex_);
    asked_ = fmt::format("{} {}?{} {}", exchange.method(), exchange.path(), exchange.query(), body);
    if (answers_.empty()) return {500, "text/plain", "nothing to say"};
    http::Response answer = answers_.front();
    answers_.pop_front();
    return answer;
  }

  std::mutex mutex_;
  std::deque<http::Response> answers_;
  std::string asked_;
  std::unique_ptr<http::Server> server_;
};

class MlflowTest : public ::testing::Test {
 protected:
  MlflowTest() { Connect(parrot_.url()); }
  void Connect(const std::string& url, milliseconds timeout = milliseconds(20000)) {
    auto made = MlflowClient::Make(url, {.user = "ann", .timeout = timeout});
    ASSERT_TRUE(made.ok()) << made.error().message;
    client_ = std::move(*made);
  }

  Parrot parrot_;
  std::unique_ptr<MlflowClient> client_;
};

TEST_F(MlflowTest, ErrorsInMlflowsWords) {
  struct Case {
    int status;
    const char* body;
    Code code;
    bool refusal;
    const char* words;
  };
  const Case cases[] = {
      {404, R"({"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no\nrun"})", Code::kNotFound,
       true, "/api/2.0/mlflow/runs/get: 404 RESOURCE_DOES_NOT_EXIST: no run"},
      {400, R"({"error_code": "INVALID_PARAMETER_VALUE"})", Code::kInvalidArgument, true,
       "400 INVALID_PARAMETER_VALUE: "},
      {400, R"({"error_code": "RESOURCE_ALREADY_EXISTS", "message": ""})", Code::kAlreadyExists,
       true, "400 RESOURCE_ALREADY_EXISTS"},
      {404, R"({"error_code": "ENDPOINT_NOT_FOUND", "message": ""})", Code::kUnimplemented, false,
       "ENDPOINT_NOT_FOUND"},
      {429, R"({"error_code": "REQUEST_LIMIT_EXCEEDED", "message": ""})", Code::kResourceExhausted,
       false, "429"},
      {500, R"({"error_code": "INTERNAL_ERROR", "message": "db"})", Code::kUnavailable, false,
       "500 INTERNAL_ERROR: db"},
      {403, "Invalid Host header - possible DNS rebinding attack detected", Code::kPermissionDenied,
       false, "403, and not MLflow's words: Invalid Host header"},
      {401, R"({"error_code": "UNAUTHENTICATED", "message": ""})", Code::kUnauthenticated, false,
       "401"},
      {404, "<html>", Code::kUnimplemented, false, "not MLflow's words: <html>"},
      {404, R"({"error_code": 7, "message": []})", Code::kUnimplemented, false, "not MLflow's"},
      {400, "\xff\x1b[2J", Code::kUnavailable, false, "\xef\xbf\xbd [2J"},
      {302, "", Code::kDataLoss, false, "302"},
      {200, "", Code::kDataLoss, false, "not a JSON object"},
      {200, "[]", Code::kDataLoss, false, "not a JSON object: []"},
      {200, "{}", Code::kDataLoss, false, "'run' is not an object"},
      {200, R"({"run": {"info": {"run_id": 7}}})", Code::kDataLoss, false, "'run_id'"},
  };
  for (const Case& one : cases) {
    parrot_.Say(one.status, one.body);
    const auto got = client_->GetRun("abc");
    ASSERT_FALSE(got.ok()) << one.body;
    EXPECT_EQ(got.error().code, one.code) << got.error().message;
    EXPECT_EQ(IsRefusal(got.error()), one.refusal) << got.error().message;
    EXPECT_TRUE(got.error().message.starts_with(parrot_.url())) << got.error().message;
    EXPECT_NE(got.error().message.find(one.words), std::string::npos) << got.error().message;
  }
  EXPECT_EQ(parrot_.asked(), "GET /api/2.0/mlflow/runs/get?run_id=abc ");
}

TEST_F(MlflowTest, HostileAnswersAreErrors) {
  const auto run = [](const std::string& info, const std::string& data) {
    return R"({"run": {"info": {"run_id": "r", "experiment_id": "1")" + info + R"(}, "data": {)" +
           data + "}}}";
  };
  std::vector<std::string> bodies = {
      std::string(4'000'000, '['),
      R"({"a":)" + std::string(100, '{') + "}",
      "{\"run\": {\"info\": \xff}}",
      R"({"run": null})",
      R"({"run": {"info": []}})",
      run(R"(, "start_time": "soon")", ""),
      run(R"(, "start_time": 9223372036854775807)", ""),
      run(R"(, "start_time": 18446744073709551615)", ""),
      run(R"(, "start_time": 1e300)", ""),
      run(R"(, "status": {})", ""),
      run("", R"("metrics": {})"),
      run("", R"("metrics": [7])"),
      run("", R"("metrics": [{"key": "a", "value": "much"}])"),
      run("", R"("metrics": [{"key": "a", "value": NaN}])"),
      run("", R"("metrics": [{"key": "a", "value": 1, "step": 0.5}])"),
      run("", R"("params": [[]])"),
      run("", R"("tags": [{"key": null}])"),
  };
  for (const std::string& body : bodies) {
    parrot_.Say(200, body);
    const auto got = client_->GetRun("abc");
    ASSERT_FALSE(got.ok()) << body.substr(0, 200);
    EXPECT_EQ(got.error().code, Code::kDataLoss) << got.error().message;
    EXPECT_LT(got.error().message.size(), 1000U);
  }
  parrot_.Say(200, std::string(20 << 20, ' '));
  EXPECT_EQ(client_->GetRun("abc").error().code, Code::kResourceExhausted);
  // And it still works.
  parrot_.Say(200, run(R"(, "start_time": "5", "end_time": 7, "lifecycle_stage": "deleted")",
                       R"("metrics": [{"key": "a", "value": "-Infinity", "timestamp": 9}],)"
                       R"("params": [{"key": "p"}], "tags": [{"key": "t", "value": "v"}])"));
  const auto good = client_->GetRun("abc");
  ASSERT_TRUE(good.ok()) << good.error().message;
  EXPECT_EQ(good->started_at, WallTime(milliseconds(5)));
  EXPECT_EQ(good->ended_at, WallTime(milliseconds(7)));
  EXPECT_TRUE(good->deleted);
  EXPECT_EQ(good->params.at("p"), "");
  EXPECT_EQ(good->tags.at("t"), "v");
  ASSERT_EQ(good->metrics.size(), 1U);
  EXPECT_EQ(good->metrics[0].value, -HUGE_VAL);
}

TEST_F(MlflowTest, AnAnswerThatNeverEndsIsLeft) {
  FakeMlflow fake;
  fake.OnRequest([](const std::string&, const std::string&) { return Fault::kHang; });
  Connect(fake.url(), milliseconds(50));
  for (int i = 0; i < 2; ++i) {
    const auto late = client_->CreateExperiment("e");
    ASSERT_FALSE(late.ok());
    EXPECT_EQ(late.error().code, Code::kUnavailable);
    EXPECT_NE(late.error().message.find("no whole answer within 50 ms"), std::string::npos);
  }
  fake.OnRequest(nullptr);
  Connect(fake.url());
  EXPECT_TRUE(client_->CreateExperiment("e").ok());
}

TEST_F(MlflowTest, CancelEndsTheCallAndAllLaterOnes) {
  FakeMlflow fake;
  fake.OnRequest([](const std::string&, const std::string&) { return Fault::kHang; });
  Connect(fake.url());
  std::jthread other([&] {
    while (fake.requests() == 0) std::this_thread::yield();
    client_->Cancel();
  });
  EXPECT_EQ(client_->CreateExperiment("e").error().code, Code::kCancelled);
  EXPECT_EQ(client_->Models().error().code, Code::kCancelled);
}

TEST_F(MlflowTest, ExperimentsByName) {
  FakeMlflow fake;
  Connect(fake.url() + "/");
  const std::string name = "FLOps Project 50% & \"ü\"?";
  EXPECT_EQ(client_->ExperimentByName(name).error().code, Code::kNotFound);
  const auto made = client_->EnsureExperiment(name);
  ASSERT_TRUE(made.ok()) << made.error().message;
  EXPECT_EQ(*client_->EnsureExperiment(name), *made);
  EXPECT_EQ(client_->ExperimentByName(name)->name, name);
  EXPECT_EQ(client_->CreateExperiment(name).error().code, Code::kAlreadyExists);
  fake.PutExperiment("gone", true);
  EXPECT_TRUE(client_->ExperimentByName("gone")->deleted);
  EXPECT_TRUE(client_->EnsureExperiment("gone").ok());
  EXPECT_FALSE(fake.ExperimentIsDeleted("gone"));
}

TEST_F(MlflowTest, ARequestsJson) {
  Connect(parrot_.url() + "/sub/mlflow/");
  parrot_.Say(200, R"({"run": {"info": {"run_id": "r1", "experiment_id": "3"}}})");
  const auto made = client_->CreateRun({.experiment_id = "3",
                                        .name = "round",
                                        .started_at = WallTime(Micros(1999)),
                                        .tags = {{"a", "b"}}});
  EXPECT_EQ(*made, "r1");
  EXPECT_EQ(parrot_.asked(),
            R"(POST /sub/mlflow/api/2.0/mlflow/runs/create? {"experiment_id":"3",)"
            R"("run_name":"round","start_time":1,"tags":[{"key":"a","value":"b"}],)"
            R"("user_id":"ann"})");
  parrot_.Say(200, "{}");
  ASSERT_TRUE(client_->RunsByTag("3", "umbel.run", "x'y")->empty());
  EXPECT_NE(parrot_.asked().find(R"("filter":"tags.`umbel.run` = \"x'y\"")"), std::string::npos)
      << parrot_.asked();
  EXPECT_EQ(client_->RunsByTag("3", "umbel.run", "'\"").error().code, Code::kInvalidArgument);
  EXPECT_EQ(ToMillis(WallTime(Micros(-1))), -1);
}

TEST_F(MlflowTest, ModelsComeInPages) {
  parrot_.Say(
      200,
      R"({"registered_models": [{"name": "a", "aliases": [{"alias": "best", "version": "3"}]}],
                  "next_page_token": "x/="})");
  parrot_.Say(200, R"({"registered_models": [{"name": "b"}]})");
  const auto models = client_->Models();
  ASSERT_TRUE(models.ok()) << models.error().message;
  ASSERT_EQ(models->size(), 2U);
  EXPECT_EQ((*models)[0].aliases.at("best"), 3);
  EXPECT_TRUE((*models)[1].aliases.empty());
  EXPECT_NE(parrot_.asked().find("page_token=x%2F%3D"), std::string::npos) << parrot_.asked();
  parrot_.Say(200, R"({"model_version": {"name": "a", "version": "3", "run_id": "r",
                       "source": "models:/m-1", "status": "READY", "creation_timestamp": 5}})");
  const auto best = client_->VersionByAlias("a b", "best");
  ASSERT_TRUE(best.ok()) << best.error().message;
  EXPECT_EQ(best->version, 3);
  EXPECT_EQ(best->source, "models:/m-1");
  EXPECT_EQ(best->created_at, WallTime(milliseconds(5)));
  EXPECT_NE(parrot_.asked().find("?name=a%20b&alias=best"), std::string::npos);
  parrot_.Say(200, "{}");
  EXPECT_TRUE(client_->VersionsOf("a")->empty());
  parrot_.Say(200, R"({"metrics": [{"key": "loss", "value": "NaN", "step": "2"}]})");
  const auto history = client_->History("r", "loss");
  ASSERT_TRUE(history.ok()) << history.error().message;
  EXPECT_TRUE(std::isnan((*history)[0].value));
  EXPECT_EQ((*history)[0].step, 2);
}

TEST_F(MlflowTest, APageThatNamesItselfEnds) {
  for (int i = 0; i < 1001; ++i)
    parrot_.Say(200, R"({"registered_models": [{"name": "a"}], "next_page_token": "same"})");
  EXPECT_EQ(client_->Models().error().code, Code::kResourceExhausted);
}

}  // namespace
}  // namespace umbel::tracking
