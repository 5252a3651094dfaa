// What a site's user code may use. Values.
#pragma once

#include <chrono>
#include <cstdint>

namespace umbel::supernode {

/// 0: no limit.
struct Limits {
  std::chrono::seconds wall_time{0};           // of one message
  uint64_t memory_bytes = 0;                   // of one ClientApp with all its children
  uint64_t processes = 0;                      // and threads
  uint64_t open_files = 0;                     // of one process
  uint64_t output_bytes = uint64_t{16} << 20;  // of one message in the log; the rest is counted
  bool network = true;
  uint32_t uid = 0;  // whose user code runs as; 0: ours
};

}  // namespace umbel::supernode
