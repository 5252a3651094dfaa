// A strategy as data: which of Flower's strategies, and its parameters under the names of Flower's
// constructors. What the strategy computes stands in optimizer.h, robust.h, krum.h, qfedavg.h,
// clipping.h and xgboost.h. Values and functions; safe from any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/result.h"

namespace umbel::aggregation {

enum class StrategyKind {
  kFedAvg,
  kFedProx,
  kFedAvgM,
  kFedAdagrad,
  kFedAdam,
  kFedYogi,
  kQFedAvg,
  kFedMedian,
  kFedTrimmedAvg,
  kKrum,
  kMultiKrum,
  kBulyan,
  kFedXgbBagging,
  kFedXgbCyclic,
  kServerSideFixedClipping,     // wraps another strategy
  kServerSideAdaptiveClipping,  // wraps another strategy
};

/// monostate is Python's None.
using ParamValue = std::variant<std::monostate, int64_t, double, std::string>;
using Params = std::map<std::string, ParamValue, std::less<>>;

enum class ParamType {
  kInt,
  kFloat,
  kText,
  kPython,  // a function or another object of Python: part of the signature, never set here
};

/// Bounds of a number; an infinite bound is open.
struct Interval {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool low_open = false;
  bool high_open = false;
  bool ends_only = false;  // the two bounds and nothing between

  bool Has(double value) const;
  std::string ToString() const;  // "[0, 0.5)", "{0, 1}"
};

struct ParamInfo {
  std::string name;
  ParamType type = ParamType::kFloat;
  ParamValue standard;  // the default; of a required one, monostate
  bool required = false;
  Interval range = {};
  bool optional = false;  // may be None
};

struct StrategyInfo {
  StrategyKind kind;
  std::string name;               // of Flower's class
  std::string paper;              // where the method is from
  std::vector<ParamInfo> params;  // in the order of Flower's constructor
  Params fixed;                   // what the class sets for its base class
  bool wrapper = false;
};

/// Every strategy that runs natively.
std::span<const StrategyInfo> Strategies();
const StrategyInfo& InfoOf(StrategyKind kind);

/// A valid strategy: every parameter is there, checked, and of its type.
struct StrategySpec {
  StrategyKind kind = StrategyKind::kFedAvg;
  Params params;
  std::shared_ptr<const StrategySpec> inner;  // what a wrapper wraps; else null

  const std::string& name() const { return InfoOf(kind).name; }
  /// The strategy inside the wrapper, or this.
  const StrategySpec& base() const { return inner ? *inner : *this; }
  bool Has(std::string_view param) const { return params.contains(param); }
  /// Of a parameter that the strategy has, in its type.
  double Float(std::string_view param) const;
  int64_t Int(std::string_view param) const;
  const std::string& Text(std::string_view param) const;
};

/// name     of Flower's class; upper and lower case are one ("fedadam").
/// params   where Flower takes a number, text that is one will do ("0.01"); "None" is None.
/// returns  with Flower's defaults, and with what its constructors derive: a fraction of 0 makes
/// the
///          minimum of nodes 0.
/// errors   kNotFound: an unknown strategy, with the nearest known; kInvalidArgument: an unknown,
///          missing or ill-typed parameter or one out of range, with its value and the rule: what
///          Flower refuses, and what can mean nothing (an infinite rate, a fraction above 1).
///          kUnimplemented: a strategy or a parameter that only Python has.
Result<StrategySpec> MakeStrategy(std::string_view name, const Params& params);

/// The same for a wrapper around `inner`; "ServerSideFixedClipping" will do for its name.
/// errors  MakeStrategy()'s; kInvalidArgument: `inner` is a wrapper itself, or its replies are no
///         changes of the model.
Result<StrategySpec> WrapStrategy(std::string_view name, const Params& params, StrategySpec inner);

/// Of `known`, the name nearest to `name` by edits, upper and lower case being one; "" when none is
/// near.
std::string Nearest(std::string_view name, std::span<const std::string_view> known);

}  // namespace umbel::aggregation
