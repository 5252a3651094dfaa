#include "superlink/rounds/reply.h"

#include <cmath>
#include <unordered_map>

#include "flwr/common.pb.h"
#include "tensor/quote.h"

namespace umbel::superlink::rounds {
namespace {

Judged Not(Outcome outcome, std::string detail) { return {outcome, std::move(detail), {}}; }

/// Ours to answer for, not the reply's.
bool OfOurDisk(const Error& error) {
  return error.code == Code::kUnavailable || error.code == Code::kDataLoss;
}

std::optional<double> Scalar(const flower::MetricValue& value) {
  if (const auto* i = std::get_if<int64_t>(&value)) return static_cast<double>(*i);
  if (const auto* u = std::get_if<uint64_t>(&value)) return static_cast<double>(*u);
  if (const auto* d = std::get_if<double>(&value)) return *d;
  return std::nullopt;
}

bool Finite(const flower::MetricValue& value) {
  if (const auto* d = std::get_if<double>(&value)) return std::isfinite(*d);
  if (const auto* list = std::get_if<std::vector<double>>(&value))
    for (const double d : *list)
      if (!std::isfinite(d)) return false;
  return true;
}

/// Takes the weight from the metrics, and looks at the rest of them.
std::optional<Judged> TakeWeight(const Wanted& wanted, Update& update) {
  const double* found = nullptr;
  double weight = 0;
  for (const auto& [key, value] : update.metrics) {
    if (key == wanted.weighted_by_key) {
      const auto scalar = Scalar(value);
      if (!scalar)
        return Not(Outcome::kBadWeight,
                   fmt::format("metric {} is a list, not a number", tensor::Quote(key)));
      weight = *scalar;
      found = &weight;
    } else if (!Finite(value)) {
      return Not(Outcome::kNonFinite, fmt::format("metric {} is not finite", tensor::Quote(key)));
    }
  }
  if (!found)
    return Not(Outcome::kNoWeight,
               fmt::format("its metrics have no {}", tensor::Quote(wanted.weighted_by_key)));
  if (!std::isfinite(weight) || weight <= 0)
    return Not(Outcome::kBadWeight, fmt::format("metric {} is {}, not a finite number above 0",
                                                tensor::Quote(wanted.weighted_by_key), weight));
  update.weight = weight;
  return std::nullopt;
}

/// Brings the arrays into the model's order. A mean of complex numbers is no model of real ones.
std::optional<Judged> FitModel(const Wanted& wanted, std::vector<ModelArray> arrays,
                               Update& update) {
  const Model& model = *wanted.model;
  if (arrays.size() != model.arrays.size())
    return Not(Outcome::kWrongKeys, fmt::format("it has {} arrays, the model has {}", arrays.size(),
                                                model.arrays.size()));
  std::unordered_map<std::string_view, ModelArray*> by_name;
  for (ModelArray& array : arrays) by_name.emplace(array.name, &array);
  for (const ModelArray& want : model.arrays) {
    const auto found = by_name.find(want.name);
    if (found == by_name.end())
      return Not(Outcome::kWrongKeys, fmt::format("it has no array {}", tensor::Quote(want.name)));
    ModelArray& got = *found->second;
    const bool fits =
        wanted.any_length ? got.npy.shape.size() == 1 : got.npy.shape == want.npy.shape;
    if (!fits)
      return Not(Outcome::kWrongShape,
                 fmt::format("array {} has shape [{}], the model's [{}]", tensor::Quote(got.name),
                             fmt::join(got.npy.shape, ", "), fmt::join(want.npy.shape, ", ")));
    const auto dtype = DtypeName(got.npy.dtype);
    const bool complex = got.npy.dtype.find('c') != std::string::npos;
    if (!dtype.ok() || complex != (want.npy.dtype.find('c') != std::string::npos))
      return Not(Outcome::kWrongDtype,
                 fmt::format("array {} has dtype {}, the model's {}", tensor::Quote(got.name),
                             got.npy.dtype, want.npy.dtype));
    update.bytes += got.data_bytes();
    update.arrays.push_back(std::move(got));
  }
  return std::nullopt;
}

Result<Judged> JudgeContent(const flwr::proto::Message& reply, const Wanted& wanted,
                            RunObjects& objects) {
  if (reply.has_error())
    return Not(Outcome::kFailed,
               fmt::format("error {}: {}", reply.error().code(), reply.error().reason()));
  UMBEL_ASSIGN(const ObjectId id, Digest::FromHex(reply.metadata().message_id()));
  auto records = flower::ReadRecords(id, objects);
  if (!records.ok()) {
    if (OfOurDisk(records.error())) return Fail(records.error());
    return Not(Outcome::kMalformed, records.error().message);
  }
  const flower::ArrayRecord* arrays = nullptr;
  flower::MetricRecord* metrics = nullptr;
  size_t array_records = 0;
  size_t metric_records = 0;
  for (auto& [key, record] : *records) {
    if (const auto* a = std::get_if<flower::ArrayRecord>(&record)) arrays = a, ++array_records;
    if (auto* m = std::get_if<flower::MetricRecord>(&record)) metrics = m, ++metric_records;
  }
  if (metric_records != 1 || (wanted.model != nullptr && array_records != 1))
    return Not(Outcome::kWrongRecords, fmt::format("it has {} ArrayRecords and {} MetricRecords",
                                                   array_records, metric_records));
  Judged judged;
  judged.update.metrics = std::move(*metrics);
  if (auto fault = TakeWeight(wanted, judged.update)) return *std::move(fault);
  if (wanted.model == nullptr) return judged;
  auto opened = OpenArrays(*arrays, objects);
  if (!opened.ok()) {
    if (OfOurDisk(opened.error())) return Fail(opened.error());
    return Not(Outcome::kMalformed, opened.error().message);
  }
  if (auto fault = FitModel(wanted, *std::move(opened), judged.update)) return *std::move(fault);
  return judged;
}

}  // namespace

std::optional<double> WeightOf(const flower::MetricRecord& metrics, std::string_view key) {
  Update update;
  update.metrics = metrics;
  if (TakeWeight({nullptr, std::string(key), false}, update)) return std::nullopt;
  return update.weight;
}

Result<Judged> Judge(std::string_view message, const Wanted& wanted, RunObjects& objects) {
  flwr::proto::Message reply;
  if (!reply.ParseFromArray(message.data(), static_cast<int>(message.size())))
    return Fail(Code::kDataLoss, "a message that was kept is no protobuf");
  UMBEL_ASSIGN(Judged judged, JudgeContent(reply, wanted, objects));
  UMBEL_ASSIGN(judged.update.instruction, Digest::FromHex(reply.metadata().reply_to_message_id()));
  UMBEL_ASSIGN(judged.update.reply, Digest::FromHex(reply.metadata().message_id()));
  return judged;
}

}  // namespace umbel::superlink::rounds
