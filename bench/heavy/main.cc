// The ClientApp of bench/apps/heavy in C++: answers with the model that came and a number added to
// all its values, another one for each site and round, in the memory that the model came in.
//
// Node config: site, a number. Run as `umbel supernode` is.
#include "clientapp/client_app.h"

namespace {

using namespace umbel::clientapp;
using umbel::Result;

Result<RecordDict> Train(Message& message, Context& context) {
  UMBEL_ASSIGN(const auto site, Get<uint64_t>(context.node_config, "site"));
  UMBEL_ASSIGN(const ConfigRecord* const config, message.content.Config("config"));
  UMBEL_ASSIGN(const auto round, Get<uint64_t>(*config, "server-round"));
  UMBEL_ASSIGN(ArrayRecord* const arrays, message.content.Arrays("arrays"));
  const float add = static_cast<float>(1 + site + 1000 * round) / 1024;
  for (auto& [name, array] : *arrays) {
    UMBEL_ASSIGN(const std::span<float> values, array.As<float>());
    for (float& value : values) value += add;
  }
  RecordDict reply;
  reply["arrays"] = std::move(*arrays);
  reply["metrics"] = MetricRecord{{"num-examples", static_cast<int64_t>(1 + site % 7)}};
  return reply;
}

Result<RecordDict> Evaluate(Message& message, Context&) {
  UMBEL_ASSIGN(ArrayRecord* const arrays, message.content.Arrays("arrays"));
  double first = 0;
  for (auto& [name, array] : *arrays) {
    UMBEL_ASSIGN(const std::span<float> values, array.As<float>());
    if (!values.empty()) first += static_cast<double>(values[0]);
  }
  RecordDict reply;
  reply["metrics"] = MetricRecord{{"first", first}, {"num-examples", int64_t{1}}};
  return reply;
}

}  // namespace

int main(int argc, char** argv) {
  ClientApp app;
  app.train = Train;
  app.evaluate = Evaluate;
  return Serve(argc, argv, std::move(app));
}
