#include "http/client_answer.h"

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

namespace umbel::http {
namespace {

constexpr size_t kBuffer = 8 * 1024;
constexpr size_t kGrowth = size_t{256} << 10;     // what is zeroed before it is read into
constexpr size_t kReserveMax = size_t{16} << 20;  // a length is only a claim
constexpr size_t kDirectChunk = 4096;             // shorter ones are copied
constexpr size_t kChunkLineMax = 1024;
constexpr std::string_view kVersion = "HTTP/1.";

tl::unexpected<Error> NotHttp(std::string_view why) {
  return Fail(Code::kDataLoss, fmt::format("the answer is not HTTP/1.1: {}", why));
}

constexpr char Lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; }

/// `lower` is in lower case.
bool Same(std::string_view text, std::string_view lower) {
  return std::equal(text.begin(), text.end(), lower.begin(), lower.end(),
                    [](char a, char b) { return Lower(a) == b; });
}

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

bool IsToken(char c) {
  return IsDigit(c) || (Lower(c) >= 'a' && Lower(c) <= 'z') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

bool IsText(char c) { return (static_cast<unsigned char>(c) >= ' ' && c != '\x7f') || c == '\t'; }

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kBlank = " \t";
  const size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

template <typename F>
void ForEachElement(std::string_view list, F&& f) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    f(Trim(list.substr(0, comma)));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
}

std::optional<uint64_t> ParseNumber(std::string_view text, int base) {
  uint64_t value = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value, base);
  if (text.empty() || error != std::errc{} || at != end) return std::nullopt;
  return value;
}

}  // namespace

/// What a head says of how its body is told from what follows.
struct AnswerReader::Framing {
  std::optional<uint64_t> length;
  bool chunked = false;
  bool close = false;
};

void AnswerReader::Begin(bool head_only, size_t body_max) {
  if (begin_ == end_) begin_ = end_ = 0;
  searched_ = begin_;
  state_ = State::kHead;
  head_only_ = head_only;
  began_ = direct_ = keep_alive_ = false;
  body_max_ = std::min(body_max, SIZE_MAX / 2);
  interim_ = trailer_bytes_ = 0;
  left_ = 0;
  status_ = 0;
  content_type_.clear();
  www_authenticate_.clear();
  body_.clear();
  filled_ = drained_ = 0;
}

std::span<char> AnswerReader::Space() {
  direct_ = state_ == State::kLength || state_ == State::kToEnd ||
            (state_ == State::kChunk && left_ >= kDirectChunk);
  if (direct_) {
    // One more than allowed of a body without a length: that it is too long must show.
    const uint64_t most = state_ == State::kToEnd ? body_max_ + 1 - body_size() : left_;
    if (filled_ == body_.size())
      body_.resize(filled_ + static_cast<size_t>(std::min<uint64_t>(most, kGrowth)));
    return {body_.data() + filled_,
            static_cast<size_t>(std::min<uint64_t>(most, body_.size() - filled_))};
  }
  if (end_ == buffer_.size() && begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    searched_ = std::max(searched_, begin_) - begin_;
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ == buffer_.size()) buffer_.resize(std::max(kBuffer, 2 * buffer_.size()));
  return {buffer_.data() + end_, buffer_.size() - end_};
}

Result<bool> AnswerReader::Filled(size_t count) {
  if (count > 0) began_ = true;
  if (!direct_) {
    end_ += count;
    return Advance();
  }
  filled_ += count;
  if (state_ != State::kToEnd) left_ -= count;
  return Advance();
}

Status AnswerReader::Ended() const {
  if (state_ == State::kDone || state_ == State::kToEnd) return {};
  if (!began_)
    return Fail(Code::kUnavailable, "the server closed the connection without an answer");
  return Fail(Code::kUnavailable, "the server closed the connection in the middle of its answer");
}

std::string AnswerReader::TakeBody() {
  body_.resize(filled_);
  filled_ = 0;
  return std::move(body_);
}

void AnswerReader::Drain() {
  drained_ += filled_;
  filled_ = 0;
}

Result<bool> AnswerReader::Advance() {
  while (state_ != State::kDone) {
    UMBEL_ASSIGN(const bool moved, Step());
    if (!moved) return false;
  }
  return true;
}

Result<bool> AnswerReader::Step() {
  switch (state_) {
    case State::kHead:
      return StepHead();
    case State::kLength:
      TakeFromBuffer();
      if (left_ > 0) return false;
      state_ = State::kDone;
      return true;
    case State::kToEnd:
      left_ = body_max_ + 1 - body_size();
      TakeFromBuffer();
      if (body_size() > body_max_) return Fail(TooLong());
      return false;
    case State::kChunkSize:
      return StepChunkSize();
    case State::kChunk:
      TakeFromBuffer();
      if (left_ > 0) return false;
      state_ = State::kChunkEnd;
      return true;
    case State::kChunkEnd:
      if (end_ - begin_ < 2) return false;
      if (!pending().starts_with("\r\n")) return NotHttp("a chunk is longer than its size");
      searched_ = begin_ += 2;
      state_ = State::kChunkSize;
      return true;
    case State::kTrailers:
      return StepTrailers();
    case State::kDone:
      break;
  }
  return false;
}

/// The body's share of what came along with a head or a chunk's size.
void AnswerReader::TakeFromBuffer() {
  const size_t count = static_cast<size_t>(std::min<uint64_t>(left_, end_ - begin_));
  if (count == 0) return;
  body_.resize(filled_);
  body_.append(buffer_, begin_, count);
  filled_ += count;
  left_ -= count;
  begin_ += count;
}

