// libFuzzer's entry point of the target named at compile time.
#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "targets.h"

namespace {

const umbel::fuzz::Target& Chosen() {
  for (const umbel::fuzz::Target& target : umbel::fuzz::Targets())
    if (target.name == UMBEL_FUZZ_TARGET) return target;
  umbel::CheckFailed("the target is in the table", UMBEL_FUZZ_TARGET, 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const umbel::fuzz::Target& target = Chosen();
  target.run({reinterpret_cast<const char*>(data), size});
  return 0;
}
