// Models and updates in memory, for tests of aggregators.
#pragma once

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "superlink/rounds/model.h"
#include "superlink/rounds/reply.h"
#include "tensor/npy.h"

namespace umbel::superlink::rounds::testing {

/// An array whose NPY file is one chunk in memory. `head` "": C order, made from descr and shape.
inline ModelArray ArrayOf(const std::string& name, const std::string& descr,
                          std::vector<uint64_t> shape, std::string_view data,
                          std::string head = "") {
  if (head.empty()) head = tensor::MakeNpyHead(descr, shape);
  auto place = std::make_shared<ChunkPlace>();
  place->inline_bytes = head + std::string(data);
  place->size = place->inline_bytes.size();
  return {name, **tensor::ParseNpyHead(head), ArrayFile({std::move(place)})};
}

template <typename T>
std::string BytesOf(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

inline Model ModelOf(std::vector<ModelArray> arrays) {
  Model model;
  model.arrays = std::move(arrays);
  return model;
}

inline Update UpdateOf(uint64_t node, double weight, std::vector<ModelArray> arrays) {
  Update update;
  update.node = NodeId{node};
  update.weight = weight;
  update.arrays = std::move(arrays);
  for (const ModelArray& array : update.arrays) update.bytes += array.data_bytes();
  return update;
}

/// All bytes of a new array.
inline std::string Filled(const NewArray& array, size_t item) {
  uint64_t count = 1;
  for (const uint64_t size : array.shape) count *= size;
  std::string out(static_cast<size_t>(count) * item, '\0');
  UMBEL_CHECK(array.fill(0, count, out).ok());
  return out;
}

template <typename T>
std::vector<T> ValuesOf(const NewArray& array) {
  const std::string bytes = Filled(array, sizeof(T));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace umbel::superlink::rounds::testing
