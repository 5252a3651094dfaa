#include "superlink/rounds/stop.h"

#include <cmath>
#include <limits>

#include "superlink/rounds/report.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace {

/// What decides between rounds of one value; a metric that is missing or no number is the worst.
double TieOf(const StopRules& rules, const flower::MetricRecord& evaluation) {
  const auto value = MetricOf(evaluation, rules.tie_metric);
  return value && !std::isnan(*value) ? *value : std::numeric_limits<double>::infinity();
}

}  // namespace

void CountRound(const StopRules& rules, const flower::MetricRecord& evaluation,
                ::umbel::rounds::Progress* progress) {
  const auto value = MetricOf(evaluation, rules.metric);
  if (!value) return;
  const double tie = TieOf(rules, evaluation);
  const bool better =
      !std::isnan(*value) &&
      (!progress->has_best() ||
       (rules.smaller_is_better ? *value < progress->best() : *value > progress->best()) ||
       (*value == progress->best() && tie < progress->best_tie()));
  if (!better) {
    progress->set_rounds_without_better(progress->rounds_without_better() + 1);
    return;
  }
  progress->set_has_best(true);
  progress->set_best(*value);
  progress->set_best_tie(tie);
  progress->set_best_round(progress->round());
  progress->set_rounds_without_better(0);
}

std::string WhyStop(const StopRules& rules, const flower::MetricRecord& evaluation,
                    const ::umbel::rounds::Progress& progress, double now) {
  const auto value = MetricOf(evaluation, rules.metric);
  if (value && rules.at_least && *value >= *rules.at_least)
    return fmt::format("{} {} is at least {}", rules.metric, *value, *rules.at_least);
  if (value && rules.at_most && *value <= *rules.at_most)
    return fmt::format("{} {} is at most {}", rules.metric, *value, *rules.at_most);
  if (rules.patience > 0 && progress.rounds_without_better() >= rules.patience)
    return progress.has_best()
               ? fmt::format("no {} better than {} for {} rounds", rules.metric, progress.best(),
                             rules.patience)
               : fmt::format("no {} that is a number for {} rounds", rules.metric, rules.patience);
  if (rules.seconds > 0 && now - progress.started_at() >= rules.seconds)
    return fmt::format("{:g} s are over", rules.seconds);
  return "";
}

}  // namespace umbel::superlink::rounds
