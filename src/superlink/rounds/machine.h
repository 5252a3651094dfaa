// A round as a table. Session asks; only this table says what comes next.
#pragma once

#include <array>
#include <optional>
#include <string_view>

#include "superlink/machines.h"

namespace umbel::superlink::rounds {

enum class Phase {
  kPrepare,    // the initial model is here, nothing was asked yet
  kTrainWait,  // until there are enough nodes to train
  kTrain,      // nodes were asked; replies are collected
  kEvaluateWait,
  kEvaluate,
  kEnded,
};

enum class PhaseEvent {
  kBegin,    // the plan fits the model
  kAsked,    // a cohort was drawn and its instructions are durable
  kSkipped,  // nobody is to be asked: the fraction is 0
  kClosed,   // every reply is in, or enough of them, or the time is up; the result is durable
  kStopped,  // kClosed or kSkipped, of the last evaluation there is to be
  kFailed,
};

inline constexpr Transition<Phase, PhaseEvent> kPhaseTransitions[] = {
    {Phase::kPrepare, PhaseEvent::kBegin, Phase::kTrainWait},
    {Phase::kPrepare, PhaseEvent::kStopped, Phase::kEnded},
    {Phase::kTrainWait, PhaseEvent::kAsked, Phase::kTrain},
    {Phase::kTrainWait, PhaseEvent::kSkipped, Phase::kEvaluateWait},
    {Phase::kTrain, PhaseEvent::kClosed, Phase::kEvaluateWait},
    {Phase::kEvaluateWait, PhaseEvent::kAsked, Phase::kEvaluate},
    {Phase::kEvaluateWait, PhaseEvent::kSkipped, Phase::kTrainWait},
    {Phase::kEvaluateWait, PhaseEvent::kStopped, Phase::kEnded},
    {Phase::kEvaluate, PhaseEvent::kClosed, Phase::kTrainWait},
    {Phase::kEvaluate, PhaseEvent::kStopped, Phase::kEnded},
    {Phase::kPrepare, PhaseEvent::kFailed, Phase::kEnded},
    {Phase::kTrainWait, PhaseEvent::kFailed, Phase::kEnded},
    {Phase::kTrain, PhaseEvent::kFailed, Phase::kEnded},
    {Phase::kEvaluateWait, PhaseEvent::kFailed, Phase::kEnded},
    {Phase::kEvaluate, PhaseEvent::kFailed, Phase::kEnded},
};

constexpr std::optional<Phase> Next(Phase from, PhaseEvent event) {
  return superlink::Next<Phase, PhaseEvent>(kPhaseTransitions, from, event);
}

constexpr bool IsTrain(Phase phase) { return phase == Phase::kTrainWait || phase == Phase::kTrain; }

constexpr std::string_view Name(Phase phase) {
  constexpr std::array<std::string_view, 6> kNames = {"prepare",       "train-wait", "train",
                                                      "evaluate-wait", "evaluate",   "ended"};
  return kNames[static_cast<size_t>(phase)];
}

/// What became of a node's part in a phase.
enum class Outcome {
  kAccepted,
  kFailed,        // the node answered with an error, or went away
  kMalformed,     // the reply is not made of what Flower's records are
  kWrongRecords,  // not one ArrayRecord and one MetricRecord
  kWrongKeys,     // other arrays than the model's
  kWrongShape,
  kWrongDtype,
  kNoWeight,   // its metrics lack the weight
  kBadWeight,  // a list, or not finite and above 0
  kNonFinite,  // a NaN or an infinity among its arrays or metrics
  kTooLarge,   // its magnitudes would take more memory than there is for sums
  kLate,       // the phase closed without it
};

constexpr std::string_view Name(Outcome outcome) {
  constexpr std::array<std::string_view, 12> kNames = {
      "accepted",    "failed",    "malformed",  "wrong_records", "wrong_keys", "wrong_shape",
      "wrong_dtype", "no_weight", "bad_weight", "non_finite",    "too_large",  "late"};
  return kNames[static_cast<size_t>(outcome)];
}

/// The outcome of that name; kMalformed for a name of no outcome.
constexpr Outcome OutcomeOf(std::string_view name) {
  for (int i = 0; i <= static_cast<int>(Outcome::kLate); ++i)
    if (Name(static_cast<Outcome>(i)) == name) return static_cast<Outcome>(i);
  return Outcome::kMalformed;
}

}  // namespace umbel::superlink::rounds
