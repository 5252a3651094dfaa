// Wall time, passed in so that tests own it. Implementations are safe from any thread.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel {

using WallTime = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;
using Micros = std::chrono::microseconds;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual WallTime Now() const = 0;
};

class SystemClock final : public Clock {
 public:
  WallTime Now() const override {
    return std::chrono::time_point_cast<Micros>(std::chrono::system_clock::now());
  }
};

class FakeClock final : public Clock {
 public:
  explicit FakeClock(WallTime start = WallTime(std::chrono::seconds(1'800'000'000)))
      : now_(start) {}
  WallTime Now() const override { return now_; }
  void Advance(Micros by) { now_ += by; }

 private:
  WallTime now_;
};

inline double UnixSeconds(WallTime time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}
/// Clamped to the range a 64-bit count of microseconds holds.
WallTime FromUnixSeconds(double seconds);

/// `2026-11-22T02:06:59.298173+00:00`: UTC, six fraction digits; "" for the epoch, which Flower
/// reads as "not yet".
std::string IsoFormat(WallTime time);

/// Reads what Python's datetime.isoformat() writes: `YYYY-MM-DDTHH:MM:SS[.ffffff](+HH:MM|Z)`.
/// errors  kInvalidArgument: any other shape, or a field out of range.
Result<WallTime> ParseIso(std::string_view text);

}  // namespace umbel
