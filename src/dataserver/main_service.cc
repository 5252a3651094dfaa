#include "dataserver/main_service.h"

#include <arrow/buffer.h>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "base/version.h"
#include "dataserver/arrow_status.h"
#include "dataserver/incoming.h"
#include "dataset/criteria.h"

namespace umbel::dataserver {
namespace {

using namespace arrow::flight;  // NOLINT: its names are all over this file

const std::vector<ActionType>& Actions() {
  static const std::vector<ActionType> actions = {
      {"drop_dataset", "Removes a file; body: its name"},
      {"assign",
       R"(Makes the socket of a learner's part of the data; body: {"project": "p", "learner": "l", )"
       R"("tags": ["t"], "of": 2})"},
      {"release", R"(Removes a learner's socket; body: {"project": "p", "learner": "l"})"},
      {"assignments", "Which learner has which part, as JSON"},
      {"status", "Files, bytes, quotas and tags, as JSON"},
  };
  return actions;
}

View ViewOf(Entry entry) {
  const uint64_t rows = entry.summary.rows;
  return {std::move(entry.path),
          {std::move(entry.name), 0, 1, rows},
          entry.summary.bytes,
          std::move(entry.summary.schema)};
}

Error Broken() { return {Code::kCancelled, "the client went away before the file was whole", 0}; }

}  // namespace

Result<std::vector<View>> ShelfViews::List(const std::vector<std::string>& tags) {
  UMBEL_ASSIGN(std::vector<Entry> entries, shelf_.List(tags));
  std::vector<View> views;
  views.reserve(entries.size());
  for (Entry& entry : entries) views.push_back(ViewOf(std::move(entry)));
  return views;
}

Result<View> ShelfViews::Find(std::string_view name) {
  UMBEL_ASSIGN(Entry entry, shelf_.Find(name));
  return ViewOf(std::move(entry));
}

Status MainService::Put(const ServerCallContext& context, FlightMessageReader& reader,
                        FlightMetadataWriter& writer) {
  UMBEL_ASSIGN(const std::string name, NameIn(reader.descriptor()));
  UMBEL_ASSIGN(const auto schema, From(reader.GetSchema()));
  UMBEL_ASSIGN(const std::unique_ptr<Incoming> incoming, shelf_.Begin(name, schema));
  for (;;) {
    UMBEL_ASSIGN(const FlightStreamChunk chunk, From(reader.Next()));
    if (!chunk.data && !chunk.app_metadata) break;
    if (chunk.data) UMBEL_TRY(incoming->Write(*chunk.data));
  }
  UMBEL_TRY(incoming->Finish());
  // A client that is gone looks, to the reader, like one that is done; but nothing can be sent to
  // it.
  const std::string received = fmt::format(R"({{"rows": {}}})", incoming->rows());
  if (!writer.WriteMetadata(*arrow::Buffer::FromString(received)).ok() || context.is_cancelled())
    return Fail(Broken());
  UMBEL_TRY(incoming->Publish());
  LogInfo("file was put",
          {{"name", name}, {"rows", incoming->rows()}, {"bytes", incoming->bytes()}});
  return {};
}

arrow::Status MainService::DoPut(const ServerCallContext& context,
                                 std::unique_ptr<FlightMessageReader> reader,
                                 std::unique_ptr<FlightMetadataWriter> writer) {
  const Status put = Caught([&] { return Put(context, *reader, *writer); });
  if (!put.ok()) LogWarn("put failed", {{"why", put.error().message}});
  return To(put);
}

Result<std::string> MainService::StatusJson() {
  UMBEL_ASSIGN(const Shelf::Usage usage, shelf_.Use());
  UMBEL_ASSIGN(const auto tags, shelf_.Tags());
  const Quotas& quotas = shelf_.quotas();
  return nlohmann::json({{"version", std::string(kVersion)},
                         {"files", usage.files},
                         {"bytes", usage.bytes},
                         {"tags", tags},
                         {"learners", learners_.size()},
                         {"quotas",
                          {{"bytes", quotas.bytes_max},
                           {"files", quotas.files_max},
                           {"put_bytes", quotas.put_bytes_max},
                           {"put_rows", quotas.put_rows_max}}}})
      .dump();
}

Result<std::string> MainService::Act(std::string_view type, std::string_view body) {
  if (type == "drop_dataset") {
    UMBEL_TRY(shelf_.Drop(body));
    LogInfo("file was dropped", {{"name", body}});
    return std::string();
  }
  if (type == "assign") {
    UMBEL_ASSIGN(const dataset::Claim claim, dataset::ParseClaim(body));
    return learners_.Assign(claim);
  }
  if (type == "release") {
    UMBEL_ASSIGN(const dataset::Claim claim, dataset::ParseRelease(body));
    return learners_.Release(claim);
  }
  if (type == "assignments") return learners_.List();
  if (type == "status") return StatusJson();
  return Fail(Code::kUnimplemented, "there is no such action; list_actions tells which there are");
}

arrow::Status MainService::DoAction(const ServerCallContext&, const Action& action,
                                    std::unique_ptr<ResultStream>* result) {
  const std::string_view body = action.body ? std::string_view(*action.body) : std::string_view();
  const Result<std::string> answer = Caught([&] { return Act(action.type, body); });
  if (!answer.ok()) return ToArrow(answer.error());
  std::vector<arrow::flight::Result> results;
  if (!answer->empty()) results.push_back({arrow::Buffer::FromString(*answer)});
  *result = std::make_unique<SimpleResultStream>(std::move(results));
  return arrow::Status::OK();
}

arrow::Status MainService::ListActions(const ServerCallContext&, std::vector<ActionType>* actions) {
  *actions = Actions();
  return arrow::Status::OK();
}

}  // namespace umbel::dataserver
