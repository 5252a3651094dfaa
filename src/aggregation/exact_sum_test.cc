#include "aggregation/exact_sum.h"

#include <gtest/gtest.h>

#include <limits>
#include <span>
#include <vector>

#include "aggregation/exact_sum_cases.h"
#include "aggregation/exact_sum_oracle.h"
#include "aggregation/fold_cpu.h"

namespace umbel::aggregation {
namespace {

using testing::Client;
using testing::Data;
using testing::kAllData;
using testing::kAllWeights;
using testing::MakeClients;
using testing::Random;
using testing::Weights;

template <typename T>
ElementType TypeOf() {
  return {Kind::kFloat, sizeof(T)};
}

template <typename T>
std::span<const std::byte> Bytes(const std::vector<T>& values, size_t first, size_t n) {
  return std::as_bytes(std::span(values).subspan(first, n));
}

/// What is tested: something that folds clients in some order and tells their mean.
template <typename T>
class Folder {
 public:
  virtual ~Folder() = default;
  virtual void Fold(const Client<T>& client) = 0;
  virtual std::vector<T> Mean() const = 0;
};

template <typename T>
class ExactFolder : public Folder<T> {
 public:
  ExactFolder(size_t count, const Kernels* kernels)
      : sum_(ExactSum::Make(TypeOf<T>(), count, {.kernels = kernels}).value()) {}
  void Fold(const Client<T>& client) override {
    const Update update{Bytes(client.values, 0, client.values.size()), client.weight};
    ASSERT_TRUE(sum_.Fold({&update, 1}, 0, client.values.size()).has_value());
    ASSERT_TRUE(total_.Add(client.weight).has_value());
  }
  std::vector<T> Mean() const override {
    std::vector<T> mean(sum_.count());
    EXPECT_TRUE(sum_.Mean(Divisor(total_), 0, mean.size(), std::as_writable_bytes(std::span(mean)))
                    .has_value());
    return mean;
  }

 private:
  ExactSum sum_;
  WeightTotal total_;
};

/// The obvious way, which is not good enough: shows that the tests can fail.
template <typename T>
class DoubleFolder : public Folder<T> {
 public:
  explicit DoubleFolder(size_t count) : sums_(count) {}
  void Fold(const Client<T>& client) override {
    for (size_t i = 0; i < sums_.size(); ++i)
      sums_[i] += client.weight * static_cast<double>(client.values[i]);
    total_ += client.weight;
  }
  std::vector<T> Mean() const override {
    std::vector<T> mean;
    for (const double sum : sums_) mean.push_back(static_cast<T>(sum / total_));
    return mean;
  }

 private:
  std::vector<double> sums_;
  double total_ = 0;
};

template <typename T>
std::vector<oracle::Sum> Expected(const std::vector<Client<T>>& clients) {
  std::vector<oracle::Sum> sums(clients[0].values.size());
  for (const Client<T>& client : clients)
    for (size_t i = 0; i < sums.size(); ++i)
      sums[i].Add(static_cast<double>(client.values[i]), client.weight);
  return sums;
}

template <typename T>
size_t CountWrong(Folder<T>& folder, const std::vector<Client<T>>& clients,
                  const std::vector<oracle::Sum>& expected) {
  for (const Client<T>& client : clients) folder.Fold(client);
  const std::vector<T> mean = folder.Mean();
  size_t wrong = 0;
  for (size_t i = 0; i < mean.size(); ++i)
    if (!oracle::IsRounded(expected[i], static_cast<double>(mean[i]),
                           std::numeric_limits<T>::digits,
                           std::numeric_limits<T>::min_exponent - 1))
      ++wrong;
  return wrong;
}

template <typename T>
void ExpectRoundedEverywhere(Random& random) {
  for (const Data data : kAllData) {
    for (const Weights weights : kAllWeights) {
      const size_t count = 1 + random() % 600;
      const auto clients = MakeClients<T>(data, weights, 1 + random() % 20, count, random);
      const auto expected = Expected(clients);
      for (const Kernels* kernels : SupportedKernels()) {
        ExactFolder<T> folder(count, kernels);
        EXPECT_EQ(CountWrong(folder, clients, expected), 0U)
            << kernels->name << " data " << static_cast<int>(data) << " weights "
            << static_cast<int>(weights) << " clients " << clients.size();
      }
    }
  }
}

TEST(ExactSumMean, IsTheCorrectlyRoundedRational) {
  Random random(testing::Seed("IsTheCorrectlyRoundedRational"));
  for (int turn = 0; turn < (testing::FullSize() ? 30 : 1); ++turn) {
    ExpectRoundedEverywhere<float>(random);
    ExpectRoundedEverywhere<double>(random);
  }
}

TEST(ExactSumMean, APlainDoubleSumFailsTheSameTest) {
  Random random(1);
  const auto clients = MakeClients<float>(Data::kCancelling, Weights::kExamples, 200, 256, random);
  const auto expected = Expected(clients);
  DoubleFolder<float> folder(256);
  EXPECT_GT(CountWrong(folder, clients, expected), 64U);
  ExactFolder<float> exact(256, nullptr);
  EXPECT_EQ(CountWrong(exact, clients, expected), 0U);
}

}  // namespace
}  // namespace umbel::aggregation
