// umbel_strategy_oracle FOLDER: runs the rounds that FOLDER/job.json describes through our
// strategies, block by block, and writes FOLDER/result.json and result.bin.
// tests/strategies/flower.py makes the job and lets Flower's own classes run the same rounds.
//
// Arrays are {"dtype", "count", "at"}: elements as raw bytes at a place of job.bin, or of
// result.bin.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>

#include "aggregation/blocks.h"
#include "aggregation/clipping.h"
#include "aggregation/exact_scalar.h"
#include "aggregation/krum.h"
#include "aggregation/metrics.h"
#include "aggregation/noise.h"
#include "aggregation/optimizer.h"
#include "aggregation/qfedavg.h"
#include "aggregation/robust.h"
#include "aggregation/strategy.h"
#include "aggregation/xgboost.h"

namespace umbel::aggregation {
namespace {

using Json = nlohmann::ordered_json;
using Bytes = std::vector<std::byte>;

struct Array {
  NumberType type = NumberType::kFloat32;
  Bytes bytes;
  size_t count() const { return bytes.size() / ElementSize(type); }
};
using Model = std::vector<Array>;

struct Reply {
  Model arrays;
  Metrics metrics;
};

class ReplySource final : public BlockSource {
 public:
  explicit ReplySource(const std::vector<Reply>& replies) : replies_(replies) {}
  Result<std::span<const std::byte>> Block(size_t update, size_t array, uint64_t first,
                                           size_t count) override {
    const Array& from = replies_[update].arrays[array];
    const size_t size = ElementSize(from.type);
    return std::span(from.bytes).subspan(first * size, count * size);
  }

 private:
  const std::vector<Reply>& replies_;
};

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Array ReadArray(const Json& json, const std::string& data) {
  Array out;
  out.type = NumberTypeOf(json.at("dtype").get<std::string>()).value();
  out.bytes.resize(json.at("count").get<size_t>() * ElementSize(out.type));
  if (!out.bytes.empty())
    std::memcpy(out.bytes.data(), data.data() + json.at("at").get<size_t>(), out.bytes.size());
  return out;
}

Model ReadModel(const Json& json, const std::string& data) {
  Model out;
  for (const Json& array : json) out.push_back(ReadArray(array, data));
  return out;
}

Params ReadParams(const Json& json) {
  Params out;
  for (const auto& [name, value] : json.items()) {
    if (value.is_number_integer())
      out[name] = value.get<int64_t>();
    else if (value.is_number())
      out[name] = value.get<double>();
    else if (value.is_string())
      out[name] = value.get<std::string>();
    else
      out[name] = {};
  }
  return out;
}

MetricValue ReadMetric(const Json& json) {
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number()) return json.get<double>();
  if (!json.empty() && json[0].is_number_integer()) return json.get<std::vector<int64_t>>();
  return json.get<std::vector<double>>();
}

Json ToJson(const Metrics& metrics) {
  Json out = Json::object();
  for (const auto& [key, value] : metrics)
    std::visit([&, &name = key](const auto& v) { out[name] = v; }, value);
  return out;
}

double MetricOf(const Reply& reply, const std::string& key) {
  for (const auto& [name, value] : reply.metrics) {
    if (name != key) continue;
    if (const auto* v = std::get_if<double>(&value)) return *v;
    return static_cast<double>(std::get<int64_t>(value));
  }
  UMBEL_CHECK(false);
  return 0;
}

/// All rounds of one run: what a server would keep between them, and what it does in each.
class Run {
 public:
  Run(const Json& job, const std::string& data)
      : spec_(MakeSpec(job)),
        model_(ReadModel(job.at("model"), data)),
        seed_(job.value("seed", uint64_t{0})),
        block_(job.value("block", size_t{1000})),
        moments_(model_.size()) {
    if (spec_.kind == StrategyKind::kServerSideFixedClipping) norm_ = spec_.Float("clipping_norm");
    if (spec_.kind == StrategyKind::kServerSideAdaptiveClipping)
      norm_ = spec_.Float("initial_clipping_norm");
  }

  Result<Json> Round(uint64_t round, std::vector<Reply> replies) {
    out_ = Json::object();
    uint64_t clipped = 0;
    if (spec_.inner) UMBEL_TRY(Clip(replies, clipped));
    UMBEL_ASSIGN(Model next, Aggregate(round, replies));
    if (spec_.inner) UMBEL_TRY(AddNoiseTo(next, round, clipped, replies.size()));
    model_ = std::move(next);
    return out_;
  }
  const Model& model() const { return model_; }

