#include <fmt/core.h>

#include <chrono>
#include <cstdio>
#include <thread>

#include "cli/settings.h"
#include "commands.h"
#include "dataserver/tables.h"
#include "dataset/images.h"
#include "dataset/names.h"
#include "dataset/split.h"
#include "target.h"

namespace umbel::dataserver {
namespace {

constexpr const char* kFooter = R"(Examples:
  umbel-dataserver mock --dataset fashion-mnist --partitions 2 --tag mnist \
      --to grpc://127.0.0.1:11027 --to grpc://127.0.0.1:11028
      The train split in two random halves, one for each data server.
  umbel-dataserver mock --dataset digits --partitions 5 --tag digits --scheme dirichlet --alpha 0.3 \
      --to grpc://127.0.0.1:11027
      scikit-learn's digits; each partition has mostly some of the labels.

Partition i goes to the i-th location, and around. The same flags and seed make the same files.
There is no real MNIST here: `--dataset mnist` takes Fashion-MNIST, which has its shape.)";

struct Values {
  std::string dataset;
  int64_t partitions = 1;
  std::string tag;
  std::string scheme = "iid";
  double alpha = 0.5;
  uint64_t seed = 0;
  int64_t rows = 0;
  int64_t wait = 0;
  std::vector<std::string> to;
  std::string fashion_mnist = "/usr/share/datasets/fashion-mnist";
  std::string digits = UMBEL_DIGITS_FILE;
};

Result<dataset::LabelledImages> Read(const Values& v) {
  if (v.dataset == "digits") {
    auto digits = dataset::ReadDigits(v.digits);
    if (!digits.ok() && digits.error().code == Code::kNotFound)
      return Fail(Code::kNotFound, fmt::format("{}: `scripts/bootstrap data` fetches it, and "
                                               "--digits-file names another",
                                               digits.error().message));
    return digits;
  }
  auto images = dataset::ReadFashionMnist(v.fashion_mnist);
  if (!images.ok() && images.error().code == Code::kNotFound)
    return Fail(Code::kNotFound,
                fmt::format("{}: install Debian's dataset-fashion-mnist, or name its folder by "
                            "--fashion-mnist-dir",
                            images.error().message));
  return images;
}

Result<dataset::Partitions> Split(const Values& v, const dataset::LabelledImages& images) {
  const auto parts = static_cast<size_t>(v.partitions);
  // The order of the files is not by label: their front is as good a sample as any.
  const size_t rows =
      v.rows == 0 ? images.size() : std::min(images.size(), static_cast<size_t>(v.rows));
  if (v.scheme == "iid") return dataset::SplitIid(rows, parts, v.seed);
  return dataset::SplitDirichlet(std::span(images.labels).first(rows), parts, v.alpha, v.seed);
}

constexpr std::chrono::milliseconds kPause{200};

/// A server that answers, once it does, until `deadline`.
Result<std::unique_ptr<Client>> Reach(const Target& target, const std::string& tag,
                                      std::chrono::steady_clock::time_point deadline) {
  for (;;) {
    UMBEL_ASSIGN(auto client, Client::Connect(target));
    const auto listed = client->List({tag});
    if (listed.ok()) return client;
    if (listed.error().code != Code::kUnavailable || std::chrono::steady_clock::now() >= deadline)
      return Fail(listed.error());
    std::this_thread::sleep_for(kPause);
  }
}

Status Mock(const Values& v, const TargetFlags& flags) {
  UMBEL_TRY(dataset::CheckTag(v.tag));
  // Before the work: a location where nobody answers.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(v.wait);
  std::vector<std::unique_ptr<Client>> clients;
  for (const std::string& location : v.to) {
    UMBEL_ASSIGN(const Target target, flags.For(location));
    UMBEL_ASSIGN(auto client, Reach(target, v.tag, deadline));
    clients.push_back(std::move(client));
  }
  if (v.dataset == "mnist")
    fmt::print("note: there is no real MNIST here; Fashion-MNIST, of the same shape, is taken\n");
  UMBEL_ASSIGN(const dataset::LabelledImages images, Read(v));
  UMBEL_ASSIGN(const dataset::Partitions partitions, Split(v, images));
  for (size_t i = 0; i < partitions.size(); ++i) {
    UMBEL_ASSIGN(const auto table, ImageTable(images, partitions[i]));
    UMBEL_ASSIGN(const std::string digest, DigestOf(*table));
    const std::string name = dataset::FileName(v.tag, digest);
    UMBEL_TRY(clients[i % clients.size()]->Put(name, *table));
    fmt::print("partition {} of {}: {} rows to {} as {}\n", i + 1, partitions.size(),
               partitions[i].size(), v.to[i % v.to.size()], name);
    std::fflush(stdout);
  }
  return {};
}

}  // namespace

int MockCommand(int argc, char** argv) {
  CLI::App app("Cut a published data set into partitions and send them to data servers.",
               "umbel-dataserver mock");
  app.footer(kFooter);
  app.get_formatter()->column_width(36);
  Values v;
  TargetFlags flags;
  app.add_option("--dataset", v.dataset, "fashion-mnist, mnist or digits")
      ->required()
      ->check(CLI::IsMember({"fashion-mnist", "mnist", "digits"}));
  app.add_option("--partitions", v.partitions, "How many files")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  app.add_option("--tag", v.tag, "What learners ask for")->required();
  app.add_option("--scheme", v.scheme, "iid, or dirichlet by label")
      ->check(CLI::IsMember({"iid", "dirichlet"}))
      ->capture_default_str();
  app.add_option("--alpha", v.alpha, "Of dirichlet: the smaller, the fewer labels a partition has")
      ->capture_default_str();
  app.add_option("--seed", v.seed, "Of what is random")->capture_default_str();
  app.add_option("--rows", v.rows, "Take so many rows only; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  app.add_option("--to", v.to, "Location of a data server; may be given again")->required();
  app.add_option("--wait", v.wait, "Seconds to wait for data servers that are starting")
      ->check(CLI::Range(0, 24 * 3600))
      ->capture_default_str();
  app.add_option("--fashion-mnist-dir", v.fashion_mnist, "Folder of Fashion-MNIST's files")
      ->capture_default_str();
  app.add_option("--digits-file", v.digits, "scikit-learn's digits.csv.gz");
  flags.Declare(app);
  if (const auto status = cli::Parse(app, argc, argv)) return *status;
  if (const Status done = Mock(v, flags); !done.ok()) return Complain(app, done.error());
  return 0;
}

}  // namespace umbel::dataserver
