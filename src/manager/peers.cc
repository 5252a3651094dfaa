#include "manager/peers.h"

#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "http/call.h"
#include "manager/child.h"
#include "manager/git.h"
#include "manager/mlflow_lock.h"
#include "rounds_client/initial_model.h"
#include "rounds_client/rounds.h"
#include "tensor/sha256.h"
#include "umbel/rounds.pb.h"

namespace umbel::manager {
namespace {

namespace fs = std::filesystem;
namespace pb = ::umbel::rounds;
using rounds_client::SuperLinkClient;

constexpr std::chrono::seconds kHold{20};
constexpr std::chrono::milliseconds kHealthPause{100};
constexpr std::chrono::seconds kInstallLimit{3600};

/// A client that ends its calls when it is to stop.
class Client {
 public:
  static Result<Client> Open(const std::string& address, const std::stop_token& stop) {
    UMBEL_ASSIGN(auto made, SuperLinkClient::Make(address, true, ""));
    return Client(std::move(made), stop);
  }
  SuperLinkClient& operator*() { return *client_; }

 private:
  struct Cancel {
    SuperLinkClient* client;
    void operator()() const { client->Cancel(); }
  };
  Client(std::unique_ptr<SuperLinkClient> client, const std::stop_token& stop)
      : client_(std::move(client)),
        cancel_(std::make_unique<std::stop_callback<Cancel>>(stop, Cancel{client_.get()})) {}

  std::unique_ptr<SuperLinkClient> client_;
  std::unique_ptr<std::stop_callback<Cancel>> cancel_;
};

RoundSeen ToSeen(const pb::RoundRecord& record) {
  RoundSeen seen;
  seen.sequence = record.sequence();
  seen.round = record.round();
  seen.kind = record.kind();
  seen.at = record.at();
  seen.outcome = record.outcome();
  const pb::Phase& phase = record.phase();
  seen.seconds = phase.seconds_collected() + phase.seconds_closed();
  seen.asked = phase.asked();
  seen.accepted = phase.accepted();
  seen.bytes = phase.bytes_received();
  for (const auto& item : phase.metrics().items()) {
    if (item.value().has_double_()) seen.metrics[item.key()] = item.value().double_();
    if (item.value().has_sint64())
      seen.metrics[item.key()] = static_cast<double>(item.value().sint64());
  }
  for (const auto& node : phase.nodes())
    if (node.outcome() != "accepted")
      seen.troubles.push_back({node.node_id(), node.outcome(), node.detail()});
  return seen;
}

/// One GET. returns  its status; 0: nobody answers.
int StatusOf(const std::string& host, uint16_t port, const std::string& path,
             const std::stop_token& stop) {
  http::ClientOptions options;
  options.host = host;
  options.port = port;
  options.connect_timeout = std::chrono::seconds(2);
  http::ClientRequest request("GET", path);
  request.timeout = std::chrono::seconds(10);
  const auto answer = http::CallOnce(std::move(options), request, 1 << 20, stop);
  return answer.ok() ? answer->status : 0;
}

class RealPeers final : public Peers {
 public:
  explicit RealPeers(RealPeersOptions options) : options_(std::move(options)) {}

  Result<Checkout> Fetch(const Sla& sla, const std::string& commit, const std::string& token_file,
                         std::stop_token stop) override {
    return FetchRepository(options_.repositories, sla, commit, token_file, stop);
  }

