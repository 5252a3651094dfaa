#include "dataserver/arrow_status.h"

#include <arrow/flight/types.h>

namespace umbel::dataserver {
namespace {

using arrow::flight::FlightStatusCode;
using arrow::flight::FlightStatusDetail;
using arrow::flight::MakeFlightError;

Code CodeOf(const arrow::Status& status) {
  if (const auto detail = FlightStatusDetail::UnwrapStatus(status)) {
    switch (detail->code()) {
      case FlightStatusCode::TimedOut:
        return Code::kDeadlineExceeded;
      case FlightStatusCode::Cancelled:
        return Code::kCancelled;
      case FlightStatusCode::Unauthenticated:
        return Code::kUnauthenticated;
      case FlightStatusCode::Unauthorized:
        return Code::kPermissionDenied;
      case FlightStatusCode::Unavailable:
        return Code::kUnavailable;
      case FlightStatusCode::Internal:
      case FlightStatusCode::Failed:
        return Code::kInternal;
    }
  }
  if (status.IsInvalid() || status.IsTypeError()) return Code::kInvalidArgument;
  if (status.IsKeyError()) return Code::kNotFound;
  if (status.IsAlreadyExists()) return Code::kAlreadyExists;
  if (status.IsCancelled()) return Code::kCancelled;
  if (status.IsNotImplemented()) return Code::kUnimplemented;
  if (status.IsOutOfMemory() || status.IsCapacityError()) return Code::kResourceExhausted;
  return Code::kInternal;
}

/// What is for people: not what gRPC adds for those who debug it.
std::string WithoutDebugContext(std::string message) {
  for (const std::string_view mark :
       {". gRPC client debug context:", ". Client context:", ". Detail:"})
    if (const size_t at = message.find(mark); at != std::string::npos) message.resize(at);
  return message;
}

}  // namespace

Error FromArrow(const arrow::Status& status) {
  return {CodeOf(status), WithoutDebugContext(status.message()), 0};
}

arrow::Status ToArrow(const Error& error) {
  switch (error.code) {
    case Code::kInvalidArgument:
    case Code::kOutOfRange:
      return arrow::Status::Invalid(error.message);
    case Code::kNotFound:
      return arrow::Status::KeyError(error.message);
    case Code::kAlreadyExists:
      return arrow::Status::AlreadyExists(error.message);
    case Code::kCancelled:
      return arrow::Status::Cancelled(error.message);
    case Code::kUnimplemented:
      return arrow::Status::NotImplemented(error.message);
    case Code::kUnauthenticated:
      return MakeFlightError(FlightStatusCode::Unauthenticated, error.message);
    case Code::kPermissionDenied:
      return MakeFlightError(FlightStatusCode::Unauthorized, error.message);
    case Code::kUnavailable:
      return MakeFlightError(FlightStatusCode::Unavailable, error.message);
    case Code::kDeadlineExceeded:
      return MakeFlightError(FlightStatusCode::TimedOut, error.message);
    default:
      return MakeFlightError(FlightStatusCode::Failed, error.message);
  }
}

}  // namespace umbel::dataserver
