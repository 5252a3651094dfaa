#include "superlink/hash_queue.h"

#include <gtest/gtest.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <thread>

#include "base/random.h"
#include "tensor/sha256.h"

namespace umbel::superlink {
namespace {

namespace asio = boost::asio;

std::string RandomBytes(Rng& rng, size_t size) {
  std::string bytes(size, '\0');
  for (char& byte : bytes) byte = static_cast<char>(rng.U64());
  return bytes;
}

http::Task<void> HashAll(HashQueue& queue, std::string_view bytes, size_t piece, Digest* out) {
  HashQueue::Transfer transfer(queue);
  tensor::HashStream stream;
  for (; !bytes.empty(); bytes.remove_prefix(std::min(piece, bytes.size())))
    co_await transfer.Add(stream, bytes.substr(0, piece));
  const tensor::HashPiece last{&stream, {}, out};
  tensor::HashPieces({&last, 1});
}

TEST(HashQueue, GivesEachStreamItsDigest) {
  SeededRng rng(1);
  for (const size_t threads : {1, 2, 4}) {
    HashQueue queue(threads);
    asio::io_context context;
    std::vector<std::string> messages;
    for (int i = 0; i < 40; ++i) messages.push_back(RandomBytes(rng, rng.U64() % 200'000));
    std::vector<Digest> digests(messages.size());
    for (size_t i = 0; i < messages.size(); ++i)
      asio::co_spawn(context, HashAll(queue, messages[i], 1 + rng.U64() % 30'000, &digests[i]),
                     asio::detached);
    std::vector<std::jthread> pool;
    for (size_t t = 0; t < threads; ++t) pool.emplace_back([&] { context.run(); });
    pool.clear();
    for (size_t i = 0; i < messages.size(); ++i)
      EXPECT_EQ(digests[i], tensor::Sha256Of(messages[i])) << i << " of " << threads << " threads";
  }
}

TEST(HashQueue, DoesNotWaitForeverForTransfersThatStandStill) {
  SeededRng rng(2);
  HashQueue queue(1);
  const HashQueue::Transfer still[] = {HashQueue::Transfer(queue), HashQueue::Transfer(queue)};
  static_cast<void>(still);
  asio::io_context context;
  const std::string message = RandomBytes(rng, 100'000);
  Digest digest;
  asio::co_spawn(context, HashAll(queue, message, 1'000, &digest), asio::detached);
  context.run();
  EXPECT_EQ(digest, tensor::Sha256Of(message));
}

TEST(HashQueue, DropEndsThoseThatWait) {
  HashQueue queue(1);
  bool ended = false;
  {
    asio::io_context context;
    SeededRng rng(3);
    const std::string message = RandomBytes(rng, 1'000);
    const auto wait = [](HashQueue& hashes, std::string_view bytes,
                         bool* over) -> http::Task<void> {
      const std::shared_ptr<void> told(nullptr, [over](void*) { *over = true; });
      HashQueue::Transfer transfer(hashes);
      tensor::HashStream stream;
      co_await transfer.Add(stream, bytes);
      ADD_FAILURE() << "it was hashed after all";
    };
    asio::co_spawn(context, wait(queue, message, &ended), asio::detached);
    context.run_one();  // up to the first wait
    EXPECT_FALSE(ended);
    queue.Drop();
  }
  EXPECT_TRUE(ended);
}

}  // namespace
}  // namespace umbel::superlink
