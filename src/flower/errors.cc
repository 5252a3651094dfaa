#include "flower/errors.h"

namespace umbel::flower {
namespace {

struct Row {
  int wire_code;
  int http_status;
  std::string_view text;
};

constexpr Row kRows[] = {
    {wire::kNoFederationManagement, 501, "SuperLink does not support federation management."},
    {wire::kFederationNotFound, 404,
     "Federation not found, archived, or you cannot perform this action."},
    {wire::kFederationNotSpecified, 412,
     "No federation specified. You must specify a federation to perform this action."},
    {wire::kSeriesUnusable, 500, "Failed to create or initialize the run."},
    {wire::kInvalidRunConfig, 412, "Invalid run configuration."},
    {wire::kRunIdNotFound, 404, "Run ID not found."},
    {wire::kSeriesNotFound, 404, "Run series ID not found."},
    {wire::kRunAlreadyFinished, 412, "Run is already finished."},
    {wire::kNoAccountAuth, 501, "SuperLink does not support account authentication."},
    {wire::kNoArtifactProvider, 501, "SuperLink has no artifact provider."},
    {wire::kPublicKeyNotValid, 412, "The provided public key is not valid."},
    {wire::kPublicKeyInUse, 412, "Public key already in use."},
    {wire::kNodeNotFound, 404, "Node ID not found for account."},
    {wire::kFederationUnknown, 412, "Federation does not exist."},
    {wire::kFederationNotMember, 412, "Federation does not exist or you are not a member of it."},
    {wire::kInvalidFederationName, 412, "Invalid federation name."},
    {wire::kNodeNotOwned, 412, "Node not found or you are not its owner."},
    {wire::kInvalidAppSpec, 412, "Invalid app specification."},
    {wire::kAppDownload, 412, "FAB download failed."},
    {wire::kNotLoggedIn, 401, "Not authenticated"},
    {wire::kInvalidConnector, 400, "Invalid connector request."},
    {wire::kConnectorNotFound, 404, "Connector not found."},
    {wire::kInvalidAutomation, 400, "Invalid automation request."},
    {wire::kUserPromptRequired, 400, "A user prompt is required to start an AgentApp run."},
    {wire::kInvalidLocation, 400, "Invalid SuperNode location."},
    {wire::kUnsupportedContent, 415, "Unsupported Content-Type."},
    {wire::kBadProtobuf, 400, "Invalid protobuf payload."},
    {wire::kRuntimeAuth, 401, "Authentication failed."},
    {wire::kRegistrationDisabled, 412,
     "SuperNode authentication is enabled. All SuperNodes must be registered via the CLI."},
    {wire::kUnregistrationDisabled, 412,
     "SuperNode authentication is enabled. All SuperNodes must be unregistered via the CLI."},
    {wire::kHeartbeatInterval, 400, "Invalid heartbeat interval."},
    {wire::kActivateFailed, 412, "Failed to activate SuperNode."},
    {wire::kDeactivateFailed, 412, "Failed to deactivate SuperNode."},
    {wire::kUnregisterFailed, 412, "Failed to unregister SuperNode."},
    {wire::kRunNotRunning, 403, "The current run status does not allow this Fleet API operation."},
    {wire::kGetRunFailed, 403, "Failed to get run."},
    {wire::kGetFabFailed, 403, "Failed to get FAB."},
    {wire::kConnectorRefused, 403, "Connector credentials are not available to this task."},
    {wire::kTaskStart, 412, "Failed to start task."},
    {wire::kAutomationRefused, 403, "Only AgentApp and ServerApp tasks can create automations."},
    {wire::kNodeIdMismatch, 412, "Unexpected node ID."},
    {wire::kEndpointUnavailable, 403,
     "Some Runtime API endpoints are only available for Deployment Runtime runs."},
    {wire::kTaskNotCreated, 412, "Invalid task creation request."},
    {wire::kTaskMessageRefused, 412, "Invalid task message."},
    {wire::kMessageCount, 400, "Invalid number of messages or message object trees."},
    {wire::kMessageRunMismatch, 403, "Message run ID does not match the authenticated task."},
    {wire::kContextRefused, 400, "Invalid compacted context request."},
};

const Row* Find(int wire_code) {
  for (const Row& row : kRows)
    if (row.wire_code == wire_code) return &row;
  return nullptr;
}

}  // namespace

Code CodeOfStatus(int http_status) {
  switch (http_status) {
    case 400:
    case 415:
      return Code::kInvalidArgument;
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 412:
      return Code::kFailedPrecondition;
    case 501:
      return Code::kUnimplemented;
    case 502:
    case 503:
    case 504:
      return Code::kUnavailable;
    default:
      return Code::kUnknown;
  }
}

int HttpStatusOf(int wire_code) {
  const Row* row = Find(wire_code);
  return row ? row->http_status : 0;
}

std::string_view PublicText(int wire_code) {
  const Row* row = Find(wire_code);
  return row ? row->text : std::string_view{};
}

tl::unexpected<Error> WireError(int wire_code, std::string extra) {
  return Fail(CodeOfStatus(HttpStatusOf(wire_code)), std::move(extra), wire_code);
}

}  // namespace umbel::flower
