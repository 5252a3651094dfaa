// Flower's API error codes, the HTTP status each travels with, and the sentences its users know.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::flower {

/// Numbers of Flower 1.41's ApiErrorCode that this server sends.
namespace wire {
inline constexpr int kNoFederationManagement = 1;
inline constexpr int kFederationNotFound = 2;
inline constexpr int kFederationNotSpecified = 12;
inline constexpr int kSeriesUnusable = 14;
inline constexpr int kInvalidRunConfig = 15;
inline constexpr int kRunIdNotFound = 16;
inline constexpr int kSeriesNotFound = 17;
inline constexpr int kRunAlreadyFinished = 18;
inline constexpr int kNoAccountAuth = 19;
inline constexpr int kNoArtifactProvider = 20;
inline constexpr int kPublicKeyNotValid = 22;
inline constexpr int kPublicKeyInUse = 23;
inline constexpr int kNodeNotFound = 24;
inline constexpr int kFederationUnknown = 25;
inline constexpr int kFederationNotMember = 26;
inline constexpr int kInvalidFederationName = 27;
inline constexpr int kNodeNotOwned = 28;
inline constexpr int kInvalidAppSpec = 33;
inline constexpr int kAppDownload = 35;
inline constexpr int kNotLoggedIn = 36;
inline constexpr int kInvalidConnector = 38;
inline constexpr int kConnectorNotFound = 39;
inline constexpr int kInvalidAutomation = 42;
inline constexpr int kUserPromptRequired = 44;
inline constexpr int kInvalidLocation = 45;
inline constexpr int kUnsupportedContent = 1002;
inline constexpr int kBadProtobuf = 1003;
inline constexpr int kRuntimeAuth = 1008;
inline constexpr int kRegistrationDisabled = 2001;
inline constexpr int kUnregistrationDisabled = 2002;
inline constexpr int kHeartbeatInterval = 2003;
inline constexpr int kActivateFailed = 2004;
inline constexpr int kDeactivateFailed = 2005;
inline constexpr int kUnregisterFailed = 2006;
inline constexpr int kRunNotRunning = 2007;
inline constexpr int kGetRunFailed = 2008;
inline constexpr int kGetFabFailed = 2009;
inline constexpr int kConnectorRefused = 3001;
inline constexpr int kTaskStart = 3002;
inline constexpr int kAutomationRefused = 3003;
inline constexpr int kNodeIdMismatch = 3004;
inline constexpr int kEndpointUnavailable = 3005;
inline constexpr int kTaskNotCreated = 3008;
inline constexpr int kTaskMessageRefused = 3009;
inline constexpr int kMessageCount = 3013;
inline constexpr int kMessageRunMismatch = 3014;
inline constexpr int kContextRefused = 3015;
}  // namespace wire

/// What an HTTP status other than 200 means to us, of a SuperLink's answer or of our own.
Code CodeOfStatus(int http_status);
/// HTTP status for a Flower code; 0 when the code is not one of ours.
int HttpStatusOf(int wire_code);
/// Flower's public sentence for a code; "" when it has none.
std::string_view PublicText(int wire_code);

/// An Error that doors answer as Flower's JSON `{"code", "detail", "extra"}`.
/// extra  what this server can say beyond the known sentence; may be "".
tl::unexpected<Error> WireError(int wire_code, std::string extra = {});

}  // namespace umbel::flower