 private:
  static StrategySpec MakeSpec(const Json& job) {
    auto spec = MakeStrategy(job.at("strategy").get<std::string>(), ReadParams(job.at("params")));
    if (spec.ok() && job.contains("wrapper"))
      spec = WrapStrategy(job.at("wrapper").get<std::string>(),
                          ReadParams(job.at("wrapper_params")), *spec);
    if (!spec.ok()) throw std::runtime_error(spec.error().ToString());
    return *spec;
  }

  const StrategySpec& base() const { return spec_.base(); }

  /// Calls `use(array, first, count)` for each block of the model.
  Status ForBlocks(const std::function<Status(size_t, size_t, size_t)>& use) const {
    for (size_t array = 0; array < model_.size(); ++array)
      for (size_t first = 0; first < model_[array].count(); first += block_)
        UMBEL_TRY(use(array, first, std::min(block_, model_[array].count() - first)));
    return {};
  }
  template <typename B>
  static auto Part(B& bytes, NumberType type, size_t first, size_t count) {
    return std::span(bytes).subspan(first * ElementSize(type), count * ElementSize(type));
  }
  UpdateBlock BlockOf(const Reply& reply, size_t array, size_t first, size_t count) const {
    const Array& mine = model_[array];
    const Array& its = reply.arrays[array];
    return {its.type, Part(its.bytes, its.type, first, count), mine.type,
            Part(mine.bytes, mine.type, first, count)};
  }

  Status Clip(std::vector<Reply>& replies, uint64_t& clipped) {
    for (Reply& reply : replies) {
      UpdateNorm norm;
      UMBEL_TRY(ForBlocks([&](size_t array, size_t first, size_t count) {
        return norm.Add(BlockOf(reply, array, first, count));
      }));
      const double factor = ClipFactor(norm.Norm(), norm_);
      clipped += factor < 1;
      out_["norms"].push_back(norm.Norm());
      Model result(model_.size());
      for (size_t array = 0; array < model_.size(); ++array) {
        result[array].type = ClippedType(BlockOf(reply, array, 0, 0));
        result[array].bytes.resize(model_[array].count() * ElementSize(result[array].type));
      }
      UMBEL_TRY(ForBlocks([&](size_t array, size_t first, size_t count) {
        Array& to = result[array];
        return ClipBlock(BlockOf(reply, array, first, count), factor,
                         Part(to.bytes, to.type, first, count));
      }));
      reply.arrays = std::move(result);
    }
    return {};
  }

  Status AddNoiseTo(Model& next, uint64_t round, uint64_t clipped, uint64_t replies) {
    const Noise noise(seed_, static_cast<uint32_t>(round));
    double multiplier = spec_.Float("noise_multiplier");
    if (spec_.kind == StrategyKind::kServerSideAdaptiveClipping) {
      UMBEL_ASSIGN(const AdaptiveNoise adaptive, AdaptiveNoiseOf(spec_));
      multiplier = adaptive.noise_multiplier;
      norm_ = NextClippingNorm(spec_, adaptive, norm_, clipped, replies, noise);
    }
    out_["clipping_norm"] = norm_;
    const double deviation = NoiseDeviation(multiplier, norm_, spec_.Int("num_sampled_clients"));
    for (size_t array = 0; array < next.size(); ++array)
      UMBEL_TRY(AddNoise(noise, static_cast<uint32_t>(array), 0, deviation, next[array].type,
                         next[array].bytes));
    return {};
  }

  Result<Model> Aggregate(uint64_t round, const std::vector<Reply>& replies) {
    std::vector<Reply> chosen = replies;
    if (base().Has("num_malicious_nodes")) UMBEL_TRY(Select(chosen));
    std::vector<Metrics> metrics;
    for (const Reply& reply : chosen) metrics.push_back(reply.metrics);
    UMBEL_ASSIGN(const Metrics mean, MeanOfMetrics(metrics, base().Text("weighted_by_key")));
    out_["metrics"] = ToJson(mean);
    switch (base().kind) {
      case StrategyKind::kFedMedian:
        return Robust(chosen, Median);
      case StrategyKind::kFedTrimmedAvg:
        return Robust(chosen, [&](auto type, auto updates, auto out) {
          return TrimmedMean(type, updates, base().Float("beta"), out);
        });
      case StrategyKind::kBulyan:
        return Robust(chosen, [&](auto type, auto updates, auto out) {
          return MeanAroundMedian(type, updates, closest_, out);
        });
      case StrategyKind::kQFedAvg:
        return QFedAvg(chosen);
      case StrategyKind::kFedXgbBagging:
        return Bagging(chosen);
      case StrategyKind::kFedXgbCyclic:
        return chosen[0].arrays;
      default:
        return Optimise(round, Mean(chosen));
    }
  }

