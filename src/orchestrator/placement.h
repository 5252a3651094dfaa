// Which instance goes to which node. Pure: values in, values out; any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "orchestrator/ground.h"

namespace umbel::orchestrator {

/// A node with what is placed on it now.
struct NodeLoad {
  Node node;  // reserved: the sum of what its instances need
  size_t instances = 0;
};

/// What became of one instance that needed a place.
struct Seat {
  std::string node;  // "": none
  std::string why;   // then: for each node, why not
};

/// Sets `needs` aside on the node.
void Reserve(NodeLoad& load, const Resources& needs);

/// Gives places to `waiting`, in this order, and reserves them in `loads`. A node must be up, have
/// the add-ons and room; of those that do, the least loaded one is taken, then the one with the
/// fewest instances, then the first. Who could be on a node if others had left it keeps the one
/// that lacks least: that takes nothing that came later, so that small ones which come and go never
/// keep a large one waiting for good. Gives one seat for each of `waiting`.
std::vector<Seat> Place(std::vector<NodeLoad>& loads, std::span<const InstanceSpec* const> waiting);

/// "100 MB", "1.5 GB": as people say it, powers of ten.
std::string BytesText(uint64_t bytes);

}  // namespace umbel::orchestrator