Result<bool> AnswerReader::StepHead() {
  const std::string_view seen = pending();
  // Told at once: another protocol need not end any line.
  if (!kVersion.starts_with(seen.substr(0, kVersion.size()))) {
    const bool tls = seen[0] == '\x15' || seen[0] == '\x16';
    return NotHttp(tls ? "it looks like TLS" : "it does not begin as one");
  }
  const size_t from = std::max(begin_, searched_ < 3 ? 0 : searched_ - 3) - begin_;
  const size_t at = seen.find("\r\n\r\n", from);
  if (at == std::string_view::npos ? seen.size() > kHeadMax : at > kHeadMax)
    return NotHttp(fmt::format("its head is longer than {} bytes", kHeadMax));
  searched_ = end_;
  if (at == std::string_view::npos) return false;
  UMBEL_TRY(ParseHead(seen.substr(0, at)));
  searched_ = begin_ += at + 4;
  return true;
}

Status AnswerReader::ParseHead(std::string_view head) {
  size_t end = std::min(head.find("\r\n"), head.size());
  const std::string_view line = head.substr(0, end);
  // HTTP/1.x NNN, then a blank and any text.
  if (line.size() < 12 || (line[7] != '0' && line[7] != '1') || line[8] != ' ' ||
      !std::all_of(line.begin() + 9, line.begin() + 12, IsDigit) || line[9] < '1' ||
      line[9] > '5' || (line.size() > 12 && line[12] != ' ') ||
      !std::all_of(line.begin(), line.end(), IsText))
    return NotHttp("its first line is not 'HTTP/1.1', a status and a reason");
  const int status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
  content_type_.clear();
  www_authenticate_.clear();
  Framing framing;
  framing.close = line[7] == '0';
  while (end < head.size()) {
    head.remove_prefix(end + 2);
    end = std::min(head.find("\r\n"), head.size());
    UMBEL_TRY(ParseField(head.substr(0, end), framing));
  }
  if (status < 200) {
    if (status == 101) return NotHttp("it changes to a protocol that was not asked for");
    if (++interim_ > kInterimMax)
      return NotHttp(fmt::format("more than {} interim answers", kInterimMax));
    return {};
  }
  status_ = status;
  return Frame(framing);
}

Status AnswerReader::ParseField(std::string_view line, Framing& framing) {
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, std::min(colon, line.size()));
  if (colon == std::string_view::npos || name.empty() ||
      !std::all_of(name.begin(), name.end(), IsToken) ||
      !std::all_of(line.begin(), line.end(), IsText))
    return NotHttp("a header line is not 'name: value'");
  const std::string_view value = Trim(line.substr(colon + 1));
  if (Same(name, "content-length")) {
    const auto length = ParseNumber(value, 10);
    if (!length || (framing.length && *framing.length != *length))
      return NotHttp("its Content-Length is not one number");
    framing.length = length;
  } else if (Same(name, "transfer-encoding")) {
    if (framing.chunked || !Same(value, "chunked"))
      return NotHttp("its Transfer-Encoding is not 'chunked'");
    framing.chunked = true;
  } else if (Same(name, "connection")) {
    ForEachElement(value, [&](std::string_view option) {
      if (Same(option, "close")) framing.close = true;
    });
  } else if (Same(name, "content-type")) {
    content_type_ = value;
  } else if (Same(name, "www-authenticate")) {
    www_authenticate_ = value;
  }
  return {};
}

Status AnswerReader::Frame(const Framing& framing) {
  keep_alive_ = !framing.close;
  if (head_only_ || status_ == 204 || status_ == 304) {
    state_ = State::kDone;
  } else if (framing.chunked) {
    // Two peers that read such an answer differently are an old way to smuggle a second one.
    if (framing.length) return NotHttp("it has both a Content-Length and a Transfer-Encoding");
    state_ = State::kChunkSize;
  } else if (framing.length) {
    left_ = *framing.length;
    if (left_ > body_max_) return Fail(TooLong());
    body_.reserve(static_cast<size_t>(std::min<uint64_t>(left_, kReserveMax)));
    state_ = State::kLength;
  } else {
    keep_alive_ = false;
    state_ = State::kToEnd;
  }
  return {};
}

Result<bool> AnswerReader::StepChunkSize() {
  const std::string_view seen = pending();
  const size_t at = seen.find("\r\n");
  if (std::min(at, seen.size()) > kChunkLineMax) return NotHttp("a chunk's first line has no end");
  if (at == std::string_view::npos) return false;
  const std::string_view line = seen.substr(0, at);
  const auto size = ParseNumber(Trim(line.substr(0, line.find(';'))), 16);
  if (!size || !std::all_of(line.begin(), line.end(), IsText))
    return NotHttp("a chunk's size is not a number");
  if (*size > body_max_ - body_size()) return Fail(TooLong());
  searched_ = begin_ += at + 2;
  left_ = *size;
  state_ = left_ > 0 ? State::kChunk : State::kTrailers;
  return true;
}

/// Trailer lines are read over.
Result<bool> AnswerReader::StepTrailers() {
  const std::string_view seen = pending();
  const size_t from = std::max(begin_, searched_ < 1 ? 0 : searched_ - 1) - begin_;
  const size_t at = seen.find("\r\n", from);
  if (trailer_bytes_ + std::min(at, seen.size()) > kHeadMax)
    return NotHttp(fmt::format("its trailers are longer than {} bytes", kHeadMax));
  searched_ = end_;
  if (at == std::string_view::npos) return false;
  trailer_bytes_ += at + 2;
  searched_ = begin_ += at + 2;
  if (at == 0) state_ = State::kDone;
  return true;
}

Error AnswerReader::TooLong() const {
  return {Code::kResourceExhausted, fmt::format("the answer is longer than {} bytes", body_max_)};
}

}  // namespace umbel::http
