// What a manager is told at its start. Values; any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace umbel::manager {

struct Limits {
  std::chrono::seconds prepare{std::chrono::minutes(20)};
  std::chrono::seconds build{std::chrono::minutes(90)};
  std::chrono::seconds import{std::chrono::minutes(2)};   // of a repository's code
  std::chrono::seconds deploy{std::chrono::minutes(15)};  // once all actors have their place
  std::chrono::seconds round{std::chrono::hours(1)};      // one phase's wait for replies
  std::chrono::seconds record{std::chrono::minutes(30)};
  std::chrono::seconds serve{std::chrono::minutes(15)};
  uint32_t starts = 5;   // of an instance that ought to keep running
  uint32_t retries = 4;  // of what may go better another time
};

struct Options {
  std::string state;                 // absolute folder; ours alone
  std::string program;               // the umbel binary
  std::string python;                // the site's Python: Flower, uv, PyYAML
  std::string flops;                 // folder for Python's path that holds umbel/flops
  std::string mlflow_python;         // "": an environment with MLflow is made below `state`
  std::string dataserver;            // umbel-dataserver; "": learners bring their own data
  uint32_t environment_days = 30;    // unused for longer, they are removed; 0: never
  std::string sockets;               // short path of a folder for learners' sockets, by node
  bool isolated = false;             // user code sees no more than it needs
  std::vector<std::string> shown;    // paths that learners' user code sees beside that
  uint16_t tracking_port = 7027;     // and upward
  uint16_t aggregator_port = 8080;   // and upward
  uint16_t serving_port = 8088;      // and upward
  uint16_t data_port = 11027;        // and upward
  uint64_t python_memory_mb = 1024;  // the least that is set aside for a process of user code
  Limits limits;
};

}  // namespace umbel::manager
