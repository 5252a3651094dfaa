// The calls of Arrow Flight that read, over whatever gives the views. Flight calls it from threads
// of its own.
#pragma once

#include <arrow/flight/server.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "dataserver/parquet_file.h"
#include "dataset/deal.h"

namespace umbel::dataserver {

/// A file, or some rows of it, as a client sees it.
struct View {
  std::string path;
  dataset::Piece piece;
  uint64_t bytes = 0;
  std::shared_ptr<arrow::Schema> schema;
};

/// Any thread may call.
class Views {
 public:
  virtual ~Views() = default;
  virtual Result<std::vector<View>> List(const std::vector<std::string>& tags) = 0;
  virtual Result<View> Find(std::string_view name) = 0;
};

class ReadService : public arrow::flight::FlightServerBase {
 public:
  explicit ReadService(Views& views) : views_(views) {}

  arrow::Status ListFlights(const arrow::flight::ServerCallContext& context,
                            const arrow::flight::Criteria* criteria,
                            std::unique_ptr<arrow::flight::FlightListing>* listings) override;
  arrow::Status GetFlightInfo(const arrow::flight::ServerCallContext& context,
                              const arrow::flight::FlightDescriptor& request,
                              std::unique_ptr<arrow::flight::FlightInfo>* info) override;
  arrow::Status GetSchema(const arrow::flight::ServerCallContext& context,
                          const arrow::flight::FlightDescriptor& request,
                          std::unique_ptr<arrow::flight::SchemaResult>* schema) override;
  arrow::Status DoGet(const arrow::flight::ServerCallContext& context,
                      const arrow::flight::Ticket& request,
                      std::unique_ptr<arrow::flight::FlightDataStream>* stream) override;
  /// These say that here is only reading.
  arrow::Status DoPut(const arrow::flight::ServerCallContext& context,
                      std::unique_ptr<arrow::flight::FlightMessageReader> reader,
                      std::unique_ptr<arrow::flight::FlightMetadataWriter> writer) override;
  arrow::Status DoAction(const arrow::flight::ServerCallContext& context,
                         const arrow::flight::Action& action,
                         std::unique_ptr<arrow::flight::ResultStream>* result) override;
  arrow::Status ListActions(const arrow::flight::ServerCallContext& context,
                            std::vector<arrow::flight::ActionType>* actions) override;

 protected:
  /// The file name in a descriptor.
  /// errors  kInvalidArgument: not a path of one name.
  static Result<std::string> NameIn(const arrow::flight::FlightDescriptor& descriptor);

 private:
  Views& views_;
};

}  // namespace umbel::dataserver
