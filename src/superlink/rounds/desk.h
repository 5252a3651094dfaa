// What a session's caller asks of it, in messages to node 1: for everything at the end, or step by
// step. Put may be called from any thread, the rest belongs to the session's.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/ids.h"
#include "superlink/engine.h"
#include "superlink/rounds/instructions.h"
#include "superlink/rounds/model.h"
#include "superlink/rounds/plan.h"

namespace umbel::rounds {
class Progress;
}  // namespace umbel::rounds

namespace umbel::superlink::rounds {

class Desk {
 public:
  Desk(Engine& engine, RunId run_id, std::string session)
      : engine_(engine), run_id_(run_id), session_(std::move(session)) {}

  void Put(Delivery message);
  /// Reads what was put, and answers what can be answered by now. Answers are safe to give twice.
  void Answer(const Plan& plan, const ::umbel::rounds::Progress& progress, const Model& model);
  /// How many steps the caller has asked for.
  uint32_t granted() const { return granted_; }

 private:
  struct Question {
    ObjectId id;
    std::shared_ptr<const MessageBytes> bytes;
    uint32_t step = 0;    // 0: all of it
    bool arrays = false;  // with the model
  };

  void Read();
  bool TryAnswer(const Question& question, const Plan& plan,
                 const ::umbel::rounds::Progress& progress, const Model& model);
  void AnswerStep(const Question& question, const ::umbel::rounds::Progress& progress,
                  const Model& model);
  void AnswerHistory(const Question& question, const Model& model);
  void Refuse(const Question& question, const std::string& why);
  void Send(const Question& question, Result<OwnReply> reply);

  Engine& engine_;
  const RunId run_id_;
  const std::string session_;
  uint32_t granted_ = 0;
  std::vector<Question> questions_;
  std::mutex mutex_;
  std::deque<Delivery> inbox_;
};

}  // namespace umbel::superlink::rounds
