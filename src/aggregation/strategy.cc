#include "aggregation/strategy.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "aggregation/clipping.h"
#include "tensor/quote.h"

namespace umbel::aggregation {
namespace {

constexpr std::string_view kPrivacy = "DifferentialPrivacy";  // names of wrappers begin so

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

/// Levenshtein's distance.
size_t Edits(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

/// "; did you mean 'eta'?" or nothing.
std::string Hint(std::string_view name, std::span<const std::string_view> known) {
  const std::string nearest = Nearest(name, known);
  return nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest);
}

std::string Show(const ParamValue& value) {
  struct Visitor {
    std::string operator()(std::monostate) const { return "None"; }
    std::string operator()(int64_t v) const { return fmt::format("{}", v); }
    std::string operator()(double v) const { return fmt::format("{}", v); }
    std::string operator()(const std::string& v) const { return tensor::Quote(v); }
  };
  return std::visit(Visitor(), value);
}

template <typename T>
std::optional<T> Number(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Result<ParamValue> CheckNumber(const ParamInfo& info, const ParamValue& given) {
  const std::string* text = std::get_if<std::string>(&given);
  std::optional<int64_t> whole;
  if (text != nullptr) whole = Number<int64_t>(*text);
  if (const auto* value = std::get_if<int64_t>(&given)) whole = *value;
  if (info.type == ParamType::kInt) {
    if (!whole)
      return Fail(Code::kInvalidArgument,
                  fmt::format("{} {} is not an int", info.name, Show(given)));
    if (!info.range.Has(static_cast<double>(*whole)))
      return Fail(Code::kInvalidArgument,
                  fmt::format("{} {} not in {}", info.name, *whole, info.range.ToString()));
    return ParamValue(*whole);
  }
  std::optional<double> number;
  if (whole) number = static_cast<double>(*whole);
  if (text != nullptr && !number) number = Number<double>(*text);
  if (const auto* value = std::get_if<double>(&given)) number = *value;
  if (!number)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} {} is not a float", info.name, Show(given)));
  if (!info.range.Has(*number))
    return Fail(Code::kInvalidArgument,
                fmt::format("{} {} not in {}", info.name, *number, info.range.ToString()));
  return ParamValue(*number);
}

Result<ParamValue> Check(const ParamInfo& info, const ParamValue& given) {
  const std::string* text = std::get_if<std::string>(&given);
  const bool none = std::holds_alternative<std::monostate>(given) ||
                    (info.type != ParamType::kText && text != nullptr && *text == "None");
  if (none && info.optional) return ParamValue();
  if (none) return Fail(Code::kInvalidArgument, fmt::format("{} may not be None", info.name));
  if (info.type == ParamType::kPython)
    return Fail(Code::kUnimplemented,
                fmt::format("{} is an object of Python; only a ServerApp can give it", info.name));
  if (info.type != ParamType::kText) return CheckNumber(info, given);
  if (text == nullptr)
    return Fail(Code::kInvalidArgument, fmt::format("{} {} is not a text", info.name, Show(given)));
  if (text->empty()) return Fail(Code::kInvalidArgument, fmt::format("{} is empty", info.name));
  return given;
}

Result<const StrategyInfo*> Find(std::string_view name) {
  const std::string wanted = Lower(name);
  std::vector<std::string_view> known;
  for (const StrategyInfo& info : Strategies()) {
    std::string_view shorter = info.name;
    if (info.wrapper) shorter.remove_prefix(kPrivacy.size());
    if (Lower(info.name) == wanted || Lower(shorter) == wanted) return &info;
    known.push_back(info.name);
    if (info.wrapper) known.push_back(shorter);
  }
  if (wanted.starts_with("differentialprivacyclientside"))
    return Fail(
        Code::kUnimplemented,
        fmt::format("strategy {} runs only in Python: the nodes clip, and the server cannot "
                    "check it; native strategies clip at the server",
                    tensor::Quote(name)));
  return Fail(Code::kNotFound,
              fmt::format("unknown strategy {}{}", tensor::Quote(name), Hint(name, known)));
}

Result<Params> CheckAll(const StrategyInfo& info, const Params& given) {
  Params out = info.fixed;
  std::vector<std::string_view> known;
  for (const ParamInfo& param : info.params) known.push_back(param.name);
  for (const auto& [name, value] : given) {
    if (std::find(known.begin(), known.end(), name) == known.end())
      return Fail(Code::kInvalidArgument, fmt::format("{} has no parameter {}{}", info.name,
                                                      tensor::Quote(name), Hint(name, known)));
  }
  for (const ParamInfo& param : info.params) {
    const auto found = given.find(param.name);
    if (found != given.end()) {
      UMBEL_ASSIGN(out[param.name], Check(param, found->second));
    } else if (!param.required) {
      out[param.name] = param.standard;
    } else if (param.type != ParamType::kPython) {
      return Fail(Code::kInvalidArgument,
                  fmt::format("{} needs the parameter {}", info.name, param.name));
    }
  }
  std::erase_if(
      out, [](const auto& entry) { return std::holds_alternative<std::monostate>(entry.second); });
  return out;
}

}  // namespace

bool Interval::Has(double value) const {
  if (std::isnan(value)) return false;
  if (ends_only) return value == low || value == high;
  return (low_open ? value > low : value >= low) && (high_open ? value < high : value <= high);
}

std::string Interval::ToString() const {
  if (ends_only) return fmt::format("{{{}, {}}}", low, high);
  return fmt::format("{}{}, {}{}", low_open ? '(' : '[', low, high, high_open ? ')' : ']');
}

std::string Nearest(std::string_view name, std::span<const std::string_view> known) {
  const std::string wanted = Lower(name.substr(0, 100));
  std::string best;
  size_t least = std::max<size_t>(2, wanted.size() / 3) + 1;
  for (const std::string_view candidate : known) {
    const size_t edits = Edits(wanted, Lower(candidate));
    if (edits >= least) continue;
    least = edits;
    best = candidate;
  }
  return best;
}

double StrategySpec::Float(std::string_view param) const {
  const auto found = params.find(param);
  UMBEL_CHECK(found != params.end());
  return std::get<double>(found->second);
}
int64_t StrategySpec::Int(std::string_view param) const {
  const auto found = params.find(param);
  UMBEL_CHECK(found != params.end());
  return std::get<int64_t>(found->second);
}
const std::string& StrategySpec::Text(std::string_view param) const {
  const auto found = params.find(param);
  UMBEL_CHECK(found != params.end());
  return std::get<std::string>(found->second);
}

Result<StrategySpec> MakeStrategy(std::string_view name, const Params& params) {
  UMBEL_ASSIGN(const StrategyInfo* info, Find(name));
  if (info->wrapper)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} wraps a strategy; name that one, too", info->name));
  StrategySpec spec{.kind = info->kind, .params = {}, .inner = nullptr};
  UMBEL_ASSIGN(spec.params, CheckAll(*info, params));
  if (spec.Float("fraction_train") == 0) spec.params["min_train_nodes"] = int64_t{0};
  if (spec.Float("fraction_evaluate") == 0) spec.params["min_evaluate_nodes"] = int64_t{0};
  return spec;
}

Result<StrategySpec> WrapStrategy(std::string_view name, const Params& params, StrategySpec inner) {
  UMBEL_ASSIGN(const StrategyInfo* info, Find(name));
  if (!info->wrapper)
    return Fail(Code::kInvalidArgument, fmt::format("{} does not wrap a strategy", info->name));
  if (inner.inner)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} wraps {}, which is a wrapper itself", info->name, inner.name()));
  if (inner.kind == StrategyKind::kFedXgbBagging || inner.kind == StrategyKind::kFedXgbCyclic)
    return Fail(Code::kInvalidArgument,
                fmt::format("{} cannot wrap {}: its replies are trees, and not changes of the "
                            "model that could be clipped",
                            info->name, inner.name()));
  StrategySpec spec{.kind = info->kind, .params = {}, .inner = nullptr};
  UMBEL_ASSIGN(spec.params, CheckAll(*info, params));
  spec.inner = std::make_shared<const StrategySpec>(std::move(inner));
  if (spec.kind == StrategyKind::kServerSideAdaptiveClipping) UMBEL_TRY(AdaptiveNoiseOf(spec));
  return spec;
}

}  // namespace umbel::aggregation