  Status Select(std::vector<Reply>& chosen) {
    std::vector<ArrayLayout> layout;
    for (const Array& array : chosen[0].arrays) layout.push_back({array.type, array.count()});
    ReplySource source(chosen);
    UMBEL_ASSIGN(const DistanceMatrix distances, Distances(source, chosen.size(), layout));
    const auto malicious = static_cast<uint64_t>(base().Int("num_malicious_nodes"));
    uint64_t select = 0;
    if (base().kind == StrategyKind::kBulyan) {
      UMBEL_ASSIGN(const BulyanCounts counts, BulyanCountsOf(chosen.size(), malicious));
      select = counts.select;
      closest_ = counts.closest;
    } else {
      select = static_cast<uint64_t>(base().Int("num_nodes_to_select"));
    }
    const std::vector<size_t> selected = SelectKrum(distances, malicious, select);
    out_["selected"] = selected;
    std::vector<Reply> kept;
    for (const size_t i : selected) kept.push_back(chosen[i]);
    chosen = std::move(kept);
    return {};
  }

  template <typename Rule>
  Result<Model> Robust(const std::vector<Reply>& replies, Rule rule) const {
    Model out;
    std::vector<ArrayLayout> layout;
    for (const Array& array : replies[0].arrays) {
      layout.push_back({array.type, array.count()});
      out.push_back(
          {MeanType(array.type), Bytes(array.count() * ElementSize(MeanType(array.type)))});
    }
    std::vector<size_t> all(replies.size());
    std::iota(all.begin(), all.end(), size_t{0});
    ReplySource source(replies);
    UMBEL_TRY(ForEachBlock(
        source, all, layout,
        [&](size_t array, uint64_t first, std::span<const std::span<const std::byte>> blocks) {
          Array& to = out[array];
          const size_t count = blocks[0].size() / ElementSize(layout[array].type);
          return rule(layout[array].type, blocks, Part(to.bytes, to.type, first, count));
        },
        block_));
    return out;
  }

  /// The exact mean of each element, slowly.
  Model Mean(const std::vector<Reply>& replies) const {
    Model out;
    for (size_t array = 0; array < replies[0].arrays.size(); ++array) {
      const NumberType type = replies[0].arrays[array].type;
      std::vector<std::vector<double>> values;
      for (const Reply& reply : replies) {
        values.emplace_back(reply.arrays[array].count());
        Load(type, reply.arrays[array].bytes, std::span(values.back()));
      }
      std::vector<double> means(values[0].size());
      for (size_t i = 0; i < means.size(); ++i) {
        ExactScalar sum, weights;
        for (size_t k = 0; k < replies.size(); ++k) {
          const double weight = MetricOf(replies[k], base().Text("weighted_by_key"));
          UMBEL_CHECK(sum.AddProduct(values[k][i], weight).ok() && weights.Add(weight).ok());
        }
        means[i] = RoundedQuotient(sum, weights).value();
      }
      Array mean{MeanType(type), Bytes(means.size() * ElementSize(MeanType(type)))};
      Store(std::span<const double>(means), mean.type, mean.bytes);
      out.push_back(std::move(mean));
    }
    return out;
  }

  Result<Model> Optimise(uint64_t round, Model mean) {
    if (IsMean(base())) return mean;
    const Moments keeps = MomentsOf(base());
    Model out(mean.size());
    for (size_t array = 0; array < mean.size(); ++array) {
      const OptimizerTypes types = OptimizerTypesOf(base(), model_[array].type, mean[array].type);
      const size_t count = model_[array].count();
      out[array] = {types.result, Bytes(count * ElementSize(types.result))};
      Kept& kept = moments_[array];
      for (const auto& [bytes, kept_here] :
           {std::pair(&kept.first, keeps.first), std::pair(&kept.second, keeps.second)}) {
        if (!kept_here) continue;
        Bytes wide(count * ElementSize(types.compute));
        if (!bytes->empty()) WidenMoment(kept.type, *bytes, types.compute, wide);
        *bytes = std::move(wide);
      }
      kept.type = types.compute;
    }
    UMBEL_TRY(ForBlocks([&](size_t array, size_t first, size_t count) {
      Kept& kept = moments_[array];
      const auto moment = [&](Bytes& bytes, bool kept_here) {
        return kept_here ? Part(bytes, kept.type, first, count) : std::span<std::byte>();
      };
      const Array& current = model_[array];
      return OptimizerStep(
          base(), round,
          {.current_type = current.type,
           .current = Part(current.bytes, current.type, first, count),
           .mean_type = mean[array].type,
           .mean = Part(std::as_const(mean[array].bytes), mean[array].type, first, count),
           .first = moment(kept.first, keeps.first),
           .second = moment(kept.second, keeps.second),
           .next = Part(out[array].bytes, out[array].type, first, count)});
    }));
    return out;
  }

