// umbel_hash: SHA-256 of messages side by side, and OpenSSL's of the same messages one by one, in
// turn. UMBEL_CPU picks our path, OPENSSL_ia32cap what OpenSSL may use.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/cpu.h"
#include "tensor/hash_lanes.h"
#include "tensor/sha256.h"
#include "tensor/sha256_kernels.h"

namespace {

using namespace umbel;

constexpr const char* kFooter = R"(Examples:
  umbel_hash
  UMBEL_CPU=avx512 umbel_hash --depths 4 --depths 8
  UMBEL_CPU=avx2 OPENSSL_ia32cap=:~0x20000000 umbel_hash    OpenSSL without SHA instructions
  umbel_hash --kernels                                      each kernel by itself, all lanes busy
Prints its figures as one line of JSON, rates in GB/s (1e9 bytes), one entry for each pair.)";

struct Options {
  std::vector<size_t> depths = {1, 2, 4, 8, 16};
  size_t bytes = size_t{5} << 20;
  size_t piece = 0;
  size_t work = 16;
  size_t pairs = 9;
  bool kernels = false;
};

double CpuSeconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// GB in a second of this thread's own time, in one call of `body`: hashing waits for nothing, and
/// what else the machine does takes from both sides unequally.
template <typename Body>
double Rate(size_t bytes, const Body& body) {
  const double begin = CpuSeconds();
  body();
  return static_cast<double>(bytes) / (CpuSeconds() - begin) / 1e9;
}

using Views = std::vector<std::string_view>;

void HashWithOpenSsl(const Views& messages, std::vector<Digest>& out) {
  for (size_t i = 0; i < messages.size(); ++i) out[i] = tensor::Sha256Of(messages[i]);
}

/// As uploads that go on at the same pace: a piece of each message, then the next of each.
void HashInPieces(const Views& messages, size_t piece, std::vector<Digest>& out) {
  std::vector<tensor::HashStream> streams(messages.size());
  std::vector<tensor::HashPiece> pieces(messages.size());
  for (size_t at = 0; at < messages[0].size(); at += piece) {
    const bool last = at + piece >= messages[0].size();
    for (size_t i = 0; i < messages.size(); ++i)
      pieces[i] = {&streams[i], messages[i].substr(at, piece), last ? &out[i] : nullptr};
    tensor::HashPieces(pieces);
  }
}

Result<nlohmann::json> AtDepth(const Options& options, const Views& all, size_t depth) {
  const size_t turns = std::max<size_t>(1, options.work / depth);
  const size_t bytes = turns * depth * options.bytes;
  std::vector<Digest> theirs(depth);
  std::vector<Digest> ours(depth);
  std::vector<double> ours_rate;
  std::vector<double> theirs_rate;
  const auto run_theirs = [&] {
    theirs_rate.push_back(Rate(bytes, [&] {
      for (size_t turn = 0; turn < turns; ++turn)
        HashWithOpenSsl({all.begin(), all.begin() + static_cast<std::ptrdiff_t>(depth)}, theirs);
    }));
  };
  const auto run_ours = [&] {
    ours_rate.push_back(Rate(bytes, [&] {
      for (size_t turn = 0; turn < turns; ++turn) {
        const Views messages(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(depth));
        if (options.piece > 0)
          HashInPieces(messages, options.piece, ours);
        else
          tensor::Sha256Many(messages, ours);
      }
    }));
  };
  for (size_t pair = 0; pair < options.pairs; ++pair) {
    if (pair % 2 == 0) run_theirs();
    run_ours();
    if (pair % 2 == 1) run_theirs();
    if (ours != theirs)
      return Fail(Code::kDataLoss, fmt::format("depth {}: digests differ", depth));
  }
  return nlohmann::json{{"depth", depth},
                        {"kernel", tensor::WidthFor(CpuPath(), depth).name},
                        {"ours", ours_rate},
                        {"openssl", theirs_rate}};
}

/// Every kernel of this CPU with all its lanes busy, beside OpenSSL.
nlohmann::json Kernels(const Options& options, const Views& all) {
  using tensor::kLanesMax;
  nlohmann::json out = nlohmann::json::array();
  const size_t blocks = options.bytes / tensor::kShaBlock;
  tensor::ShaState sums[kLanesMax] = {};
  tensor::ShaState* states[kLanesMax];
  const uint8_t* data[kLanesMax];
  for (size_t lane = 0; lane < kLanesMax; ++lane) {
    states[lane] = &sums[lane];
    data[lane] = reinterpret_cast<const uint8_t*>(all[lane].data());
  }
  const auto rate = [&](const tensor::ShaWidth& width) {
    return Rate(kLanesMax * blocks * tensor::kShaBlock, [&] {
      for (size_t lane = 0; lane < kLanesMax; lane += width.lanes)
        width.run(states + lane, data + lane, blocks);
    });
  };
  for (const tensor::ShaWidth& width : tensor::AllWidths()) {
    if (width.needs && !(PresentCpu().*width.needs)) continue;
    std::vector<double> ours;
    std::vector<double> theirs;
    for (size_t pair = 0; pair < options.pairs; ++pair) {
      theirs.push_back(rate(tensor::AllWidths().front()));
      ours.push_back(rate(width));
    }
    out.push_back(
        {{"kernel", width.name}, {"lanes", width.lanes}, {"ours", ours}, {"openssl", theirs}});
  }
  return out;
}

Status Main(const Options& options) {
  UMBEL_TRY(CheckCpuPath());
  size_t most = tensor::kLanesMax;
  for (const size_t depth : options.depths) most = std::max(most, depth);
  std::vector<std::string> messages(most);
  Views views;
  uint64_t state = 1;
  for (std::string& message : messages) {
    message.resize(options.bytes);
    for (char& c : message) {
      state = state * 6364136223846793005U + 1442695040888963407U;
      c = static_cast<char>(state >> 56);
    }
    views.emplace_back(message);
  }
  nlohmann::json out{{"cpu", CpuName(CpuPath())}, {"present", CpuName(PresentCpu())}};
  if (options.kernels) {
    out["kernels"] = Kernels(options, views);
  } else {
    for (const size_t depth : options.depths) {
      UMBEL_ASSIGN(nlohmann::json found, AtDepth(options, views, depth));
      out["depths"].push_back(std::move(found));
    }
  }
  fmt::print("{}\n", out.dump());
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Hashes messages side by side, and with OpenSSL.", "umbel_hash");
  app.footer(kFooter);
  Options options;
  app.add_option("--depths", options.depths, "Messages that wait together")
      ->check(CLI::Range(1, 1024));
  app.add_option("--bytes", options.bytes, "Length of each")->check(CLI::Range(1, 1 << 30));
  app.add_option("--piece", options.piece, "Bytes that come at a time; 0: all");
  app.add_option("--work", options.work, "Messages a measurement has at least");
  app.add_option("--pairs", options.pairs, "Measurements of each side")->check(CLI::Range(1, 1000));
  app.add_flag("--kernels", options.kernels, "Each kernel by itself, whatever UMBEL_CPU says");
  CLI11_PARSE(app, argc, argv);
  const Status done = Main(options);
  if (done.ok()) return 0;
  fmt::print(stderr, "umbel_hash: {}\n", done.error().message);
  return done.error().code == Code::kInvalidArgument ? 2 : 1;
}
