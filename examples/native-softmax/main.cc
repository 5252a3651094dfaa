// A SuperNode that trains softmax regression on its share of Fashion-MNIST, without Python.
//
// Node config: partition-id and num-partitions, the site's share; data-dir, if the data set stands
// elsewhere on this machine. Run config: see pyproject.toml.
#include <algorithm>
#include <vector>

#include "clientapp/client_app.h"
#include "softmax.h"

namespace native_softmax {
namespace {

using namespace umbel::clientapp;
using umbel::Code;
using umbel::Fail;
using umbel::Result;

constexpr auto kSizes = std::to_array<int64_t>({kPixels, kClasses});

/// A site's images: rows of the training set, the last tenth of them held back for evaluation.
struct Share {
  std::shared_ptr<const Dataset> data;
  std::vector<uint32_t> training, validation;
  uint64_t partition = 0;
};

/// Partition i of n has the rows i, i + n, i + 2n, ...: the files are shuffled already.
Result<Share> ShareOf(const Context& context) {
  Share share;
  UMBEL_ASSIGN(share.partition, Get<uint64_t>(context.node_config, "partition-id"));
  UMBEL_ASSIGN(const auto partitions, Get<uint64_t>(context.node_config, "num-partitions"));
  UMBEL_ASSIGN(const auto usual, Get<std::string>(context.run_config, "data-dir"));
  UMBEL_ASSIGN(const auto folder, Get<std::string>(context.node_config, "data-dir", usual));
  UMBEL_ASSIGN(share.data, TrainingSet(folder));
  if (share.partition >= partitions || partitions > share.data->size() / 10)
    return Fail(Code::kInvalidArgument,
                fmt::format("partition-id {} of num-partitions {}", share.partition, partitions));
  for (uint64_t row = share.partition; row < share.data->size(); row += partitions)
    share.training.push_back(static_cast<uint32_t>(row));
  const auto cut = share.training.begin() + static_cast<ptrdiff_t>(share.training.size() * 9 / 10);
  share.validation.assign(cut, share.training.end());
  share.training.erase(cut, share.training.end());
  return share;
}

Result<Weights> WeightsOf(ArrayRecord& arrays) {
  Weights weights;
  UMBEL_ASSIGN(weights.weight, Values<float>(arrays, "weight", {kPixels, kClasses}));
  UMBEL_ASSIGN(weights.bias, Values<float>(arrays, "bias", {kClasses}));
  return weights;
}

/// What the site remembers from round to round: its momentum.
Result<ArrayRecord*> VelocityOf(RecordDict& state) {
  if (state.Find("velocity") == nullptr) {
    const std::span<const int64_t> sizes(kSizes);
    ArrayRecord zeros;
    UMBEL_ASSIGN(zeros["weight"], Array::Zeros("float32", sizes));
    UMBEL_ASSIGN(zeros["bias"], Array::Zeros("float32", sizes.subspan(1)));
    state["velocity"] = std::move(zeros);
  }
  return state.Arrays("velocity");
}

/// How many rounds of the run series this site has trained, with this one.
Result<int64_t> CountRound(RecordDict& state) {
  if (state.Find("progress") == nullptr) state["progress"] = MetricRecord{{"rounds", int64_t{0}}};
  UMBEL_ASSIGN(MetricRecord* const progress, state.Metrics("progress"));
  UMBEL_ASSIGN(const auto before, Get<int64_t>(*progress, "rounds"));
  (*progress)["rounds"] = before + 1;
  return before + 1;
}

Result<RecordDict> Train(Message& message, Context& context) {
  UMBEL_ASSIGN(Share share, ShareOf(context));
  UMBEL_ASSIGN(ArrayRecord* const arrays, message.content.Arrays("arrays"));
  UMBEL_ASSIGN(const Weights model, WeightsOf(*arrays));
  UMBEL_ASSIGN(ArrayRecord* const remembered, VelocityOf(context.state));
  UMBEL_ASSIGN(const Weights velocity, WeightsOf(*remembered));
  UMBEL_ASSIGN(const ConfigRecord* const config, message.content.Config("config"));
  UMBEL_ASSIGN(const auto round, Get<uint64_t>(*config, "server-round"));
  UMBEL_ASSIGN(const auto seed, Get<uint64_t>(context.run_config, "seed"));
  UMBEL_ASSIGN(const auto epochs, Get<uint64_t>(context.run_config, "local-epochs"));
  UMBEL_ASSIGN(const auto batch_size, Get<uint64_t>(context.run_config, "batch-size"));
  UMBEL_ASSIGN(const auto learning_rate, Get<double>(context.run_config, "learning-rate"));
  if (batch_size == 0) return Fail(Code::kInvalidArgument, "batch-size is 0");

  Step step;
  step.batch_size = batch_size;
  step.learning_rate = static_cast<float>(learning_rate);
  // Another order at each site and in each round, yet the same in every repetition of the run.
  std::seed_seq mixed{seed, round, share.partition};
  std::mt19937_64 rng(mixed);
  for (uint64_t epoch = 0; epoch < epochs && !context.stop.stop_requested(); ++epoch)
    TrainEpoch(model, velocity, *share.data, share.training, step, rng);

  const Score score = Measure(model, *share.data, share.training);
  UMBEL_ASSIGN(const auto rounds, CountRound(context.state));
  RecordDict reply;
  reply["arrays"] = std::move(*arrays);
  reply["metrics"] = MetricRecord{
      {"train-loss", score.loss},
      {"train-accuracy", score.accuracy},
      {"rounds-here", rounds},
      {"num-examples", static_cast<int64_t>(share.training.size())},
  };
  return reply;
}

Result<RecordDict> Evaluate(Message& message, Context& context) {
  UMBEL_ASSIGN(const Share share, ShareOf(context));
  UMBEL_ASSIGN(ArrayRecord* const arrays, message.content.Arrays("arrays"));
  UMBEL_ASSIGN(const Weights model, WeightsOf(*arrays));
  const Score score = Measure(model, *share.data, share.validation);
  RecordDict reply;
  reply["metrics"] = MetricRecord{
      {"eval-loss", score.loss},
      {"eval-accuracy", score.accuracy},
      {"num-examples", static_cast<int64_t>(share.validation.size())},
  };
  return reply;
}

}  // namespace
}  // namespace native_softmax

int main(int argc, char** argv) {
  umbel::clientapp::ClientApp app;
  app.train = native_softmax::Train;
  app.evaluate = native_softmax::Evaluate;
  return umbel::clientapp::Serve(argc, argv, std::move(app));
}
