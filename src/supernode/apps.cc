#include "supernode/apps.h"

#include "base/file.h"
#include "base/log.h"
#include "flower/fab.h"
#include "flower/fab_install.h"
#include "flower/run_config.h"
#include "flwr/common.pb.h"
#include "http/tasks.h"
#include "tensor/sha256.h"

namespace umbel::supernode {
namespace pb = flwr::proto;

namespace {
constexpr size_t kFabMax = size_t{1} << 30;
}  // namespace

Apps::Apps(std::string root, std::optional<gid_t> readable_by, Rules rules,
           boost::asio::thread_pool& pool)
    : root_(std::move(root)), readable_by_(readable_by), rules_(std::move(rules)), pool_(pool) {}

Task<Result<std::shared_ptr<const RunInfo>>> Apps::RunOf(FleetClient& fleet, NodeId node,
                                                         RunId run_id) {
  if (const auto known = runs_.find(run_id); known != runs_.end()) co_return known->second;
  auto asked = co_await Ask(fleet, node, run_id);
  if (!asked.ok()) co_return Fail(std::move(asked).error());
  // Another site of this process may have been faster: all share the first one's.
  co_return runs_.try_emplace(run_id, std::move(*asked)).first->second;
}

Task<Result<std::shared_ptr<const RunInfo>>> Apps::Ask(FleetClient& fleet, NodeId node,
                                                       RunId run_id) {
  auto info = std::make_shared<RunInfo>();
  UMBEL_CO_ASSIGN(info->run, co_await fleet.GetRun(node, run_id));
  pb::Run run;
  if (!run.ParseFromString(info->run))
    co_return Fail(Code::kDataLoss, fmt::format("get-run: run {} cannot be read", run_id));
  info->run_id = run_id;
  info->series_id = SeriesId{run.series_id()};
  UMBEL_CO_ASSIGN(FabReply fab, co_await fleet.GetFab(node, run_id, run.fab_hash()));
  auto work = [this, &fab, wanted = run.fab_hash()]() -> Result<std::shared_ptr<const App>> {
    const Digest hash = tensor::Sha256Of(fab.content);
    if (hash.Hex() != wanted)
      return Fail(Code::kDataLoss,
                  fmt::format("get-fab: asked for {}, got {}", wanted.substr(0, 80), hash.Hex()));
    return Install(std::move(fab), hash);
  };
  UMBEL_CO_ASSIGN(info->app, co_await http::RunOn(pool_, std::move(work)));
  auto config = flower::ReadFab(info->app->content);
  if (!config.ok()) co_return Fail(std::move(config).error());
  UMBEL_CO_ASSIGN(info->run_config, flower::FuseRunConfig(*config, info->run));
  LogInfo("run is known", {{"run_id", run_id},
                           {"app", fmt::format("{}=={}", info->app->fab_id, info->app->version)},
                           {"fab", info->app->hash.Hex().substr(0, 8)}});
  co_return std::shared_ptr<const RunInfo>(std::move(info));
}

Task<Result<std::shared_ptr<const App>>> Apps::FromFile(const std::string& path) {
  auto work = [this, path]() -> Result<std::shared_ptr<const App>> {
    FabReply fab;
    UMBEL_ASSIGN(fab.content, ReadFile(path, kFabMax));
    const Digest hash = tensor::Sha256Of(fab.content);
    return Install(std::move(fab), hash);
  };
  co_return co_await http::RunOn(pool_, std::move(work));
}

Result<std::shared_ptr<const App>> Apps::Install(FabReply fab, const Digest& hash) const {
  const auto refused = [](const Error& why) {
    return Fail(Code::kPermissionDenied, why.message, kRefusedFab);
  };
  if (rules_.trusted) {
    const std::map<std::string, std::string> records(fab.verifications.begin(),
                                                     fab.verifications.end());
    if (const Status verified = rules_.trusted->Verify(hash, records); !verified.ok())
      return refused(verified.error());
  }
  auto info = flower::ReadFab(fab.content);
  if (!info.ok())
    return Fail(Code::kPermissionDenied, "The FAB is broken: " + info.error().message, kRefusedFab);
  if (const Status allowed = rules_.allow.Allows(*info); !allowed.ok())
    return refused(allowed.error());
  if (info->clientapp.empty())
    return Fail(
        Code::kPermissionDenied,
        fmt::format("{} has no ClientApp: [tool.flwr.app.components] names none", info->fab_id),
        kRefusedFab);
  auto app = std::make_shared<App>();
  app->fab_id = info->fab_id;
  app->version = info->version;
  app->hash = hash;
  app->clientapp = info->clientapp;
  UMBEL_ASSIGN(app->directory, flower::InstallFab(fab.content, *info, {root_, readable_by_}));
  app->content = std::move(fab.content);
  return std::shared_ptr<const App>(std::move(app));
}

}  // namespace umbel::supernode
