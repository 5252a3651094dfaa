#include "tensor/hash_lanes.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "base/result.h"
#include "tensor/sha256_kernels.h"

namespace umbel::tensor {

/// A piece on its way: what is left of it, as runs of whole blocks.
class HashJob {
 public:
  explicit HashJob(const HashPiece& piece)
      : stream_(piece.stream),
        digest_(piece.digest),
        next_(reinterpret_cast<const uint8_t*>(piece.bytes.data())),
        bytes_(piece.bytes.size()),
        held_(stream_->size_ % kShaBlock) {
    UMBEL_CHECK(!stream_->busy_);  // two pieces of one stream would race
    stream_->busy_ = true;
    stream_->size_ += bytes_;
    NextRun();
  }

  ~HashJob() { stream_->busy_ = false; }
  HashJob(HashJob&&) = default;  // for the vector's sake; it has room and moves none

  bool done() const { return run_ == 0; }
  /// Bytes to go, but for padding: what the order of jobs goes by.
  size_t left() const { return bytes_ + run_ * kShaBlock; }
  /// Blocks that lie one behind the other at data().
  size_t run() const { return run_; }
  const uint8_t* data() const { return data_; }
  ShaState* state() { return &stream_->state_; }

  /// After a kernel took `blocks` of the run.
  void Took(size_t blocks) {
    data_ += blocks * kShaBlock;
    run_ -= blocks;
    if (run_ == 0) NextRun();
  }

 private:
  void NextRun() {
    if (held_ > 0 && held_ + bytes_ >= kShaBlock) {
      Hold(kShaBlock - held_);
      data_ = stream_->held_.data();
      run_ = 1;
      held_ = 0;
    } else if (bytes_ >= kShaBlock) {
      data_ = next_;
      run_ = bytes_ / kShaBlock;
      next_ += run_ * kShaBlock;
      bytes_ -= run_ * kShaBlock;
    } else if (bytes_ > 0) {
      Hold(bytes_);
      NextRun();
    } else if (digest_ && !padded_) {
      Pad();
    } else if (padded_) {
      Finish();
    }
  }

  void Hold(size_t bytes) {
    std::copy_n(next_, bytes, stream_->held_.data() + held_);
    held_ += bytes;
    next_ += bytes;
    bytes_ -= bytes;
  }

  /// A one bit, zeros, and the length in bits, to the end of a block.
  void Pad() {
    std::copy_n(stream_->held_.data(), held_, tail_.data());
    tail_[held_] = 0x80;
    run_ = held_ + 9 <= kShaBlock ? 1 : 2;
    uint64_t bits = stream_->size_ * 8;
    for (size_t at = run_ * kShaBlock; bits > 0; bits >>= 8)
      tail_[--at] = static_cast<uint8_t>(bits & 0xff);
    data_ = tail_.data();
    padded_ = true;
  }

  void Finish() {
    for (size_t i = 0; i < digest_->bytes.size(); ++i)
      digest_->bytes[i] = static_cast<uint8_t>(stream_->state_[i / 4] >> (24 - 8 * (i % 4)));
    *stream_ = HashStream();
  }

  HashStream* stream_;
  Digest* digest_;
  const uint8_t* next_;  // behind the run
  size_t bytes_;         // there
  size_t held_;          // bytes in stream_->held_ that no run has
  const uint8_t* data_ = nullptr;
  size_t run_ = 0;
  bool padded_ = false;
  std::array<uint8_t, 2 * kShaBlock> tail_{};
};

namespace {

// Lanes are dealt anew after so many blocks: 64 KiB of each, beside which the dealing is nothing.
constexpr size_t kTurn = 1024;

bool LessLeft(const HashJob* x, const HashJob* y) { return x->left() < y->left(); }

/// Jobs that wait, the longest at the front; and those in the lanes.
class Dealer {
 public:
  explicit Dealer(std::vector<HashJob>& jobs) {
    waiting_.reserve(jobs.size());
    for (HashJob& job : jobs)
      if (!job.done()) waiting_.push_back(&job);
    std::make_heap(waiting_.begin(), waiting_.end(), LessLeft);
  }

  /// One turn of one kernel. False when there was nothing to do.
  bool Turn(const CpuFeatures& cpu) {
    if (waiting_.empty()) return false;
    const ShaWidth& width = WidthFor(cpu, waiting_.size());
    while (busy_ < width.lanes && !waiting_.empty()) lanes_[busy_++] = Take();
    size_t turn = kTurn;
    // A job that ends gives its lane to the next one, while there are enough for this width.
    while (turn > 0 && busy_ > 0) {
      const size_t blocks = Run(width, turn);
      turn -= blocks;
      const size_t before = busy_;
      for (size_t lane = 0; lane < busy_;) {
        lanes_[lane]->Took(blocks);
        if (!lanes_[lane]->done())
          ++lane;
        else if (!waiting_.empty())
          lanes_[lane++] = Take();
        else
          lanes_[lane] = lanes_[--busy_];
      }
      if (busy_ < before) break;
    }
    while (busy_ > 0) Return(lanes_[--busy_]);
    return true;
  }

 private:
  HashJob* Take() {
    std::pop_heap(waiting_.begin(), waiting_.end(), LessLeft);
    HashJob* job = waiting_.back();
    waiting_.pop_back();
    return job;
  }

  void Return(HashJob* job) {
    waiting_.push_back(job);
    std::push_heap(waiting_.begin(), waiting_.end(), LessLeft);
  }

  /// As many blocks as every lane has in one run. Idle lanes do what the first one does, to the
  /// same end.
  size_t Run(const ShaWidth& width, size_t blocks) {
    ShaState* states[kLanesMax];
    const uint8_t* data[kLanesMax];
    for (size_t lane = 0; lane < width.lanes; ++lane) {
      HashJob* job = lanes_[lane < busy_ ? lane : 0];
      states[lane] = job->state();
      data[lane] = job->data();
      blocks = std::min(blocks, job->run());
    }
    width.run(states, data, blocks);
    return blocks;
  }

  std::vector<HashJob*> waiting_;  // a heap
  std::array<HashJob*, kLanesMax> lanes_{};
  size_t busy_ = 0;
};

}  // namespace

void HashPieces(std::span<const HashPiece> pieces, const CpuFeatures& cpu) {
  std::vector<HashJob> jobs;
  jobs.reserve(pieces.size());  // jobs point into themselves and must not move
  for (const HashPiece& piece : pieces) jobs.emplace_back(piece);
  Dealer dealer(jobs);
  while (dealer.Turn(cpu)) {
  }
}

void Sha256Many(std::span<const std::string_view> messages, std::span<Digest> out,
                const CpuFeatures& cpu) {
  UMBEL_CHECK(messages.size() == out.size());
  std::vector<HashStream> streams(messages.size());
  std::vector<HashPiece> pieces(messages.size());
  for (size_t i = 0; i < messages.size(); ++i) pieces[i] = {&streams[i], messages[i], &out[i]};
  HashPieces(pieces, cpu);
}

}  // namespace umbel::tensor
