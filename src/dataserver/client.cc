#include "dataserver/client.h"

#include <arrow/buffer.h>
#include <arrow/flight/client.h>
#include <arrow/util/byte_size.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "dataserver/arrow_status.h"

namespace umbel::dataserver {
namespace {

namespace flight = arrow::flight;

constexpr int64_t kBatchBytes = int64_t{1} << 20;
constexpr int64_t kBatchRowsMax = 65536;

}  // namespace

struct Client::Parts {
  std::string location;
  std::unique_ptr<flight::FlightClient> flight;
  flight::FlightCallOptions options;
};

Client::Client(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Client::~Client() = default;

Error Client::Named(const Error& error) const {
  return {error.code, fmt::format("{}: {}", parts_->location, error.message), error.wire_code};
}

Result<std::unique_ptr<Client>> Client::Connect(const Target& target) {
  return Caught([&]() -> Result<std::unique_ptr<Client>> {
    auto parts = std::make_unique<Parts>();
    parts->location = target.location;
    flight::FlightClientOptions options;
    if (!target.ca_file.empty()) {
      UMBEL_ASSIGN(options.tls_root_certs, ReadFile(target.ca_file));
    }
    auto location = From(flight::Location::Parse(target.location));
    if (!location.ok() || !target.location.starts_with("grpc"))
      return Fail(Code::kInvalidArgument,
                  fmt::format("'{}' is no location: grpc://HOST:PORT, grpc+tls://HOST:PORT or "
                              "grpc+unix:///SOCKET is expected",
                              target.location));
    UMBEL_ASSIGN(parts->flight, From(flight::FlightClient::Connect(*location, options)));
    if (!target.token.empty())
      parts->options.headers.emplace_back("authorization", "Bearer " + target.token);
    return std::unique_ptr<Client>(new Client(std::move(parts)));
  });
}

Status Client::Put(const std::string& name, const arrow::Table& table) {
  const Status put = Caught([&]() -> Status {
    UMBEL_ASSIGN(auto stream,
                 From(parts_->flight->DoPut(parts_->options, flight::FlightDescriptor::Path({name}),
                                            table.schema())));
    arrow::TableBatchReader batches(table);
    const int64_t bytes = arrow::util::TotalBufferSize(table);
    const int64_t rows = std::max<int64_t>(table.num_rows(), 1);
    batches.set_chunksize(
        std::clamp<int64_t>(kBatchBytes / std::max<int64_t>(bytes / rows, 1), 1, kBatchRowsMax));
    for (;;) {
      std::shared_ptr<arrow::RecordBatch> batch;
      UMBEL_TRY(From(batches.ReadNext(&batch)));
      if (!batch) break;
      // When the server has refused, closing tells why.
      if (!stream.writer->WriteRecordBatch(*batch).ok()) break;
    }
    return From(stream.writer->Close());
  });
  if (!put.ok()) return Fail(Named(put.error()));
  return {};
}

Result<std::vector<Listed>> Client::List(const std::vector<std::string>& tags) {
  auto listed = Caught([&]() -> Result<std::vector<Listed>> {
    const std::string criteria = nlohmann::json({{"data_tags", tags}}).dump();
    UMBEL_ASSIGN(const auto listing,
                 From(parts_->flight->ListFlights(parts_->options, {criteria})));
    std::vector<Listed> files;
    for (;;) {
      UMBEL_ASSIGN(const std::unique_ptr<flight::FlightInfo> info, From(listing->Next()));
      if (!info) return files;
      const auto& path = info->descriptor().path;
      files.push_back({path.empty() ? "" : path[0], info->total_records(), info->total_bytes()});
    }
  });
  if (!listed.ok()) return Fail(Named(listed.error()));
  return listed;
}

Result<std::string> Client::Act(const std::string& type, std::string_view body) {
  auto answer = Caught([&]() -> Result<std::string> {
    flight::Action action;
    action.type = type;
    action.body = arrow::Buffer::FromString(std::string(body));
    UMBEL_ASSIGN(const auto results, From(parts_->flight->DoAction(parts_->options, action)));
    std::string first;
    bool any = false;
    for (;;) {
      UMBEL_ASSIGN(const std::unique_ptr<flight::Result> result, From(results->Next()));
      if (!result) return first;
      if (!std::exchange(any, true) && result->body) first = result->body->ToString();
    }
  });
  if (!answer.ok()) return Fail(Named(answer.error()));
  return answer;
}

}  // namespace umbel::dataserver
