#include "tensor/safetensors.h"

#include <gtest/gtest.h>

namespace umbel::tensor {
namespace {

std::string ErrorOf(std::string_view json, uint64_t data_size = 8) {
  const auto read = ParseSafetensorsHead(json, data_size);
  return read.ok() ? "" : read.error().message;
}

std::string One(std::string_view fields) { return fmt::format(R"({{"w":{{{}}}}})", fields); }

TEST(Safetensors, WhatIsWrittenIsRead) {
  const std::vector<SafeTensor> arrays = {{"w", "<f4", {2, 3}, 0, 0},
                                          {"é \"b\"", "<f8", {}, 0, 0},
                                          {"none", "<i8", {0, 4}, 0, 0},
                                          {"bits", "|b1", {5}, 0, 0}};
  const auto head = MakeSafetensorsHead(arrays);
  ASSERT_TRUE(head.ok());
  EXPECT_EQ(head->size() % 8, 0u);
  const uint64_t data = 24 + 8 + 5;
  const auto size = SafetensorsHeadSize(head->substr(0, 8), head->size() + data);
  ASSERT_TRUE(size.ok()) << size.error().message;
  EXPECT_EQ(*size, head->size() - 8);
  const auto read = ParseSafetensorsHead(std::string_view(*head).substr(8), data);
  ASSERT_TRUE(read.ok()) << read.error().message;
  ASSERT_EQ(read->size(), arrays.size());
  const uint64_t begins[] = {0, 24, 32, 32};
  for (size_t i = 0; i < arrays.size(); ++i) {
    EXPECT_EQ((*read)[i].name, arrays[i].name);
    EXPECT_EQ((*read)[i].descr, arrays[i].descr);
    EXPECT_EQ((*read)[i].shape, arrays[i].shape);
    EXPECT_EQ((*read)[i].begin, begins[i]);
  }
}

TEST(Safetensors, ReadsWhatOthersWrite) {
  const auto read = ParseSafetensorsHead(
      R"({"__metadata__":{"format":"pt"},"b":{"data_offsets":[4,8],"dtype":"F32","shape":[1]},)"
      R"("a":{"dtype":"I16","shape":[2],"data_offsets":[0,4]}}   )",
      8);
  ASSERT_TRUE(read.ok()) << read.error().message;
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].name, "a");
  EXPECT_EQ((*read)[0].descr, "<i2");
  EXPECT_EQ((*read)[1].begin, 4u);
  EXPECT_TRUE(ParseSafetensorsHead("{}", 0).ok());
}

TEST(Safetensors, AHostileHeadIsRefused) {
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  ASSERT_EQ(ErrorOf(One(good)), "");
  const std::pair<std::string, std::string_view> kCases[] = {
      {"", "does not begin with '{'"},
      {" {}", "does not begin with '{'"},
      {"[]", "does not begin with '{'"},
      {"{", "is not JSON"},
      {"{}x", "is not JSON"},
      {"{\"\xff\":1}", "is not JSON"},
      {R"({"w":1})", "array 'w': its head has a number where it must not"},
      {R"({"w":{}})", "array 'w': dtype, shape or data_offsets is missing"},
      {R"({"w":null})", "has null"},
      {R"({"w":[[[[[[[[[[]]]]]]]]]]})", "has a list"},
      {R"({"w":{"w":{"w":{}}}})", "unknown field 'w'"},
      {R"({"__metadata__":{"a":1}})", "has a number"},
      {R"({"__metadata__":{"a":{}}})", "has an object"},
      {R"({"__metadata__":"x"})", "has text"},
      {R"({"__metadata__":{},"__metadata__":{}})", "'__metadata__' is there twice"},
      {fmt::format(R"({{"w":{{{0}}},"w":{{{0}}}}})", good), "'w' is there twice"},
      {One(R"("dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8])"), "dtype twice"},
      {One(R"("dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1)"), "unknown field 'more'"},
      {One(R"("dtype":"BF16","shape":[4],"data_offsets":[0,8])"),
       "dtype 'BF16' is none of NumPy's"},
      {One(R"("dtype":4,"shape":[2],"data_offsets":[0,8])"), "has a number"},
      {One(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), "has a number"},
      {One(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "has a number below 0"},
      {One(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), "has a fraction"},
      {One(R"("dtype":"F32","shape":[1e999],"data_offsets":[0,8])"), "not JSON"},
      {One(R"("dtype":"F32","shape":[18446744073709551616],"data_offsets":[0,8])"), "a fraction"},
      {One(R"("dtype":"F32","shape":[[2]],"data_offsets":[0,8])"), "has a list"},
      {One(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), "are not two numbers"},
      {One(R"("dtype":"F32","shape":[2],"data_offsets":[0,4,8])"), "has a number"},
      {One(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "[8, 0], its shape takes 8 bytes"},
      {One(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), "its shape takes 12 bytes"},
      {One(R"("dtype":"F64","shape":[4294967296,536870912],"data_offsets":[0,8])"), "too large"},
      {One(R"("dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0])"), "too large"},
      {One(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "after a gap that begins at 0"},
      {One(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), "4 bytes follow the last array"},
      {One(R"("dtype":"F32","shape":[3],"data_offsets":[0,12])"), "ends at byte 12 of the data"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
       "array 'b': it begins at byte 4 of the data, within the array before"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
       R"("b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
       "within the array before"},
  };
  for (const auto& [json, why] : kCases)
    EXPECT_NE(ErrorOf(json).find(why), std::string::npos) << json << "\n" << ErrorOf(json);
  std::string sizes;
  for (int i = 0; i < 64; ++i) sizes += ",1";
  EXPECT_NE(ErrorOf(One(R"("dtype":"F32","data_offsets":[0,8],"shape":[1)" + sizes + "]"))
                .find("more than 64 dimensions"),
            std::string::npos);
}

TEST(Safetensors, ALengthThatDoesNotFitIsRefused) {
  const auto size = [](std::string_view bytes, uint64_t file) {
    const auto read = SafetensorsHeadSize(bytes, file);
    return read.ok() ? "" : read.error().message;
  };
  using std::string_view_literals::operator""sv;
  EXPECT_EQ(size("\2\0\0\0\0\0\0\0"sv, 10), "");
  EXPECT_NE(size("\2\0\0\0\0\0\0"sv, 7).find("fewer than 8"), std::string::npos);
  EXPECT_NE(size("\3\0\0\0\0\0\0\0"sv, 10).find("would have 3 bytes"), std::string::npos);
  EXPECT_NE(size("\xff\xff\xff\xff\xff\xff\xff\xff"sv, 10).find("would have"), std::string::npos);
  EXPECT_NE(size("\1\0\0\1\0\0\0\0"sv, uint64_t{1} << 40).find("more than"), std::string::npos);
}

TEST(Safetensors, WhatItCannotHoldIsNotWritten) {
  const auto error = [](std::vector<SafeTensor> arrays) {
    return MakeSafetensorsHead(arrays).error().message;
  };
  EXPECT_NE(error({{"w", ">f4", {}, 0, 0}}).find("no dtype >f4"), std::string::npos);
  EXPECT_NE(error({{"w", "<c8", {}, 0, 0}}).find("no dtype <c8"), std::string::npos);
  EXPECT_NE(error({{"__metadata__", "<f4", {}, 0, 0}}).find("reserved"), std::string::npos);
  EXPECT_NE(error({{"w", "<f4", {}, 0, 0}, {"w", "<f4", {}, 0, 0}}).find("taken"),
            std::string::npos);
}

}  // namespace
}  // namespace umbel::tensor