  Result<TrainingRun> Begin(const std::string& address, const TrainingWish& wish,
                            std::stop_token stop) override {
    UMBEL_ASSIGN(Client client, Client::Open(address, stop));
    UMBEL_ASSIGN(const auto runs, rounds_client::ListRuns(*client));
    for (const auto& run : runs)
      if (!run.finished) UMBEL_TRY(rounds_client::StopRun(*client, run.run_id));
    UMBEL_ASSIGN(std::string fab, ReadFile(wish.fab, size_t{1} << 30));
    pb::StartNativeRunRequest request;
    request.mutable_run()->mutable_fab()->set_hash_str(tensor::Sha256Of(fab).Hex());
    request.mutable_run()->mutable_fab()->set_content(std::move(fab));
    pb::Plan& plan = *request.mutable_plan();
    plan.set_strategy("FedAvg");
    plan.set_num_rounds(wish.rounds);
    plan.set_timeout(wish.round_timeout);
    auto& parameters = *plan.mutable_parameters();
    parameters["min_available_nodes"].set_sint64(wish.min_available);
    parameters["min_train_nodes"].set_sint64(wish.min_fit);
    parameters["min_evaluate_nodes"].set_sint64(wish.min_evaluate);
    plan.set_min_train_replies(wish.min_fit);
    plan.set_keep_models(pb::Plan::BEST);
    plan.mutable_stop()->set_metric("accuracy");
    plan.mutable_stop()->set_tie_metric("loss");
    UMBEL_ASSIGN(const auto run, rounds_client::StartRun(*client, request));
    return TrainingRun{run.run_id.value, run.token};
  }

  Status SendModel(const std::string& address, const TrainingRun& run, const std::string& npz,
                   double created_at, std::stop_token stop) override {
    UMBEL_ASSIGN(Client client, Client::Open(address, stop));
    UMBEL_ASSIGN(const auto spool, flower::Spool::Create(""));
    UMBEL_ASSIGN(const auto arrays, rounds_client::ReadModel(npz, *spool));
    return rounds_client::SendModel(*client, {RunId{run.id}, run.token}, arrays, spool, created_at);
  }

  Result<Seen> Watch(const std::string& address, uint64_t run, uint64_t after,
                     std::stop_token stop) override {
    UMBEL_ASSIGN(Client client, Client::Open(address, stop));
    UMBEL_ASSIGN(auto records, rounds_client::WatchRounds(*client, RunId{run}, after, kHold));
    Seen seen;
    if (records.empty()) {
      UMBEL_ASSIGN(const auto state, rounds_client::StateOf(*client, RunId{run}));
      if (!state.finished) return seen;
      // What was told between the two questions comes first.
      UMBEL_ASSIGN(records,
                   rounds_client::WatchRounds(*client, RunId{run}, after, std::chrono::seconds(0)));
      seen.finished = records.empty();
      seen.well = state.well;
      seen.outcome = state.details.empty() ? state.outcome : state.details;
    }
    for (const pb::RoundRecord& record : records) seen.records.push_back(ToSeen(record));
    return seen;
  }

  Result<uint32_t> WaitForNodes(const std::string& address, uint32_t count,
                                std::stop_token stop) override {
    UMBEL_ASSIGN(Client client, Client::Open(address, stop));
    return rounds_client::WatchNodes(*client, count, kHold);
  }

  Status SaveModel(const std::string& address, uint64_t run, uint32_t round, const std::string& npz,
                   std::stop_token stop) override {
    UMBEL_ASSIGN(Client client, Client::Open(address, stop));
    return rounds_client::SaveModel(*client, RunId{run}, round, npz);
  }

  Status WaitHealthy(const std::string& url, std::chrono::seconds limit,
                     std::stop_token stop) override {
    // http://host:port/path, of our own making.
    const size_t host = url.find("://") + 3;
    const size_t slash = url.find('/', host);
    const size_t colon = url.find(':', host);
    const auto port = static_cast<uint16_t>(std::stoul(url.substr(colon + 1, slash - colon - 1)));
    const auto until = std::chrono::steady_clock::now() + limit;
    for (;;) {
      const int status = StatusOf(url.substr(host, colon - host), port, url.substr(slash), stop);
      if (status == 200) return {};
      if (stop.stop_requested()) return Fail(Code::kCancelled, "it was cancelled");
      if (std::chrono::steady_clock::now() >= until)
        return Fail(Code::kDeadlineExceeded, status == 0
                                                 ? fmt::format("{}: nobody answers", url)
                                                 : fmt::format("{} answers {}", url, status));
      std::mutex mutex;
      std::condition_variable_any pause;
      std::unique_lock lock(mutex);
      pause.wait_for(lock, stop, kHealthPause, [] { return false; });
    }
  }

