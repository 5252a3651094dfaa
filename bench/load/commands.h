// What umbel_load can do: each command prints lines of JSON and returns an error if it could not.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "net.h"

namespace umbel::bench {

struct ObjectsOptions {
  Endpoint server;
  std::string fab;
  bool up = true;  // nodes push and the ServerApp pulls; else the other way round
  size_t connections = 4;
  size_t objects = 160;
  size_t object_bytes = size_t{5} << 20;
};
/// Pushes distinct objects, then pulls all of them and checks their hashes.
Status RunObjects(const ObjectsOptions& options);

struct RoofOptions {
  std::string folder;  // on the file system to compare with
  size_t connections = 4;
  size_t objects = 160;
  size_t object_bytes = size_t{5} << 20;
  bool sync = false;  // fdatasync after each object, before it is acknowledged
};
/// The same bytes without a server: loopback into SHA-256 and pwrite; sendfile and SHA-256 back.
Status RunRoof(const RoofOptions& options);

struct MessagesOptions {
  Endpoint server;
  std::string fab;
  size_t connections = 8;
  size_t messages = 1000;
  size_t batch = 1;  // messages in one push-messages
};
/// Pushes instructions with trees of 24 objects: first all push-messages, then all objects.
Status RunMessages(const MessagesOptions& options);

struct IdleOptions {
  Endpoint server;
  size_t nodes = 1000;
  double warm_seconds = 25;
  double seconds = 60;
  double close_after = 5;  // seconds a heartbeat's connection stays open and idle
};
/// Nodes that wait for work and heartbeat. Prints a line when all wait and are warm, one at the
/// end.
Status RunIdle(const IdleOptions& options);

struct TrainOptions {
  Endpoint server;
  size_t nodes = 6;
  size_t threads = 6;     // nodes at work at one time
  size_t phases = 1;      // of training and of evaluation, until it ends
  bool stock = false;     // replies are sent from the chunks up, else the small objects first
  bool hostile = false;   // the first node's numbers are of all magnitudes
  double patience = 600;  // seconds without an instruction
};
/// Nodes that answer a run which somebody else starts: training with the model and a number of
/// their own added to every value, a number for each node and phase. The model is in memory once,
/// and of each reply a few chunks, which are made twice: to be hashed, and to be sent. Prints a
/// line when the nodes are online, one at the end with the times of each phase.
Status RunTrain(const TrainOptions& options);

struct HostileOptions {
  Endpoint server;
  std::string fab;
  size_t connections = 500;
  size_t processes = 4;
  double seconds = 20;
};
/// Connections that send nothing, or part of a request, and then wait.
Status RunHalfOpen(const HostileOptions& options);
/// Connections that send a head or a body a byte at a time, or never read their replies.
Status RunSlow(const HostileOptions& options);
/// Signed requests that announce bodies of nearly the largest size, and send all but the last byte.
Status RunHog(const HostileOptions& options);
/// Requests whose framing or content lies, over and over; each answer is compared with what it
/// must be. `connections` is how often each is tried by each process.
Status RunLies(const HostileOptions& options);

}  // namespace umbel::bench
