// Rows of the manager's database, written and read.
#include <cmath>

#include "manager/store.h"

namespace umbel::manager {
namespace {

using store::Query;

std::optional<double> Measured(const Query& query, int column) {
  if (query.IsNull(column)) return std::nullopt;
  return query.Real(column);
}

/// All rows of a query that has begun.
template <typename T, typename F>
Result<std::vector<T>> All(Query& query, F&& read) {
  std::vector<T> rows;
  for (;;) {
    UMBEL_ASSIGN(const bool row, query.Next());
    if (!row) return rows;
    rows.push_back(read(query));
  }
}

Project ReadProject(const Query& q) {
  Project p;
  int c = 0;
  p.id = q.Bytes(c++);
  p.sequence = q.Unsigned(c++);
  p.customer = q.Bytes(c++);
  p.sla = q.Bytes(c++);
  p.app_id = q.Bytes(c++);
  p.app_name = q.Bytes(c++);
  p.stage = static_cast<Stage>(q.Integer(c++));
  p.wanted = static_cast<Wanted>(q.Integer(c++));
  p.created_at = q.Time(c++);
  p.stage_since = q.Time(c++);
  p.ended_at = q.Time(c++);
  p.waiting = q.Bytes(c++);
  p.failure = q.Bytes(c++);
  p.commit = q.Bytes(c++);
  p.source = q.Bytes(c++);
  p.environment = q.Bytes(c++);
  p.initial = q.Bytes(c++);
  p.run_id = q.Unsigned(c++);
  p.run_token = q.Bytes(c++);
  p.run_asked_at = q.Real(c++);
  p.run_begun = q.Bool(c++);
  p.run_finished = q.Bool(c++);
  p.watched = q.Unsigned(c++);
  p.best_round = static_cast<uint32_t>(q.Integer(c++));
  p.best_accuracy = q.Real(c++);
  p.best_loss = q.IsNull(c) ? std::nan("") : q.Real(c);
  ++c;
  p.best_model = q.Bytes(c++);
  p.model = q.Bytes(c++);
  p.runs = static_cast<uint32_t>(q.Integer(c++));
  return p;
}

constexpr const char* kPutProject =
    " INTO projects (id, sequence, customer, sla, app_id, app_name, stage, wanted, created_at, "
    "stage_since, ended_at, waiting, failure, commit_hash, source, environment, initial, run_id, "
    "run_token, run_asked_at, run_begun, run_finished, watched, best_round, best_accuracy, "
    "best_loss, best_model, model, runs) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,"
    "?,?,?,?)";

Status Put(Connection& db, const std::string& verb, const Project& p) {
  // NaN is NULL to SQLite, which is what ReadProject makes NaN of.
  return db.Run(verb + kPutProject, p.id, p.sequence, p.customer, p.sla, p.app_id, p.app_name,
                static_cast<int>(p.stage), static_cast<int>(p.wanted), p.created_at, p.stage_since,
                p.ended_at, p.waiting, p.failure, p.commit, p.source, p.environment, p.initial,
                p.run_id, p.run_token, p.run_asked_at, p.run_begun, p.run_finished, p.watched,
                p.best_round, p.best_accuracy, p.best_loss, p.best_model, p.model, p.runs);
}

Round ReadRound(const Query& q) {
  Round r;
  r.run = static_cast<uint32_t>(q.Integer(0));
  r.round = static_cast<uint32_t>(q.Integer(1));
  r.began_at = q.Real(2);
  r.ended_at = q.Real(3);
  r.accuracy = Measured(q, 4);
  r.loss = Measured(q, 5);
  r.trained = static_cast<uint32_t>(q.Integer(6));
  r.evaluated = static_cast<uint32_t>(q.Integer(7));
  r.bytes = q.Unsigned(8);
  return r;
}

double OrNan(const std::optional<double>& value) { return value.value_or(std::nan("")); }

}  // namespace

Status InsertProject(Connection& db, const Project& project) {
  Project row = project;
  UMBEL_ASSIGN(const int64_t last, db.Integer("SELECT max(sequence) FROM projects"));
  row.sequence = static_cast<uint64_t>(last) + 1;
  return Put(db, "INSERT", row);
}
Status UpdateProject(Connection& db, const Project& project) { return Put(db, "REPLACE", project); }

Status DeleteProject(Connection& db, const std::string& id) {
  UMBEL_TRY(db.Run("DELETE FROM timeline WHERE project = ?", id));
  UMBEL_TRY(db.Run("DELETE FROM words WHERE project = ?", id));
  UMBEL_TRY(db.Run("DELETE FROM rounds WHERE project = ?", id));
  return db.Run("DELETE FROM projects WHERE id = ?", id);
}

Result<std::optional<Project>> FindProject(Connection& db, std::string_view id) {
  Query query(db, "SELECT * FROM projects WHERE id = ?", id);
  UMBEL_ASSIGN(const bool row, query.Next());
  if (!row) return std::optional<Project>();
  return std::optional<Project>(ReadProject(query));
}
Result<std::vector<Project>> ListProjects(Connection& db) {
  Query query(db, "SELECT * FROM projects ORDER BY sequence");
  return All<Project>(query, ReadProject);
}

Status InsertApp(Connection& db, const App& app) {
  return db.Run("INSERT INTO apps VALUES (?, ?, ?, ?, ?)", app.id, app.name, app.space,
                app.customer, app.project);
}
Status DeleteApp(Connection& db, const std::string& id) {
  return db.Run("DELETE FROM apps WHERE id = ?", id);
}
Result<std::vector<App>> ListApps(Connection& db) {
  Query query(db, "SELECT id, name, space, customer, project FROM apps ORDER BY id");
  return All<App>(query, [](const Query& q) {
    return App{q.Bytes(0), q.Bytes(1), q.Bytes(2), q.Bytes(3), q.Bytes(4)};
  });
}

Status PutService(Connection& db, const Service& s) {
  return db.Run(
      "INSERT INTO services VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) "
      "ON CONFLICT (id) DO UPDATE SET port = ?7, gone = ?9",
      s.id, static_cast<int>(s.kind), s.name, s.app_id, s.project, s.customer,
      static_cast<int>(s.port), s.created_at, s.gone);
}
Status DeleteService(Connection& db, const std::string& id) {
  return db.Run("DELETE FROM services WHERE id = ?", id);
}
Result<std::vector<Service>> ListServices(Connection& db, bool gone) {
  Query query(db,
              "SELECT id, kind, name, app_id, project, customer, port, created_at, gone "
              "FROM services WHERE gone <= ? ORDER BY id",
              gone);
  return All<Service>(query, [](const Query& q) {
    Service s;
    s.id = q.Bytes(0);
    s.kind = static_cast<Kind>(q.Integer(1));
    s.name = q.Bytes(2);
    s.app_id = q.Bytes(3);
    s.project = q.Bytes(4);
    s.customer = q.Bytes(5);
    s.port = static_cast<uint16_t>(q.Integer(6));
    s.created_at = q.Time(7);
    s.gone = q.Bool(8);
    return s;
  });
}

Status PutInstance(Connection& db, const Instance& i) {
  return db.Run("REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                i.service_id, i.number, i.name, i.spec, i.wanted, static_cast<int>(i.state), i.node,
                i.address, i.detail, i.starts, i.since, i.share_node, i.share_of);
}
Status DeleteInstance(Connection& db, const std::string& service_id, uint32_t number) {
  return db.Run("DELETE FROM instances WHERE service_id = ? AND number = ?", service_id, number);
}
Result<std::vector<Instance>> ListInstances(Connection& db) {
  Query query(db,
              "SELECT service_id, number, name, spec, wanted, state, node, address, detail, "
              "starts, since, share_node, share_of FROM instances ORDER BY service_id, number");
  return All<Instance>(query, [](const Query& q) {
    Instance i;
    i.service_id = q.Bytes(0);
    i.number = static_cast<uint32_t>(q.Integer(1));
    i.name = q.Bytes(2);
    i.spec = q.Bytes(3);
    i.wanted = q.Bool(4);
    i.state = static_cast<orchestrator::InstanceState>(q.Integer(5));
    i.node = q.Bytes(6);
    i.address = q.Bytes(7);
    i.detail = q.Bytes(8);
    i.starts = static_cast<uint32_t>(q.Integer(9));
    i.since = q.Time(10);
    i.share_node = q.Bytes(11);
    i.share_of = static_cast<uint32_t>(q.Integer(12));
    return i;
  });
}

Status PutRound(Connection& db, const std::string& project, const Round& r) {
  return db.Run("REPLACE INTO rounds VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", project, r.run,
                r.round, r.began_at, r.ended_at, OrNan(r.accuracy), OrNan(r.loss), r.trained,
                r.evaluated, r.bytes);
}
Result<std::optional<Round>> FindRound(Connection& db, std::string_view project, uint32_t run,
                                       uint32_t round) {
  Query query(db,
              "SELECT run, round, began_at, ended_at, accuracy, loss, trained, evaluated, bytes "
              "FROM rounds WHERE project = ? AND run = ? AND round = ?",
              project, run, round);
  UMBEL_ASSIGN(const bool row, query.Next());
  if (!row) return std::optional<Round>();
  return std::optional<Round>(ReadRound(query));
}
Result<std::vector<Round>> ListRounds(Connection& db, std::string_view project, uint32_t run) {
  Query query(db,
              "SELECT run, round, began_at, ended_at, accuracy, loss, trained, evaluated, bytes "
              "FROM rounds WHERE project = ? AND run = ? ORDER BY round",
              project, run);
  return All<Round>(query, ReadRound);
}

}  // namespace umbel::manager
