// Random histories of writes against a model made of maps, on disk (with restarts) and in memory.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <optional>
#include <set>

#include "store/testing.h"

namespace umbel::store {
namespace {

using testing::At;
using testing::DigestOf;
using testing::SampleMessage;
using testing::SampleNode;
using testing::SampleObject;
using testing::SampleRun;
using testing::SampleTask;
using testing::SubmitAndWait;
using testing::TempDir;

using Key = std::pair<RunId, Digest>;

struct Model {
  std::map<NodeId, NodeRow> nodes;
  std::map<RunId, RunRow> runs;
  std::map<TaskId, TaskRow> tasks;
  std::map<Key, MessageRow> messages;
  std::map<Key, ObjectRow> objects;
  std::map<Digest, std::string> fabs;
  std::map<RunId, std::string> logs;
  WallTime alive_at;

  bool Unfinished(RunId run_id) const {
    const auto run = runs.find(run_id);
    if (run == runs.end()) return false;
    const auto task = tasks.find(run->second.primary_task_id);
    return task != tasks.end() && task->second.status != TaskStatus::kFinished;
  }
  void DropData(RunId run_id) {
    std::erase_if(messages, [&](const auto& m) { return m.first.first == run_id; });
    std::erase_if(objects, [&](const auto& o) { return o.first.first == run_id; });
    std::set<Digest> named;
    for (const auto& [id, run] : runs)
      if (Unfinished(id)) named.insert(run.fab_hash);
    std::erase_if(fabs, [&](const auto& fab) { return !named.contains(fab.first); });
  }
  void Restart() {
    std::erase_if(messages, [&](const auto& m) { return !Unfinished(m.first.first); });
    std::erase_if(objects, [&](const auto& o) { return !Unfinished(o.first.first); });
  }
};

/// One step: the write, and what it does to the model. false: the store must refuse it.
struct Step {
  Write write;
  std::function<bool(Model&)> apply;
};

Step MakeStep(uint8_t kind, uint16_t number) {
  const uint64_t run = uint64_t{10} * (1 + number % 3);
  const RunId run_id{run};
  const uint64_t item = number / 3 % 5;
  const Key key{run_id, DigestOf(item)};
  switch (kind) {
    case 0: {
      NodeRow row = SampleNode(item);
      row.name = std::to_string(number);
      return {PutNode{row}, [=](Model& m) { return m.nodes[row.node_id] = row, true; }};
    }
    case 1: {
      RunRow row = SampleRun(run);
      row.account_name = std::to_string(number);
      return {PutRun{row}, [=](Model& m) { return m.runs[row.run_id] = row, true; }};
    }
    case 2: {
      const TaskRow row = SampleTask(run, static_cast<TaskStatus>(number / 3 % 4), number);
      return {PutTask{row}, [=](Model& m) { return m.tasks[row.task_id] = row, true; }};
    }
    case 3: {
      const MessageRow row = SampleMessage(run, item, number);
      return {PutMessage{row}, [=](Model& m) { return m.messages[key] = row, true; }};
    }
    case 4: {
      const ObjectRow row = SampleObject(run, item, std::string(number % 9000, 'x'));
      return {PutObject{row}, [=](Model& m) { return m.objects[key] = row, true; }};
    }
    case 5:
      return {TouchMessage{run_id, key.second, number % 2 == 0}, [=](Model& m) {
                if (m.messages.contains(key)) m.messages[key].touched = number % 2 == 0;
                return true;
              }};
    case 6:
      return {DropMessage{run_id, key.second},
              [=](Model& m) { return m.messages.erase(key), true; }};
    case 7:
      return {DropObject{run_id, key.second}, [=](Model& m) { return m.objects.erase(key), true; }};
    case 8:
      return {DropRunData{run_id}, [=](Model& m) {
                if (m.Unfinished(run_id)) return false;
                m.DropData(run_id);
                return true;
              }};
    case 9:
      return {DropRun{run_id}, [=](Model& m) {
                if (m.Unfinished(run_id)) return false;
                m.DropData(run_id);
                m.runs.erase(run_id);
                m.logs.erase(run_id);
                std::erase_if(m.tasks, [&](const auto& t) { return t.second.run_id == run_id; });
                return true;
              }};
    case 10: {
      const LogRow row{run_id, TaskId{run + 2}, At(number + 1), fmt::format("{}\n", number)};
      return {AppendLog{row}, [=](Model& m) { return m.logs[run_id] += row.text, true; }};
    }
    case 11:
      return {AddTraffic{run_id, number, 2, 0.5}, [=](Model& m) {
                if (!m.runs.contains(run_id)) return true;
                m.runs[run_id].bytes_sent += number;
                m.runs[run_id].bytes_recv += 2;
                m.runs[run_id].clientapp_runtime += 0.5;
                return true;
              }};
    case 12:
      return {FlushHeartbeats{
                  {{NodeId{item}, At(number)}}, {{TaskId{run + 2}, At(number)}}, At(number)},
              [=](Model& m) {
                if (m.nodes.contains(NodeId{item})) m.nodes[NodeId{item}].online_until = At(number);
                if (m.tasks.contains(TaskId{run + 2}))
                  m.tasks[TaskId{run + 2}].token_until = At(number);
                m.alive_at = At(number);
                return true;
              }};
    default: {
      const FabRow row{DigestOf(run), std::to_string(number)};  // what SampleRun(run) names
      return {PutFab{row}, [=](Model& m) { return m.fabs[row.hash] = row.content, true; }};
    }
  }
}

void Compare(Store& store, const Model& model) {
  const Snapshot snapshot = *store.Load();
  RC_ASSERT(snapshot.alive_at == model.alive_at);
  std::map<NodeId, NodeRow> nodes;
  for (const NodeRow& row : snapshot.nodes) nodes[row.node_id] = row;
  RC_ASSERT(nodes == model.nodes);

  Model live;
  for (const RunRow& row : snapshot.runs) live.runs[row.run_id] = row;
  for (const TaskRow& row : snapshot.tasks) live.tasks[row.task_id] = row;
  for (const MessageRow& row : snapshot.messages) live.messages[{row.run_id, row.message_id}] = row;
  for (const ObjectRow& row : snapshot.objects) live.objects[{row.run_id, row.object_id}] = row;
  Model expected = model;
  std::erase_if(expected.runs, [&](const auto& r) { return !model.Unfinished(r.first); });
  std::erase_if(expected.tasks, [&](const auto& t) { return !model.Unfinished(t.second.run_id); });
  expected.Restart();
  for (auto& [key, row] : expected.objects) row.content.clear();
  RC_ASSERT(live.runs == expected.runs);
  RC_ASSERT(live.tasks == expected.tasks);
  RC_ASSERT(live.messages == expected.messages);
  RC_ASSERT(live.objects == expected.objects);

  for (const auto& [key, row] : model.objects)
    RC_ASSERT(*store.ReadInline(key.first, key.second) == row.content);
  size_t listed = 0;
  for (const auto& [id, row] : model.runs) {
    const auto listing = store.ReadRun(id);
    RC_ASSERT(listing.ok() == model.tasks.contains(row.primary_task_id));
    if (!listing.ok()) continue;
    ++listed;
    RC_ASSERT(listing->run == row);
    RC_ASSERT(listing->task == model.tasks.at(row.primary_task_id));
  }
  RC_ASSERT(store.ListRuns(100, 0)->size() == listed);
  for (uint64_t run : {10u, 20u, 30u}) {
    const auto log = model.logs.find(RunId{run});
    RC_ASSERT(store.ReadLogs(RunId{run}, 0, At(0))->text ==
              (log == model.logs.end() ? "" : log->second));
    const auto fab = model.fabs.find(DigestOf(run));
    RC_ASSERT(store.ReadFab(DigestOf(run)).ok() == (fab != model.fabs.end()));
    if (fab != model.fabs.end()) RC_ASSERT(*store.ReadFab(DigestOf(run)) == fab->second);
  }
}

void RunHistory(bool in_memory) {
  TempDir directory;
  StoreOptions options;
  if (!in_memory) options.directory = directory.path();
  auto store = std::move(*Store::Open(options));
  Model model;
  const auto steps = *rc::gen::container<std::vector<std::pair<uint8_t, uint16_t>>>(
      rc::gen::pair(rc::gen::inRange<uint8_t>(0, 30), rc::gen::arbitrary<uint16_t>()));
  std::vector<Step> pending;  // submitted together
  const auto submit = [&] {
    Model after = model;
    bool accepted = true;
    std::vector<Write> writes;
    for (const Step& step : pending) {
      accepted = accepted && step.apply(after);
      writes.push_back(step.write);
    }
    pending.clear();
    const Status status = SubmitAndWait(*store, std::move(writes));
    RC_ASSERT(status.ok() == accepted);
    if (accepted) model = after;
  };
  for (const auto& [kind, number] : steps) {
    if (kind < 28) {
      pending.push_back(MakeStep(kind % 14, number));
      if (number % 3 != 0) submit();
    } else if (!in_memory) {
      submit();
      store.reset();
      store = std::move(*Store::Open(options));
      model.Restart();
    }
  }
  submit();
  Compare(*store, model);
}

RC_GTEST_PROP(StoreModel, OnDisk, ()) { RunHistory(false); }
RC_GTEST_PROP(StoreModel, InMemory, ()) { RunHistory(true); }

}  // namespace
}  // namespace umbel::store
