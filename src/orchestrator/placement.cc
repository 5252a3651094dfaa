#include "orchestrator/placement.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>

namespace umbel::orchestrator {
namespace {

struct Dimension {
  uint64_t Resources::*amount;
  const char* name;
};

constexpr Dimension kDimensions[] = {{&Resources::memory_bytes, "memory"},
                                     {&Resources::cpu_millicores, "cpu"},
                                     {&Resources::storage_bytes, "storage"}};

std::string AmountText(const Dimension& dimension, uint64_t amount) {
  return dimension.amount == &Resources::cpu_millicores ? fmt::format("{} m", amount)
                                                        : BytesText(amount);
}

uint64_t Free(const Node& node, const Dimension& dimension) {
  const uint64_t capacity = node.capacity.*dimension.amount;
  return capacity - std::min(capacity, node.reserved.*dimension.amount);
}

/// How much of the node's capacity is missing for `needs`, in the dimension that lacks most; at
/// most 0 when there is room.
double Lack(const Node& node, const Resources& needs) {
  double most = 0;
  for (const Dimension& dimension : kDimensions) {
    const uint64_t capacity = node.capacity.*dimension.amount;
    const uint64_t need = needs.*dimension.amount;
    if (capacity == 0 || need <= Free(node, dimension)) continue;
    most = std::max(
        most, static_cast<double>(need - Free(node, dimension)) / static_cast<double>(capacity));
  }
  return most;
}

/// The share of the node that is taken once `needs` are there too, where most is.
double LoadWith(const Node& node, const Resources& needs) {
  double most = 0;
  for (const Dimension& dimension : kDimensions)
    if (const uint64_t capacity = node.capacity.*dimension.amount; capacity != 0)
      most = std::max(most, (static_cast<double>(node.reserved.*dimension.amount) +
                             static_cast<double>(needs.*dimension.amount)) /
                                static_cast<double>(capacity));
  return most;
}

bool NeedsNothing(const Resources& needs) {
  return std::all_of(std::begin(kDimensions), std::end(kDimensions),
                     [&](const Dimension& dimension) { return needs.*dimension.amount == 0; });
}

/// Why the node is out of the question, whatever else is on it; "" when it is not.
std::string Unfit(const Node& node, const InstanceSpec& spec) {
  if (!spec.node.empty() && spec.node != node.name)
    return fmt::format("{} is not {}, where it belongs", node.name, spec.node);
  if (!node.up) return fmt::format("{} is down", node.name);
  for (const std::string& addon : spec.addons)
    if (node.addons.count(addon) == 0) return fmt::format("{} has no add-on {}", node.name, addon);
  for (const Dimension& dimension : kDimensions) {
    const uint64_t capacity = node.capacity.*dimension.amount;
    if (capacity != 0 && spec.resources.*dimension.amount > capacity)
      return fmt::format("{} has only {} of {} in all and {} are needed", node.name,
                         AmountText(dimension, capacity), dimension.name,
                         AmountText(dimension, spec.resources.*dimension.amount));
  }
  return "";
}

std::string NoRoom(const Node& node, const Resources& needs) {
  for (const Dimension& dimension : kDimensions) {
    const uint64_t capacity = node.capacity.*dimension.amount;
    const uint64_t need = needs.*dimension.amount;
    if (capacity != 0 && need > Free(node, dimension))
      return fmt::format("{} has {} of {} free of {} and {} are needed", node.name,
                         AmountText(dimension, Free(node, dimension)), dimension.name,
                         AmountText(dimension, capacity), AmountText(dimension, need));
  }
  return "";
}

}  // namespace

void Reserve(NodeLoad& load, const Resources& needs) {
  for (const Dimension& dimension : kDimensions) {
    uint64_t& reserved = load.node.reserved.*dimension.amount;
    const uint64_t need = needs.*dimension.amount;
    reserved = need > UINT64_MAX - reserved ? UINT64_MAX : reserved + need;
  }
  ++load.instances;
}

std::vector<Seat> Place(std::vector<NodeLoad>& loads,
                        std::span<const InstanceSpec* const> waiting) {
  std::vector<Seat> seats;
  seats.reserve(waiting.size());
  std::map<const NodeLoad*, const InstanceSpec*> kept;  // for whom it takes nobody else
  for (const InstanceSpec* spec : waiting) {
    NodeLoad* best = nullptr;
    NodeLoad* nearest = nullptr;
    std::vector<std::string> reasons;
    for (NodeLoad& load : loads) {
      std::string why = Unfit(load.node, *spec);
      const auto keeper = kept.find(&load);
      if (why.empty() && keeper != kept.end() && !NeedsNothing(spec->resources)) {
        why = fmt::format("{} is kept for {}, which has waited longer", load.node.name,
                          keeper->second->name);
      } else if (why.empty()) {
        const double lack = Lack(load.node, spec->resources);
        if (lack > 0) {
          why = NoRoom(load.node, spec->resources);
          if (!nearest || lack < Lack(nearest->node, spec->resources)) nearest = &load;
        } else {
          const auto rank = [&](const NodeLoad& each) {
            return std::pair(LoadWith(each.node, spec->resources), each.instances);
          };
          if (!best || rank(load) < rank(*best)) best = &load;
        }
      }
      if (!why.empty()) reasons.push_back(std::move(why));
    }
    if (best) {
      Reserve(*best, spec->resources);
      seats.push_back({best->node.name, ""});
      continue;
    }
    if (nearest) kept[nearest] = spec;
    seats.push_back(
        {"", loads.empty() ? "there are no nodes" : fmt::format("{}", fmt::join(reasons, "; "))});
  }
  return seats;
}

std::string BytesText(uint64_t bytes) {
  static constexpr std::array kUnits = {"B", "kB", "MB", "GB", "TB", "PB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  // 1.5 GB but 100 MB and 2 GB: a zero behind the point says nothing.
  std::string text = value < 10 ? fmt::format("{:.1f}", value) : fmt::format("{:.0f}", value);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return fmt::format("{} {}", text, kUnits[unit]);
}

}  // namespace umbel::orchestrator
