#include "supernode/hosts/app_output.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "base/log.h"
#include "base/utf8.h"

namespace umbel::supernode {
namespace {

constexpr size_t kLineMax = 4096;
constexpr size_t kLastLineMax = 300;

}  // namespace

struct AppOutput::Pipe {
  Pipe(const boost::asio::any_io_executor& executor, Fd fd) : stream(executor, fd.Release()) {}

  boost::asio::posix::stream_descriptor stream;
  std::array<char, 16384> buffer;
};

std::shared_ptr<AppOutput> AppOutput::Follow(const boost::asio::any_io_executor& executor, Fd pipe,
                                             std::string tag, uint64_t bytes_max) {
  std::shared_ptr<AppOutput> out(
      new AppOutput(executor, std::move(pipe), std::move(tag), bytes_max));
  out->Read();
  return out;
}

AppOutput::AppOutput(const boost::asio::any_io_executor& executor, Fd pipe, std::string tag,
                     uint64_t bytes_max)
    : pipe_(std::make_unique<Pipe>(executor, std::move(pipe))),
      tag_(std::move(tag)),
      bytes_max_(bytes_max) {}
AppOutput::~AppOutput() = default;

void AppOutput::Finish() {
  if (!line_.empty()) Line(std::exchange(line_, {}));
  if (dropped_ > 0)
    LogWarn("output of a ClientApp was cut", {{"of", tag_}, {"bytes_more", dropped_}});
  dropped_ = 0;
}

void AppOutput::Tag(std::string tag, uint64_t bytes_max) {
  Finish();
  tag_ = std::move(tag);
  bytes_max_ = bytes_max;
  bytes_ = 0;
  last_line_.clear();
}

void AppOutput::Drain() {
  char buffer[16384];
  for (int i = 0; i < 4; ++i) {
    const ssize_t size = ::read(pipe_->stream.native_handle(), buffer, sizeof buffer);
    if (size <= 0) break;
    Take({buffer, static_cast<size_t>(size)});
  }
  if (!line_.empty()) Line(std::exchange(line_, {}));
}

void AppOutput::Close() {
  boost::system::error_code ignored;
  pipe_->stream.close(ignored);
}

void AppOutput::Read() {
  pipe_->stream.async_read_some(
      boost::asio::buffer(pipe_->buffer),
      [self = shared_from_this()](boost::system::error_code error, size_t size) {
        self->Take({self->pipe_->buffer.data(), size});
        if (!error) return self->Read();
        self->Finish();
        self->ended_ = true;
      });
}

void AppOutput::Take(std::string_view bytes) {
  if (bytes_max_ > 0 && bytes_ + bytes.size() > bytes_max_) {
    const size_t room = static_cast<size_t>(bytes_max_ - std::min(bytes_max_, bytes_));
    dropped_ += bytes.size() - room;
    bytes = bytes.substr(0, room);
  }
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    line_.append(part.substr(0, kLineMax - std::min(kLineMax, line_.size())));
    if (end == std::string_view::npos) break;
    Line(std::exchange(line_, {}));
    bytes.remove_prefix(end + 1);
  }
}

void AppOutput::Line(std::string_view line) {
  if (line.empty()) return;
  const std::string text = ValidUtf8(line);
  const std::string_view front = std::string_view(text).substr(0, kLastLineMax);
  last_line_ = front.substr(0, WholeCharacters(front));
  LogInfo("ClientApp", {{"of", tag_}, {"text", text}});
}

}  // namespace umbel::supernode
