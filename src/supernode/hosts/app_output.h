// What user code prints, line by line into the node's log, with a bound. Belongs to the
// io_context's one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/file.h"
#include "base/ids.h"

namespace boost::asio {
class any_io_executor;
}

namespace umbel::supernode {

class AppOutput : public std::enable_shared_from_this<AppOutput> {
 public:
  /// Reads the pipe until its other end is closed everywhere; keeps itself alive until then.
  static std::shared_ptr<AppOutput> Follow(const boost::asio::any_io_executor& executor, Fd pipe,
                                           std::string tag, uint64_t bytes_max);
  ~AppOutput();

  /// From now on it is another message's: its own bound, its own tag.
  void Tag(std::string tag, uint64_t bytes_max);
  /// Takes what lies in the pipe, without waiting: what a process printed before it died. At most
  /// 64 KiB of it.
  void Drain();
  /// The last line that was not empty, at most 300 bytes: for the reason of a crash.
  const std::string& last_line() const { return last_line_; }
  /// Nobody has the other end any more, and all of it was read.
  bool ended() const { return ended_; }
  void Close();

 private:
  struct Pipe;
  AppOutput(const boost::asio::any_io_executor& executor, Fd pipe, std::string tag,
            uint64_t bytes_max);
  void Read();
  void Take(std::string_view bytes);
  void Line(std::string_view line);
  /// The rest of a line, and what was dropped.
  void Finish();

  std::unique_ptr<Pipe> pipe_;
  std::string tag_;
  uint64_t bytes_max_;
  uint64_t bytes_ = 0;
  uint64_t dropped_ = 0;
  std::string line_;
  std::string last_line_;
  bool ended_ = false;
};

}  // namespace umbel::supernode
