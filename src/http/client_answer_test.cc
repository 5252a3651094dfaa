#include "http/client_answer.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

namespace umbel::http {
namespace {

constexpr size_t kBodyMax = 1 << 20;

/// What became of an answer.
struct Seen {
  bool complete = false;
  Error error;  // unless complete
  int status = 0;
  std::string content_type;
  std::string body;
  bool reusable = false;
  size_t interim = 0;

  bool operator==(const Seen& other) const {
    return complete == other.complete && error.code == other.error.code &&
           error.message == other.error.message && status == other.status &&
           content_type == other.content_type && body == other.body && reusable == other.reusable &&
           interim == other.interim;
  }
};

/// Feeds `bytes` in pieces, then ends the connection unless the answer is complete by then.
Seen Feed(std::string_view bytes, const std::vector<size_t>& pieces = {SIZE_MAX},
          bool head_only = false, size_t body_max = kBodyMax) {
  AnswerReader reader;
  reader.Begin(head_only, body_max);
  Seen seen;
  for (size_t i = 0; !bytes.empty() && !seen.complete; ++i) {
    const auto space = reader.Space();
    if (space.empty()) ADD_FAILURE() << "no space";
    const size_t count =
        std::min({bytes.size(), space.size(), std::max<size_t>(pieces[i % pieces.size()], 1)});
    std::copy_n(bytes.data(), count, space.data());
    bytes.remove_prefix(count);
    const auto filled = reader.Filled(count);
    if (!filled.ok()) {
      seen.error = filled.error();
      return seen;
    }
    seen.complete = *filled;
  }
  if (!seen.complete) {
    const Status ended = reader.Ended();
    seen.complete = ended.ok();
    if (!ended.ok()) {
      seen.error = ended.error();
      return seen;
    }
  }
  seen.status = reader.status();
  seen.content_type = reader.content_type();
  seen.reusable = bytes.empty() && reader.reusable();
  seen.interim = reader.interim();
  seen.body = reader.TakeBody();
  return seen;
}

TEST(AnswerReader, ABodyByItsLength) {
  const Seen seen =
      Feed("HTTP/1.1 200 OK\r\ncontent-type:text/plain \r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_TRUE(seen.complete) << seen.error.message;
  EXPECT_EQ(seen.status, 200);
  EXPECT_EQ(seen.content_type, "text/plain");
  EXPECT_EQ(seen.body, "hello");
  EXPECT_TRUE(seen.reusable);
}

TEST(AnswerReader, ABodyInChunks) {
  const Seen seen = Feed(
      "HTTP/1.1 200 \r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n"
      "0\r\nTrailer: z\r\n\r\n");
  EXPECT_TRUE(seen.complete) << seen.error.message;
  EXPECT_EQ(seen.body, "abc0123456789");
  EXPECT_TRUE(seen.reusable);
}

TEST(AnswerReader, ABodyToTheConnectionsEnd) {
  const Seen seen = Feed("HTTP/1.1 200 OK\r\n\r\nall of it");
  EXPECT_TRUE(seen.complete);
  EXPECT_EQ(seen.body, "all of it");
  EXPECT_FALSE(seen.reusable);
  EXPECT_EQ(Feed("HTTP/1.1 200 OK\r\n\r\nall of it", {SIZE_MAX}, false, 9).body, "all of it");
  EXPECT_EQ(Feed("HTTP/1.1 200 OK\r\n\r\nall of it", {3}, false, 8).error.code,
            Code::kResourceExhausted);
}

TEST(AnswerReader, AnswersWithoutABody) {
  EXPECT_TRUE(Feed("HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n").reusable);
  EXPECT_TRUE(Feed("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n").reusable);
  EXPECT_TRUE(
      Feed("HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", {SIZE_MAX}, true).reusable);
  EXPECT_TRUE(Feed("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").reusable);
}

TEST(AnswerReader, WhatForbidsAnotherRequest) {
  EXPECT_FALSE(Feed("HTTP/1.1 204 x\r\nConnection: x, Close\r\n\r\n").reusable);
  EXPECT_FALSE(Feed("HTTP/1.0 204 x\r\n\r\n").reusable);
  EXPECT_FALSE(Feed("HTTP/1.1 204 x\r\n\r\nHTTP/1.1").reusable);
  EXPECT_FALSE(Feed("HTTP/1.1 200 x\r\nContent-Length: 1\r\n\r\nab").reusable);
}

TEST(AnswerReader, InterimAnswersAreSkipped) {
  const Seen seen = Feed(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nContent-Type: a\r\nContent-Length: "
      "7\r\n\r\nHTTP/1.1 503 x\r\nContent-Length: 1\r\n\r\n!");
  EXPECT_EQ(seen.status, 503);
  EXPECT_EQ(seen.interim, 2U);
  EXPECT_EQ(seen.body, "!");
  EXPECT_EQ(seen.content_type, "");
}

TEST(AnswerReader, InterimAnswersHaveAnEnd) {
  std::string endless;
  for (size_t i = 0; i <= AnswerReader::kInterimMax; ++i) endless += "HTTP/1.1 102 x\r\n\r\n";
  const Seen seen = Feed(endless);
  EXPECT_EQ(seen.error.code, Code::kDataLoss);
  EXPECT_NE(seen.error.message.find("interim"), std::string::npos);
}

TEST(AnswerReader, WhatIsNotHttpIsRefused) {
  const std::string head = "HTTP/1.1 200 OK\r\n";
  std::string trailers;
  for (int i = 0; i < 20'000; ++i) trailers += "a: b\r\n";
  for (const std::string& bytes : std::vector<std::string>{
           "\x15\x03\x01 alert",
           "SSH-2.0-OpenSSH\r\n",
           "HTTP/2 200 OK\r\n\r\n",
           "HTTP/1.2 200 OK\r\n\r\n",
           "HTTP/1.1 20 OK\r\n\r\n",
           "HTTP/1.1 2000\r\n\r\n",
           "HTTP/1.1 600 x\r\n\r\n",
           "HTTP/1.1 099 x\r\n\r\n",
           "HTTP/1.1\t200 OK\r\n\r\n",
           "HTTP/1.1 200 O\nK\r\n\r\n",
           "HTTP/1.1 101 Switching\r\n\r\n",
           head + "no colon\r\n\r\n",
           head + ": no name\r\n\r\n",
           head + "A : blank\r\n\r\n",
           head + "A: b\r\n folded\r\n\r\n",
           head + "A: b\nC: d\r\n\r\n",
           head + "Content-Length: -1\r\n\r\n",
           head + "Content-Length: +1\r\n\r\n",
           head + "Content-Length: 1, 1\r\n\r\n",
           head + "Content-Length: 0x1\r\n\r\n",
           head + "Content-Length:\r\n\r\n",
           head + "Content-Length: 99999999999999999999999\r\n\r\n",
           head + "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
           head + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
           head + "Transfer-Encoding: gzip, chunked\r\n\r\n",
           head + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\n\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\n-1\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\n1;" + std::string(2000, 'x'),
           head + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + std::string(70'000, 'x'),
           head + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + trailers,
           head + std::string(70'000, 'x'),
           head + "A: " + std::string(70'000, 'x') + "\r\n\r\n",
       }) {
    for (const size_t piece : {size_t{1}, size_t{7}, SIZE_MAX}) {
      const Seen seen = Feed(bytes, {piece});
      EXPECT_FALSE(seen.complete) << bytes.substr(0, 100);
      EXPECT_EQ(seen.error.code, Code::kDataLoss) << bytes.substr(0, 100);
    }
  }
}

TEST(AnswerReader, AnAnswerThatEndsEarlyIsUnavailable) {
  const std::string whole =
      "HTTP/1.1 102 x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n0\r\nTrailer: x\r\n\r\n";
  for (size_t size = 0; size < whole.size(); ++size) {
    const Seen seen = Feed(whole.substr(0, size));
    EXPECT_FALSE(seen.complete) << size;
    EXPECT_EQ(seen.error.code, Code::kUnavailable) << size;
  }
  EXPECT_TRUE(Feed(whole).reusable);
}

TEST(AnswerReader, ALongBodyIsRefusedBeforeItHasCome) {
  const std::string head = "HTTP/1.1 200 OK\r\n";
  for (const std::string& bytes : std::vector<std::string>{
           head + "Content-Length: 11\r\n\r\n",
           head + "Content-Length: 18446744073709551615\r\n\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\nb\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\n",
           head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
       }) {
    EXPECT_EQ(Feed(bytes, {SIZE_MAX}, false, 10).error.code, Code::kResourceExhausted) << bytes;
  }
  EXPECT_EQ(Feed(head + "Content-Length: 10\r\n\r\n0123456789", {SIZE_MAX}, false, 10).body,
            "0123456789");
}

TEST(AnswerReader, OneReaderReadsManyAnswers) {
  AnswerReader reader;
  for (size_t size : {size_t{0}, size_t{1}, size_t{9000}, size_t{700'000}, size_t{3}}) {
    reader.Begin(false, kBodyMax);
    const std::string body(size, 'b');
    std::string_view bytes;
    const std::string answer =
        fmt::format("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", size, body);
    bytes = answer;
    bool complete = false;
    while (!complete) {
      const auto space = reader.Space();
      const size_t count = std::min(space.size(), bytes.size());
      ASSERT_GT(count, 0U);
      std::copy_n(bytes.data(), count, space.data());
      bytes.remove_prefix(count);
      const auto filled = reader.Filled(count);
      ASSERT_TRUE(filled.ok()) << filled.error().message;
      complete = *filled;
    }
    EXPECT_TRUE(reader.reusable());
    EXPECT_EQ(reader.TakeBody(), body);
  }
}

std::string ChunkedAnswer(const std::vector<size_t>& sizes, std::string& body) {
  std::string bytes = "HTTP/1.1 102 x\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  char next = 'a';
  for (const size_t size : sizes) {
    if (size == 0) continue;
    const std::string chunk(size, next++);
    body += chunk;
    bytes += fmt::format("{:x}\r\n{}\r\n", size, chunk);
  }
  return bytes + "0\r\nA: b\r\n\r\n";
}

RC_GTEST_PROP(AnswerReaderProperty, ChunksAreReadHoweverTheyAreCut, ()) {
  const auto sizes = *rc::gen::container<std::vector<size_t>>(rc::gen::inRange<size_t>(0, 20'000));
  auto pieces = *rc::gen::container<std::vector<size_t>>(rc::gen::inRange<size_t>(1, 10'000));
  pieces.push_back(1 + sizes.size());
  std::string body;
  const std::string bytes = ChunkedAnswer(sizes, body);
  const Seen seen = Feed(bytes, pieces, false, SIZE_MAX);
  RC_ASSERT(seen.complete && seen.reusable);
  RC_ASSERT(seen.body == body);
  RC_ASSERT(seen.interim == 1U);
}

RC_GTEST_PROP(AnswerReaderProperty, BrokenAnswersAreJudgedTheSameHoweverTheyAreCut, ()) {
  std::string body;
  std::string bytes = *rc::gen::element(
      ChunkedAnswer({3, 5000}, body),
      std::string("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n1234567"),
      std::string(
          "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: x\r\nConnection: close\r\n\r\nabc"));
  for (const auto& [at, byte] : *rc::gen::container<std::vector<std::pair<size_t, char>>>(
           rc::gen::pair(rc::gen::inRange<size_t>(0, 120), rc::gen::arbitrary<char>())))
    bytes[at % bytes.size()] = byte;
  const Seen whole = Feed(bytes);
  const Seen pieces = Feed(bytes, {*rc::gen::inRange<size_t>(1, 50)});
  RC_ASSERT(whole.complete == pieces.complete);
  RC_ASSERT(whole.error.code == pieces.error.code);
  RC_ASSERT(whole.body == pieces.body);
}

}  // namespace
}  // namespace umbel::http
