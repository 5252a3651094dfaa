// ClientApps in C++: a trainer that needs no Python.
//
//     umbel::Result<RecordDict> Train(Message& message, Context& context) {
//       UMBEL_ASSIGN(ArrayRecord* arrays, message.content.Arrays("arrays"));
//       UMBEL_ASSIGN(std::span<float> weight, Values<float>(*arrays, "weight", {784, 10}));
//       ...
//       RecordDict reply;
//       reply["arrays"] = std::move(*arrays);
//       reply["metrics"] = MetricRecord{{"num-examples", int64_t{600}}};
//       return reply;
//     }
//     int main(int argc, char** argv) {
//       umbel::clientapp::ClientApp app;
//       app.train = Train;
//       return umbel::clientapp::Serve(argc, argv, std::move(app));
//     }
//
// A program links with the CMake target umbel_clientapp. examples/native-softmax is a whole one.
#pragma once

#include <functional>
#include <map>
#include <stop_token>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "clientapp/array.h"
#include "clientapp/records.h"

namespace umbel::clientapp {

/// An instruction of the ServerApp.
struct Message {
  std::string type;      // "train", "evaluate" or "query", perhaps with ".ACTION"
  std::string group_id;  // with most ServerApps the number of the round
  RecordDict content;
};

/// What a site knows besides the message.
struct Context {
  RunId run_id;
  NodeId node_id;
  ConfigMap node_config;  // of --node-config
  ConfigMap run_config;   // the app's defaults, overlaid with the run's
  /// Kept on the site's disk from one message of the run series to the next, through crashes too,
  /// also when the function fails; at most 256 MiB.
  RecordDict state;
  /// Wanted when nobody waits for the reply any more; what is then returned is not sent.
  std::stop_token stop;
};

/// Answers a message. Runs on a thread of a pool: of one site's run series one at a time, of
/// different ones side by side, as many as --max-parallel says. Both arguments are the call's own:
/// arrays may be moved out of them.
///
/// returns  the reply's content.
/// errors   any, and any exception: the ServerApp gets an error reply with code 2 and the text.
using Handler = std::function<Result<RecordDict>(Message&, Context&)>;

/// What a site does; an empty function answers with an error reply.
struct ClientApp {
  Handler train, evaluate, query;
  std::map<std::string, Handler> actions;  // by full type: "train.prune"
};

/// Serves as `umbel supernode` does, with its flags, configuration file and environment, but runs
/// `app` in this process: no Python, and no process for each message. The run's FAB still decides
/// what may be run here (--trusted-entities, --allow-fab), but its own ClientApp is not used.
///
/// The app is not confined: limits on it are refused unless --unlimited says that they need not be
/// kept, and its crash is the site's crash. After a restart the message is run again.
///
/// returns  the exit status of the process; to be called once, from main().
int Serve(int argc, char** argv, ClientApp app);

}  // namespace umbel::clientapp
