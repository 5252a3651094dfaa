// The document a project is asked for with: FLOps's project SLA, checked. A value; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::manager {

struct Sla {
  std::string customer;
  bool verbose = false;
  std::string repository;  // any URL git knows, or an absolute path
  std::string ref;         // branch, tag or commit behind its '#'; "": the newest commit
  std::string flavor;      // sklearn, pytorch, tensorflow or keras
  bool devel_images = false;
  std::vector<std::string> platforms = {"linux/amd64"};
  std::vector<std::string> data_tags;
  uint32_t cycles = 1;
  uint32_t rounds = 3;
  uint32_t min_available = 1;
  uint32_t min_fit = 1;
  uint32_t min_evaluate = 1;
  bool build_image = false;
  bool serve = false;
  uint64_t memory_mb = 100;
  uint64_t vcpus = 1;
  uint64_t storage_mb = 0;

  std::string token;                 // for a private repository; ours; never stored with the rest
  std::vector<std::string> unknown;  // paths of fields that mean nothing here
};

inline constexpr size_t kSlaBytesMax = size_t{1} << 20;

/// Unknown fields are no error, as with FLOps, but told. Extra fields of ours: `ml_repo_token`, and
/// in ml_repo_url any address of git's, an absolute path, and `#ref`.
/// errors  kInvalidArgument: "training_configuration.training_rounds: 0 is not in 1 to 10000".
Result<Sla> ParseSla(std::string_view json);

/// FLOps's mock data SLA: a known data set, cut into parts for the learner nodes.
struct MockSla {
  std::string customer;
  std::string dataset = "mnist";  // mnist and fashion-mnist are Fashion-MNIST; digits
  uint32_t partitions = 1;
  std::string tag;
};
/// errors  kInvalidArgument: as ParseSla's.
Result<MockSla> ParseMockSla(std::string_view json);

/// The same as JSON, all fields, without the token.
std::string ToJson(const Sla& sla);

}  // namespace umbel::manager
