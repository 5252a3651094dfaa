#include "dataserver/read_service.h"

#include "dataserver/arrow_status.h"
#include "dataset/criteria.h"

namespace umbel::dataserver {
namespace {

using namespace arrow::flight;  // NOLINT: its names are all over this file

constexpr const char* kReadOnly =
    "this is a learner's socket: it gives the learner's part of the data, and takes nothing";

Result<FlightInfo> InfoOf(const View& view) {
  // No location: the data is where this answer came from, whatever that is called over there.
  FlightEndpoint endpoint;
  endpoint.ticket.ticket = view.piece.name;
  return From(FlightInfo::Make(*view.schema, FlightDescriptor::Path({view.piece.name}), {endpoint},
                               static_cast<int64_t>(view.piece.rows),
                               static_cast<int64_t>(view.bytes)));
}

}  // namespace

Result<std::string> ReadService::NameIn(const FlightDescriptor& descriptor) {
  if (descriptor.type != FlightDescriptor::PATH || descriptor.path.size() != 1)
    return Fail(Code::kInvalidArgument, "the descriptor must be a PATH of one part, the file name");
  return descriptor.path[0];
}

arrow::Status ReadService::ListFlights(const ServerCallContext&, const Criteria* criteria,
                                       std::unique_ptr<FlightListing>* listings) {
  return To(Caught([&]() -> Status {
    UMBEL_ASSIGN(const std::vector<std::string> tags,
                 dataset::ParseCriteria(criteria ? criteria->expression : std::string()));
    UMBEL_ASSIGN(const std::vector<View> views, views_.List(tags));
    std::vector<FlightInfo> infos;
    infos.reserve(views.size());
    for (const View& view : views) {
      UMBEL_ASSIGN(FlightInfo info, InfoOf(view));
      infos.push_back(std::move(info));
    }
    *listings = std::make_unique<SimpleFlightListing>(std::move(infos));
    return {};
  }));
}

arrow::Status ReadService::GetFlightInfo(const ServerCallContext&, const FlightDescriptor& request,
                                         std::unique_ptr<FlightInfo>* info) {
  return To(Caught([&]() -> Status {
    UMBEL_ASSIGN(const std::string name, NameIn(request));
    UMBEL_ASSIGN(const View view, views_.Find(name));
    UMBEL_ASSIGN(FlightInfo found, InfoOf(view));
    *info = std::make_unique<FlightInfo>(std::move(found));
    return {};
  }));
}

arrow::Status ReadService::GetSchema(const ServerCallContext&, const FlightDescriptor& request,
                                     std::unique_ptr<SchemaResult>* schema) {
  return To(Caught([&]() -> Status {
    UMBEL_ASSIGN(const std::string name, NameIn(request));
    UMBEL_ASSIGN(const View view, views_.Find(name));
    UMBEL_ASSIGN(*schema, From(SchemaResult::Make(*view.schema)));
    return {};
  }));
}

arrow::Status ReadService::DoGet(const ServerCallContext&, const Ticket& request,
                                 std::unique_ptr<FlightDataStream>* stream) {
  return To(Caught([&]() -> Status {
    UMBEL_ASSIGN(const View view, views_.Find(request.ticket));
    UMBEL_ASSIGN(auto rows, OpenRows(view.path, view.piece));
    *stream = std::make_unique<RecordBatchStream>(std::move(rows));
    return {};
  }));
}

arrow::Status ReadService::DoPut(const ServerCallContext&, std::unique_ptr<FlightMessageReader>,
                                 std::unique_ptr<FlightMetadataWriter>) {
  return ToArrow({Code::kPermissionDenied, kReadOnly, 0});
}

arrow::Status ReadService::DoAction(const ServerCallContext&, const Action&,
                                    std::unique_ptr<ResultStream>*) {
  return ToArrow({Code::kPermissionDenied, kReadOnly, 0});
}

arrow::Status ReadService::ListActions(const ServerCallContext&, std::vector<ActionType>* actions) {
  actions->clear();
  return arrow::Status::OK();
}

}  // namespace umbel::dataserver