  Result<Model> QFedAvg(const std::vector<Reply>& replies) const {
    std::vector<QFedAvgTerm> terms;
    for (const Reply& reply : replies) {
      ExactScalar squares;
      UMBEL_TRY(ForBlocks([&](size_t array, size_t first, size_t count) {
        return AddGradientSquares(base(), BlockOf(reply, array, first, count), squares);
      }));
      UMBEL_ASSIGN(const QFedAvgTerm term,
                   QFedAvgTermOf(base(), MetricOf(reply, base().Text("train_loss_key")), squares));
      terms.push_back(term);
    }
    Model out;
    for (const Array& array : model_)
      out.push_back({NumberType::kFloat64, Bytes(array.count() * sizeof(double))});
    UMBEL_TRY(ForBlocks([&](size_t array, size_t first, size_t count) {
      std::vector<std::span<const std::byte>> views;
      for (const Reply& reply : replies) views.push_back(BlockOf(reply, array, first, count).reply);
      return QFedAvgBlock(base(), model_[array].type,
                          BlockOf(replies[0], array, first, count).current,
                          replies[0].arrays[array].type, views, terms,
                          Part(out[array].bytes, out[array].type, first, count));
    }));
    return out;
  }

  Result<Model> Bagging(const std::vector<Reply>& replies) const {
    const auto text = [](const Bytes& bytes) {
      return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    UMBEL_ASSIGN(XgbBagging bagging, XgbBagging::Start(text(model_[0].bytes)));
    for (const Reply& reply : replies) UMBEL_TRY(bagging.Add(text(reply.arrays[0].bytes)));
    UMBEL_ASSIGN(const std::string json, bagging.Finish());
    const auto bytes = std::as_bytes(std::span(json));
    return Model{{NumberType::kUint8, Bytes(bytes.begin(), bytes.end())}};
  }

  struct Kept {
    NumberType type = NumberType::kFloat16;
    Bytes first, second;
  };

  StrategySpec spec_;
  Model model_;
  uint64_t seed_;
  size_t block_;
  std::vector<Kept> moments_;
  double norm_ = 0;
  size_t closest_ = 0;
  Json out_;
};

/// Which node trains in each round of FedXgbCyclic.
Json Turns(const Json& rounds) {
  CyclicTurns turns;
  Json picks = Json::array();
  uint64_t round = 0;
  for (const Json& nodes : rounds)
    picks.push_back(turns.Pick(nodes.get<std::vector<uint64_t>>(), ++round));
  return picks;
}

int Main(const std::string& folder) {
  const Json job = Json::parse(ReadFile(folder + "/job.json"));
  if (job.contains("turns")) {
    std::ofstream(folder + "/result.json") << Turns(job.at("turns")).dump();
    return 0;
  }
  const std::string data = ReadFile(folder + "/job.bin");
  Run run(job, data);
  std::string bin;
  Json rounds = Json::array();
  uint64_t number = 0;
  for (const Json& described : job.at("rounds")) {
    std::vector<Reply> replies;
    for (const Json& reply : described) {
      replies.push_back({ReadModel(reply.at("arrays"), data), {}});
      for (const auto& [key, value] : reply.at("metrics").items())
        replies.back().metrics.emplace_back(key, ReadMetric(value));
    }
    Result<Json> round = run.Round(++number, std::move(replies));
    if (!round.ok()) {
      rounds.push_back({{"error", round.error().message}});
      continue;
    }
    for (const Array& array : run.model()) {
      (*round)["arrays"].push_back(
          {{"dtype", ElementName(array.type)}, {"count", array.count()}, {"at", bin.size()}});
      bin.append(reinterpret_cast<const char*>(array.bytes.data()), array.bytes.size());
    }
    rounds.push_back(std::move(*round));
  }
  std::ofstream(folder + "/result.bin", std::ios::binary) << bin;
  std::ofstream(folder + "/result.json") << Json{{"rounds", rounds}}.dump();
  return 0;
}

}  // namespace
}  // namespace umbel::aggregation

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: umbel_strategy_oracle FOLDER\n");
    return 2;
  }
  try {
    return umbel::aggregation::Main(argv[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "umbel_strategy_oracle: %s\n", error.what());
    return 1;
  }
}
