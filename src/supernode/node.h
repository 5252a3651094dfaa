// One site: it activates, keeps alive, pulls, fetches, confirms, has the host work, and pushes.
// Belongs to the io_context's one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/ids.h"
#include "base/result.h"
#include "supernode/apps.h"
#include "supernode/fleet_client.h"
#include "supernode/host.h"
#include "supernode/journal.h"

namespace boost::asio {
class any_io_executor;
class thread_pool;
}  // namespace boost::asio

namespace umbel::supernode {

/// How many jobs of all sites run at one time; those beyond wait in the order they came.
class Slots;

/// What all sites of one process share.
struct Shared {
  http::Client& client;
  Journal& journal;
  Apps& apps;
  Host& host;
  Slots& slots;
  boost::asio::thread_pool& pool;
  const Clock& clock;
  Rng& rng;
  RetryRules retry;
  std::string spool_directory;
};

struct NodeCounters {
  uint64_t instructions = 0;
  uint64_t replies = 0;
  uint64_t error_replies = 0;
  uint64_t dropped = 0;  // replies that nobody wanted any more
  uint64_t bytes_in = 0;
  uint64_t bytes_out = 0;
};

class Node {
 public:
  /// site       its number in this process, from 0: what the journal knows it by.
  /// key_file   "" : a key of our own, which is kept, and registered when the SuperLink asks for
  /// it.
  static Result<std::unique_ptr<Node>> Make(Shared& shared, int64_t site,
                                            const std::string& key_file, ConfigMap node_config,
                                            const boost::asio::any_io_executor& executor);
  virtual ~Node() = default;

  /// Serves until Stop(). errors  what made it end: the key is not registered, the SuperLink stayed
  /// away for longer than the retry rules allow.
  virtual Task<Status> Run() = 0;
  /// Takes nothing new and says good-bye to the SuperLink; what is under way is taken up by the
  /// next process.
  virtual Task<void> Stop() = 0;

  virtual NodeId id() const = 0;  // 0 until it is connected
  virtual bool connected() const = 0;
  virtual const NodeCounters& counters() const = 0;
  /// For `umbel supernode status`: a JSON object.
  virtual std::string Describe() const = 0;
};

}  // namespace umbel::supernode
