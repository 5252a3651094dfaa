#include "superlink/rounds/desk.h"

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "superlink/rounds/machine.h"
#include "superlink/rounds/report.h"
#include "umbel/rounds.pb.h"

namespace umbel::superlink::rounds {
namespace pb = ::umbel::rounds;
namespace {

constexpr int kErrorUnknown = 0;  // Flower's code
constexpr uint64_t kRowsTogether = 1000;

flower::MetricRecord FromProto(const flwr::proto::MetricRecord& metrics) {
  auto read = DecodeMetrics(metrics);
  return read.ok() ? *std::move(read) : flower::MetricRecord{};
}

bool Ended(const pb::Progress& progress) {
  return static_cast<Phase>(progress.phase()) == Phase::kEnded;
}

}  // namespace

void Desk::Put(Delivery message) {
  const std::lock_guard lock(mutex_);
  inbox_.push_back(std::move(message));
}

void Desk::Read() {
  std::deque<Delivery> taken;
  {
    const std::lock_guard lock(mutex_);
    taken = std::exchange(inbox_, {});
  }
  for (Delivery& message : taken) {
    Question question{message.id, std::move(message.bytes), 0, false};
    RunObjects objects(engine_, run_id_);
    const auto step = ReadStepRequest(message.id, objects);
    if (!step.ok()) {
      Refuse(question, step.error().message);
      continue;
    }
    if (*step) {
      question.step = (*step)->step;
      question.arrays = (*step)->arrays;
      granted_ = std::max(granted_, question.step);
    }
    questions_.push_back(std::move(question));
  }
}

void Desk::Answer(const Plan& plan, const pb::Progress& progress, const Model& model) {
  Read();
  std::erase_if(questions_, [&](const Question& question) {
    return TryAnswer(question, plan, progress, model);
  });
}

bool Desk::TryAnswer(const Question& question, const Plan& plan, const pb::Progress& progress,
                     const Model& model) {
  const bool ended = Ended(progress);
  if (ended && !progress.failure().empty()) {
    Refuse(question, progress.failure());
  } else if (question.step == 0 && plan.stepped) {
    flower::ConfigRecord told = {{"session", session_}, {"step", uint64_t{progress.step()}}};
    Send(question, MakeOwnReply(question.bytes->body, nullptr, {{"session", std::move(told)}},
                                engine_.clock().Now()));
  } else if (question.step == 0) {
    if (!ended) return false;
    AnswerHistory(question, model);
  } else if (question.step > progress.step()) {
    if (!ended) return false;
    Refuse(question, fmt::format("the rounds have ended; there is no step {}", question.step));
  } else if (question.step < progress.step()) {
    Refuse(question,
           fmt::format("step {} is over, {} was the last", question.step, progress.step()));
  } else {
    AnswerStep(question, progress, model);
  }
  return true;
}

void Desk::AnswerStep(const Question& question, const pb::Progress& progress, const Model& model) {
  const pb::Step& last = progress.last();
  flower::ConfigRecord told = {{"step", uint64_t{progress.step()}},
                               {"round", uint64_t{last.round()}},
                               {"kind", last.kind()},
                               {"skipped", last.skipped()},
                               {"failures", uint64_t{last.failures()}},
                               {"ended", Ended(progress)}};
  flower::RecordDict records = {{"step", std::move(told)}, {"metrics", FromProto(last.metrics())}};
  for (const pb::Answered& reply : last.replies())
    records.emplace_back(fmt::format("reply-{}", reply.node_id()), FromProto(reply.metrics()));
  Send(question, MakeOwnReply(question.bytes->body, question.arrays ? &model : nullptr, records,
                              engine_.clock().Now()));
}

/// All rounds at once.
void Desk::AnswerHistory(const Question& question, const Model& model) {
  flower::RecordDict records;
  for (uint64_t after = 0;;) {
    const auto rows = engine_.store().ReadRounds(run_id_, after, kRowsTogether);
    if (!rows.ok()) return Refuse(question, rows.error().message);
    if (rows->empty()) break;
    for (const store::RoundRow& row : *rows) {
      after = row.sequence;
      pb::RoundRecord record;
      if (!record.ParseFromString(row.record) || record.session() != session_) continue;
      if (record.kind() == "end" || record.phase().accepted() == 0 || record.phase().unused())
        continue;
      records.emplace_back(fmt::format("{}-{}", record.kind(), record.round()),
                           FromProto(record.phase().metrics()));
    }
  }
  Send(question, MakeOwnReply(question.bytes->body, &model, records, engine_.clock().Now()));
}

void Desk::Refuse(const Question& question, const std::string& why) {
  Send(question, MakeOwnError(question.bytes->body, kErrorUnknown, why, engine_.clock().Now()));
}

void Desk::Send(const Question& question, Result<OwnReply> reply) {
  if (!reply.ok()) {
    LogError("an answer of node 1 cannot be made",
             {{"run_id", run_id_}, {"why", reply.error().message}});
    return;
  }
  engine_.Read([&](State& state, WallTime now) {
    if (Run* run = state.FindRun(run_id_))
      state.AnswerOwn(*run, question.id, std::move(reply->message), std::move(reply->objects), now);
  });
}

}  // namespace umbel::superlink::rounds
