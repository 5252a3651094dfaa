// What the port of a data server serves: the files of the shelf, and what changes them and the
// learners' sockets. Flight calls it from threads of its own.
#pragma once

#include <memory>
#include <vector>

#include "dataserver/learner_sockets.h"
#include "dataserver/read_service.h"
#include "dataserver/shelf.h"

namespace umbel::dataserver {

class ShelfViews final : public Views {
 public:
  explicit ShelfViews(Shelf& shelf) : shelf_(shelf) {}
  Result<std::vector<View>> List(const std::vector<std::string>& tags) override;
  Result<View> Find(std::string_view name) override;

 private:
  Shelf& shelf_;
};

class MainService final : public ReadService {
 public:
  MainService(Shelf& shelf, LearnerSockets& learners)
      : ReadService(views_), shelf_(shelf), learners_(learners), views_(shelf) {}

  arrow::Status DoPut(const arrow::flight::ServerCallContext& context,
                      std::unique_ptr<arrow::flight::FlightMessageReader> reader,
                      std::unique_ptr<arrow::flight::FlightMetadataWriter> writer) override;
  arrow::Status DoAction(const arrow::flight::ServerCallContext& context,
                         const arrow::flight::Action& action,
                         std::unique_ptr<arrow::flight::ResultStream>* result) override;
  arrow::Status ListActions(const arrow::flight::ServerCallContext& context,
                            std::vector<arrow::flight::ActionType>* actions) override;

 private:
  Status Put(const arrow::flight::ServerCallContext& context,
             arrow::flight::FlightMessageReader& reader,
             arrow::flight::FlightMetadataWriter& writer);
  /// The body of the answer; empty: none.
  Result<std::string> Act(std::string_view type, std::string_view body);
  Result<std::string> StatusJson();

  Shelf& shelf_;
  LearnerSockets& learners_;
  ShelfViews views_;
};

}  // namespace umbel::dataserver
