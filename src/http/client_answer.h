// Reads one HTTP/1.1 answer from the bytes of a connection, wherever they are cut. Does no I/O, and
// includes none, so that it can be fuzzed. Belongs to one connection. Internal to this room.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

namespace umbel::http {

class AnswerReader {
 public:
  /// An answer's heads (each of them), and its trailers.
  static constexpr size_t kHeadMax = size_t{64} << 10;
  static constexpr size_t kInterimMax = 10'000;

  /// Forgets the last answer. `head_only`: to a HEAD request, whose answer has no body.
  void Begin(bool head_only, size_t body_max);

  /// Where the peer's next bytes are to be put: a long body's go straight to where they stay.
  /// Never empty before the answer is complete.
  std::span<char> Space();
  /// `count` bytes of Space() are there now. True: the answer is complete.
  /// errors  kDataLoss: this is not HTTP/1.1; kResourceExhausted: longer than body_max.
  Result<bool> Filled(size_t count);
  /// The peer will send no more.
  /// errors  kUnavailable: the answer is not complete.
  Status Ended() const;

  bool began() const { return began_; }                    // a byte has come
  size_t interim() const { return interim_; }              // 1xx answers skipped
  size_t body_size() const { return drained_ + filled_; }  // so far
  bool in_body() const { return status_ != 0; }            // the last head is complete
  /// The answer is complete, nothing followed it, and the connection may carry another one.
  bool reusable() const { return state_ == State::kDone && keep_alive_ && begin_ == end_; }

  int status() const { return status_; }
  std::string& content_type() { return content_type_; }
  std::string& www_authenticate() { return www_authenticate_; }
  std::string TakeBody();
  /// What of the body has come since the last Drain, which makes room: for who takes it as it
  /// comes.
  std::string_view body() const { return std::string_view(body_).substr(0, filled_); }
  void Drain();

 private:
  enum class State { kHead, kLength, kToEnd, kChunkSize, kChunk, kChunkEnd, kTrailers, kDone };
  struct Framing;

  std::string_view pending() const {
    return std::string_view(buffer_).substr(begin_, end_ - begin_);
  }
  Result<bool> Advance();
  /// One step; false when it needs more bytes.
  Result<bool> Step();
  Result<bool> StepHead();
  Result<bool> StepChunkSize();
  Result<bool> StepTrailers();
  Status ParseHead(std::string_view head);
  Status ParseField(std::string_view line, Framing& framing);
  Status Frame(const Framing& framing);
  void TakeFromBuffer();
  Error TooLong() const;

  std::string buffer_;  // what has come and is not the body's: [begin_, end_)
  size_t begin_ = 0;
  size_t end_ = 0;
  size_t searched_ = 0;  // no end of the head, or of the line, before this

  State state_ = State::kDone;
  bool head_only_ = false;
  bool began_ = false;
  bool direct_ = false;  // Space() was the body's
  bool keep_alive_ = false;
  size_t body_max_ = 0;
  size_t interim_ = 0;
  size_t trailer_bytes_ = 0;
  uint64_t left_ = 0;  // of the body, or of the chunk

  int status_ = 0;
  std::string content_type_;
  std::string www_authenticate_;
  std::string body_;  // the first filled_ bytes have come
  size_t filled_ = 0;
  size_t drained_ = 0;  // bytes that came before those
};

}  // namespace umbel::http