  Result<std::unique_ptr<tracking::Tracker>> OpenTracker(
      const tracking::Tracker::Options& options) override {
    return tracking::Tracker::Open(options);
  }

  Result<uint64_t> Share(const ShareWish& wish, std::stop_token stop) override {
    std::vector<std::string> arguments = {"--of", std::to_string(wish.of)};
    for (const std::string& tag : wish.tags) arguments.insert(arguments.end(), {"--tag", tag});
    UMBEL_ASSIGN(const std::string told, AskData("assign", wish, arguments, stop));
    const auto share = nlohmann::json::parse(told, nullptr, false);
    if (!share.is_object() || !share.contains("rows") || !share["rows"].is_number_unsigned())
      return Fail(Code::kInternal,
                  fmt::format("the data server at {} answers in other words", wish.location));
    return share["rows"].get<uint64_t>();
  }

  Status Unshare(const ShareWish& wish, std::stop_token stop) override {
    UMBEL_TRY(AskData("release", wish, {}, stop));
    return {};
  }

  Result<std::string> MakeMlflow(const std::string& folder, std::stop_token stop) override {
    const std::string lock(MlflowLock());
    const std::string home = folder + "/" + tensor::Sha256Of(lock).Hex().substr(0, 16);
    const std::string python = home + "/bin/python";
    if (fs::exists(home + "/.complete")) return python;
    UMBEL_TRY(MakeDirectories(folder));
    const std::string list = folder + "/requirements.txt";
    UMBEL_TRY(WriteFileAtomic(list, lock));
    const std::vector<std::vector<std::string>> steps = {
        {"venv", "--quiet", "--clear", "--python", options_.python, home},
        {"pip", "install", "--quiet", "--python", python, "--require-hashes", "-r", list}};
    for (const auto& step : steps) {
      ChildRequest request;
      request.arguments = {options_.python, "-m", "uv"};
      request.arguments.insert(request.arguments.end(), step.begin(), step.end());
      request.environment = ChildEnvironment();
      request.limit = kInstallLimit;
      UMBEL_ASSIGN(const ChildEnd end, RunChild(request, stop));
      if (end.status != 0)
        return Fail(
            Code::kFailedPrecondition,
            fmt::format("uv cannot make an environment with MLflow in '{}': {}. "
                        "--mlflow-python names one that is there",
                        home,
                        end.errors.substr(end.errors.size() < 600 ? 0 : end.errors.size() - 600)));
    }
    UMBEL_TRY(WriteFileAtomic(home + "/.complete", ""));
    return python;
  }

 private:
  Result<std::string> AskData(const std::string& what, const ShareWish& wish,
                              const std::vector<std::string>& more, std::stop_token stop) {
    ChildRequest request;
    request.arguments = {options_.dataserver, what,         "--to",      wish.location,
                         "--project",         wish.project, "--learner", wish.learner};
    request.arguments.insert(request.arguments.end(), more.begin(), more.end());
    request.environment = ChildEnvironment();
    UMBEL_ASSIGN(ChildEnd end, RunChild(request, stop));
    if (end.status == 0) return std::move(end.output);
    // EX_TEMPFAIL: it may not be up yet.
    return Fail(end.status == 75 ? Code::kUnavailable : Code::kFailedPrecondition,
                end.errors.substr(0, end.errors.find_last_not_of('\n') + 1));
  }

  const RealPeersOptions options_;
};

}  // namespace

std::unique_ptr<Peers> MakeRealPeers(const RealPeersOptions& options) {
  return std::make_unique<RealPeers>(options);
}

}  // namespace umbel::manager
