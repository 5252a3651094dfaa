// A global model as objects of its run: what its arrays are, where they lie, how a new one is made.
// Belongs to the thread of its session, but where it says otherwise.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "aggregation/element.h"
#include "base/ids.h"
#include "base/result.h"
#include "superlink/engine.h"
#include "superlink/rounds/objects.h"
#include "tensor/npy.h"

namespace umbel::superlink::rounds {

struct ModelArray {
  std::string name;
  tensor::NpyHead npy;
  ArrayFile file;

  uint64_t data_bytes() const { return npy.element_count * npy.item_size; }
};

struct Model {
  ObjectId record;   // its ArrayRecord
  std::string tree;  // serialized ObjectTree of that
  std::vector<ModelArray> arrays;
  /// What an optimiser keeps of it between rounds: the same arrays in other values.
  std::vector<std::vector<ModelArray>> moments;

  uint64_t bytes() const;  // of the arrays' data
};

/// The arrays of a record, whose chunks are NPY files.
/// errors  kInvalidArgument: an array that is no NPY file, or is longer or shorter than its head
///         says; kNotFound: an object is missing; those of ReadRecords.
Result<std::vector<ModelArray>> OpenArrays(const flower::ArrayRecord& record, RunObjects& objects);

/// tree  serialized ObjectTree of an ArrayRecord of the run, or of what WriteModel has made.
Result<Model> LoadModel(Engine& engine, RunId run_id, std::string tree);

/// An array to be: `fill` writes `count` elements from `first` on, C order, little-endian. It is
/// called from several threads at once, with ranges that do not overlap.
struct NewArray {
  std::string name;
  std::string dtype;  // NumPy's descr: "<f4"
  std::vector<uint64_t> shape;
  std::function<Status(uint64_t first, uint64_t count, std::span<char> out)> fill;
};

/// What the next model is to be.
struct NextModel {
  std::vector<NewArray> arrays;
  std::vector<std::vector<NewArray>> moments;
};

/// The objects of a new model: large ones are in the run's segment files already, their rows are
/// the caller's to write.
struct NewModel {
  std::string tree;  // serialized ObjectTree of all of it, for LoadModel once the rows are there
  std::vector<State::ModelObject> objects;
};

/// Writes a new model, chunk by chunk: some of it before all of it is known. What it has written
/// and did not give out goes with it.
class ModelWriter {
 public:
  static std::unique_ptr<ModelWriter> Make(Engine& engine, RunId run_id);
  virtual ~ModelWriter() = default;

  /// The first elements of one array.
  struct Ready {
    size_t record = 0;  // 0: the arrays; 1, ...: moments
    size_t array = 0;
    const NewArray* part = nullptr;
    uint64_t elements = 0;
  };
  /// Writes the chunks that lie within these, if they are not written yet. Finish, and every other
  /// call, must be given arrays of the same bytes there; one of another dtype or shape is written
  /// anew.
  ///
  /// errors  as Finish.
  virtual Status Write(std::span<const Ready> ready) = 0;
  /// Writes the rest.
  ///
  /// cost    one pass over the arrays on all cores: filled, hashed and written in chunks of 5 MiB,
  ///         of which each core holds four.
  /// errors  kResourceExhausted: the disk is full; what `fill` returns.
  virtual Result<NewModel> Finish(NextModel next) = 0;
};

Result<NewModel> WriteModel(Engine& engine, RunId run_id, NextModel next);

using tensor::DtypeName;
/// The descr of a float type.
std::string DescrOf(aggregation::NumberType type);
/// Elements lie in C order and in this machine's byte order.
bool IsPlain(const tensor::NpyHead& npy);
/// One dimension of uint8.
bool IsByteRow(const tensor::NpyHead& npy);
/// errors  kInvalidArgument: as DtypeName; complex numbers and dates, too.
Result<aggregation::NumberType> TypeOf(std::string_view descr);

}  // namespace umbel::superlink::rounds
