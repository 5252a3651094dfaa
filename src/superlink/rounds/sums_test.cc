#include "superlink/rounds/sums.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/testing.h"
#include "superlink/rounds/rounds_testing.h"

namespace umbel::superlink::rounds {
namespace {

using testing::ArrayOf;
using testing::BytesOf;
using testing::ModelOf;
using testing::UpdateOf;
using testing::ValuesOf;
using umbel::testing::TempDir;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

ModelArray Floats(const std::vector<float>& values) {
  return ArrayOf("w", "<f4", {values.size()}, BytesOf(values));
}

std::vector<float> MeanOf(Aggregator& sums) { return ValuesOf<float>(sums.Finish(1)->arrays[0]); }

TEST(Sums, AreTheWeightedMean) {
  const Model model = ModelOf({Floats({0, 0})});
  const auto sums = *MakeSums(model);
  ASSERT_TRUE(
      sums->Add({UpdateOf(1, 1, {Floats({1, 2})}), UpdateOf(2, 3, {Floats({5, -2})})})->empty());
  EXPECT_EQ(MeanOf(*sums), (std::vector<float>{4, -1}));
}

TEST(Sums, ARefusedUpdateLeavesNoTraceWhereverItsFaultIs) {
  const Model model = ModelOf({Floats({0, 0}), Floats({0, 0})});
  for (const size_t bad : {size_t{0}, size_t{1}}) {
    const auto sums = *MakeSums(model);
    std::vector<ModelArray> arrays = {Floats({9, 9}), Floats({9, 9})};
    arrays[bad] = Floats({9, kNan});
    const auto refused =
        *sums->Add({UpdateOf(1, 1, {Floats({1, 2}), Floats({3, 4})}), UpdateOf(2, 1, arrays),
                    UpdateOf(3, 1, {Floats({3, 4}), Floats({5, 6})})});
    ASSERT_EQ(refused.size(), 1u);
    EXPECT_EQ(refused[0].index, 1u);
    EXPECT_EQ(refused[0].outcome, Outcome::kNonFinite);
    const auto next = *sums->Finish(1);
    EXPECT_EQ(ValuesOf<float>(next.arrays[0]), (std::vector<float>{2, 3}));
    EXPECT_EQ(ValuesOf<float>(next.arrays[1]), (std::vector<float>{4, 5}));
  }
}

TEST(Sums, FortranOrderAndForeignBytesAreTheSameNumbers) {
  const std::vector<float> rows = {1, 2, 3, 4, 5, 6};  // [[1, 2, 3], [4, 5, 6]]
  const std::vector<float> columns = {1, 4, 2, 5, 3, 6};
  std::string swapped = BytesOf(rows);
  for (size_t i = 0; i < swapped.size(); i += 4) std::reverse(&swapped[i], &swapped[i] + 4);
  std::string fortran_head = tensor::MakeNpyHead("<f4", std::vector<uint64_t>{2, 3});
  const size_t flag = fortran_head.find("False");
  fortran_head.replace(flag, 5, "True ");
  const Model model = ModelOf({ArrayOf("w", "<f4", {2, 3}, BytesOf(rows))});
  const auto sums = *MakeSums(model);
  ASSERT_TRUE(
      sums->Add({UpdateOf(1, 1, {ArrayOf("w", "<f4", {2, 3}, BytesOf(rows))}),
                 UpdateOf(2, 1, {ArrayOf("w", "<f4", {2, 3}, BytesOf(columns), fortran_head)}),
                 UpdateOf(3, 1, {ArrayOf("w", ">f4", {2, 3}, swapped)})})
          ->empty());
  EXPECT_EQ(MeanOf(*sums), rows);
}

TEST(Sums, TheMeanHasTheDtypeOfMostReplies) {
  const Model model = ModelOf({Floats({0})});
  const auto doubles = [](double value) {
    return ArrayOf("w", "<f8", {1}, BytesOf(std::vector<double>{value}));
  };
  auto sums = *MakeSums(model);
  ASSERT_TRUE(sums->Add({UpdateOf(1, 1, {doubles(1)}), UpdateOf(2, 1, {Floats({2})}),
                         UpdateOf(3, 1, {Floats({6})})})
                  ->empty());
  auto next = *sums->Finish(1);
  EXPECT_EQ(next.arrays[0].dtype, "<f4");
  EXPECT_EQ(ValuesOf<float>(next.arrays[0]), std::vector<float>{3});
  sums = *MakeSums(model);
  ASSERT_TRUE(sums->Add({UpdateOf(1, 1, {doubles(1)}), UpdateOf(2, 1, {Floats({2})})})->empty());
  EXPECT_EQ(sums->Finish(1)->arrays[0].dtype, "<f8");
}

TEST(Sums, GoOnFromWhatWasSaved) {
  const TempDir folder;
  const std::string path = folder.path() + "/one.sums";
  const Model model = ModelOf({Floats({0, 0})});
  const std::vector<Update> updates = {UpdateOf(1, 0.1, {Floats({1, 2e30F})}),
                                       UpdateOf(2, 3, {Floats({0.3F, -2e-30F})}),
                                       UpdateOf(3, 7, {Floats({-5, 1})})};
  const auto whole = *MakeSums(model);
  ASSERT_TRUE(whole->Add(updates)->empty());
  const auto half = *MakeSums(model);
  ASSERT_TRUE(half->Add({updates[2]})->empty());
  ASSERT_TRUE(half->Save(path).ok());
  const auto rest = *MakeSums(model);
  ASSERT_TRUE(rest->Load(path).ok());
  ASSERT_TRUE(rest->Add({updates[1], updates[0]})->empty());
  EXPECT_EQ(MeanOf(*rest), MeanOf(*whole));
  const auto other = *MakeSums(ModelOf({Floats({0, 0, 0})}));
  EXPECT_EQ(other->Load(path).error().code, Code::kDataLoss);
}

TEST(Sums, PiecesAreTheWholeAndCanBeTakenOut) {
  std::vector<float> values(300'000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 977) * 0.37F;
  const ModelArray array = Floats(values);
  const Model model = ModelOf({array});
  const auto piece = [&](uint64_t first, uint64_t count) {
    Piece out;
    out.dtype = "<f4";
    out.first = first;
    out.count = count;
    out.place = array.file.chunks()[0];
    out.offset = array.npy.data_offset + first * 4;
    out.weight = 2;
    return out;
  };
  const auto sums = *MakeSums(model);
  const Piece early = piece(1000, 200'000);
  const Piece other = piece(0, 50'000);
  ASSERT_TRUE(sums->AddPieces({&early, 1}).ok());
  ASSERT_TRUE(sums->AddPieces({&other, 1}).ok());
  ASSERT_TRUE(sums->RemovePieces({&other, 1}).ok());
  Update update = UpdateOf(1, 2, {array});
  update.folded = {{{1000, 200'000}}};
  ASSERT_TRUE(sums->Add({update, UpdateOf(2, 1, {array})})->empty());
  EXPECT_EQ(MeanOf(*sums), values);
}

TEST(Sums, ARefusedUpdateLeavesNothingOfItsPieces) {
  const ModelArray good = Floats({1, 2, 3, kNan});
  const Model model = ModelOf({Floats({0, 0, 0, 0})});
  const auto sums = *MakeSums(model);
  Piece piece;
  piece.dtype = "<f4";
  piece.count = 2;
  piece.place = good.file.chunks()[0];
  piece.offset = good.npy.data_offset;
  piece.weight = 5;
  ASSERT_TRUE(sums->AddPieces({&piece, 1}).ok());
  Update update = UpdateOf(1, 5, {good});
  update.folded = {{{0, 2}}};
  ASSERT_EQ(sums->Add({update, UpdateOf(2, 1, {Floats({7, 7, 7, 7})})})->size(), 1u);
  EXPECT_EQ(MeanOf(*sums), (std::vector<float>{7, 7, 7, 7}));
}

}  // namespace
}  // namespace umbel::superlink::rounds
