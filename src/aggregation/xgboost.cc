#include "aggregation/xgboost.h"

#include <algorithm>
#include <charconv>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "tensor/quote.h"

namespace umbel::aggregation {
namespace {

using Json = nlohmann::json;  // sorted keys: an object of a million keys takes no quadratic time

Error Bad(std::string what) {
  return {Code::kInvalidArgument, fmt::format("XGBoost model: {}", what), 0};
}

Result<Json> Parse(std::string_view text, const XgbLimits& limits) {
  if (text.size() > limits.model_bytes)
    return Fail(Code::kResourceExhausted, fmt::format("XGBoost model of {} bytes; at most {}",
                                                      text.size(), limits.model_bytes));
  bool deep = false;
  size_t values = 0;
  // What is too deep is dropped, as later walks recurse; what is too much, before it takes memory.
  const auto keep = [&](int depth, Json::parse_event_t, const Json&) {
    deep = deep || depth >= static_cast<int>(limits.depth);
    return !deep && ++values <= limits.values;
  };
  Json json = Json::parse(text, keep, /*allow_exceptions=*/false);
  if (deep)
    return Fail(Code::kResourceExhausted,
                fmt::format("XGBoost model nested {} deep or more", limits.depth));
  if (values > limits.values)
    return Fail(Code::kResourceExhausted,
                fmt::format("XGBoost model of more than {} values", limits.values));
  if (json.is_discarded()) return Fail(Bad("not JSON"));
  return json;
}

Result<Json*> Member(Json& object, std::string_view name, Json::value_t type) {
  const auto found = object.is_object() ? object.find(std::string(name)) : object.end();
  if (!object.is_object() || found == object.end()) return Fail(Bad(fmt::format("no '{}'", name)));
  if (found->type() != type) return Fail(Bad(fmt::format("'{}' is of another type", name)));
  return &*found;
}

/// XGBoost writes numbers of its parameters as text.
Result<uint64_t> Count(Json& params, std::string_view name) {
  UMBEL_ASSIGN(const Json* member, Member(params, name, Json::value_t::string));
  const auto& text = member->get_ref<const std::string&>();
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() ||
      value > std::numeric_limits<int32_t>::max())
    return Fail(Bad(fmt::format("'{}' {} is not a count", name, tensor::Quote(text))));
  return value;
}

/// The parts of a model that bagging reads and writes; all point into one Json.
struct Parts {
  Json* params = nullptr;
  Json* trees = nullptr;
  Json* tree_info = nullptr;  // these two only of the model that is appended to
  Json* indptr = nullptr;
  uint64_t num_trees = 0;
  uint64_t parallel = 0;
};

Result<Parts> PartsOf(Json& json, bool whole) {
  using Type = Json::value_t;
  UMBEL_ASSIGN(Json * learner, Member(json, "learner", Type::object));
  UMBEL_ASSIGN(Json * booster, Member(*learner, "gradient_booster", Type::object));
  UMBEL_ASSIGN(Json * model, Member(*booster, "model", Type::object));
  Parts parts;
  UMBEL_ASSIGN(parts.params, Member(*model, "gbtree_model_param", Type::object));
  UMBEL_ASSIGN(parts.num_trees, Count(*parts.params, "num_trees"));
  UMBEL_ASSIGN(parts.parallel, Count(*parts.params, "num_parallel_tree"));
  UMBEL_ASSIGN(parts.trees, Member(*model, "trees", Type::array));
  if (!whole) return parts;
  UMBEL_ASSIGN(parts.tree_info, Member(*model, "tree_info", Type::array));
  UMBEL_ASSIGN(parts.indptr, Member(*model, "iteration_indptr", Type::array));
  if (parts.indptr->empty() || !parts.indptr->back().is_number_integer())
    return Fail(Bad("'iteration_indptr' does not end with an integer"));
  if (parts.indptr->back() < 0 || parts.indptr->back() > std::numeric_limits<int32_t>::max())
    return Fail(Bad("'iteration_indptr' ends beyond a count"));
  return parts;
}

}  // namespace

struct XgbBagging::Model {
  Json json;
  Parts parts;
};

XgbBagging::XgbBagging(XgbLimits limits) : limits_(limits) {}
XgbBagging::~XgbBagging() = default;
XgbBagging::XgbBagging(XgbBagging&&) noexcept = default;
XgbBagging& XgbBagging::operator=(XgbBagging&&) noexcept = default;

Result<XgbBagging> XgbBagging::Start(std::string_view model, XgbLimits limits) {
  XgbBagging out(limits);
  if (model.empty()) return out;
  auto parsed = std::make_unique<Model>();
  UMBEL_ASSIGN(parsed->json, Parse(model, limits));
  UMBEL_ASSIGN(parsed->parts, PartsOf(parsed->json, true));
  out.verbatim_ = model;
  out.model_ = std::move(parsed);
  return out;
}

Status XgbBagging::Add(std::string_view reply) {
  if (!model_) {
    if (reply.empty()) return Fail(Bad("empty"));
    UMBEL_ASSIGN(*this, Start(reply, limits_));
    return {};
  }
  UMBEL_ASSIGN(Json json, Parse(reply, limits_));
  UMBEL_ASSIGN(Parts added, PartsOf(json, false));
  Parts& parts = model_->parts;
  if (added.parallel > added.trees->size())
    return Fail(Bad(fmt::format("{} trees, fewer than num_parallel_tree {}", added.trees->size(),
                                added.parallel)));
  if (parts.num_trees + added.parallel > std::numeric_limits<int32_t>::max())
    return Fail(Bad("more trees than XGBoost counts"));
  for (uint64_t i = 0; i < added.parallel; ++i)
    if (!(*added.trees)[i].is_object()) return Fail(Bad(fmt::format("tree {} is no object", i)));

  for (uint64_t i = 0; i < added.parallel; ++i) {
    Json& tree = (*added.trees)[i];
    tree["id"] = parts.num_trees + i;
    parts.trees->push_back(std::move(tree));
    parts.tree_info->push_back(0);
  }
  const auto last = parts.indptr->back().get<uint64_t>();
  parts.indptr->push_back(last + added.parallel);
  parts.num_trees += added.parallel;
  (*parts.params)["num_trees"] = std::to_string(parts.num_trees);
  verbatim_.clear();
  return {};
}

Result<std::string> XgbBagging::Finish() const {
  if (!model_ || !verbatim_.empty()) return verbatim_;
  std::string out =
      model_->json.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (out.size() > limits_.model_bytes)
    return Fail(Code::kResourceExhausted, fmt::format("XGBoost model of {} bytes; at most {}",
                                                      out.size(), limits_.model_bytes));
  return out;
}

uint64_t CyclicTurns::Pick(std::span<const uint64_t> nodes, uint64_t round) {
  UMBEL_CHECK(!nodes.empty() && round >= 1);
  for (const uint64_t node : nodes)
    if (std::find(seen_.begin(), seen_.end(), node) == seen_.end()) seen_.push_back(node);
  uint64_t turn = (round - 1) % nodes.size();
  for (const uint64_t node : seen_) {
    if (std::find(nodes.begin(), nodes.end(), node) == nodes.end()) continue;
    if (turn-- == 0) return node;
  }
  UMBEL_CHECK(false);  // each of the nodes has been seen
  return 0;
}

}  // namespace umbel::aggregation
