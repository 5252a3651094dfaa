#include "tensor/npy.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>

namespace umbel::tensor {
namespace {

using std::string_literals::operator""s;

/// As np.save writes it: padded to 64 bytes, a line end last.
std::string Npy(std::string_view dict, int major = 1) {
  const size_t width = major == 1 ? 2 : 4;
  std::string text(dict);
  while ((8 + width + text.size() + 1) % 64 != 0) text.push_back(' ');
  text.push_back('\n');
  std::string head = "\x93NUMPY"s;
  head.push_back(static_cast<char>(major));
  head.push_back('\0');
  for (size_t i = 0; i < width; ++i)
    head.push_back(static_cast<char>(text.size() >> (8 * i) & 0xff));
  return head + text;
}

std::string Dict(std::string_view descr, std::string_view shape) {
  return fmt::format("{{'descr': {}, 'fortran_order': False, 'shape': {}, }}", descr, shape);
}

NpyHead Read(const std::string& bytes) {
  auto head = ParseNpyHead(bytes);
  if (!head.ok()) ADD_FAILURE() << head.error().message << "\n" << bytes;
  if (!head.ok() || !head->has_value()) return {};
  return **head;
}

TEST(Npy, WhatNumPyWritesIsRead) {
  for (const int major : {1, 2, 3}) {
    const NpyHead head = Read(Npy(Dict("'<f4'", "(2, 2)"), major));
    EXPECT_EQ(head.dtype, "<f4");
    EXPECT_FALSE(head.fortran_order);
    EXPECT_EQ(head.shape, (std::vector<uint64_t>{2, 2}));
    EXPECT_EQ(head.data_offset, 128U);
    EXPECT_EQ(head.item_size, 4U);
    EXPECT_EQ(head.element_count, 4U);
  }
  EXPECT_EQ(Read(Npy(Dict("'|b1'", "()"))).element_count, 1U);
  EXPECT_EQ(Read(Npy(Dict("'>i8'", "(3,)"))).element_count, 3U);
  EXPECT_EQ(Read(Npy(Dict("'<c16'", "(0, 9223372036854775807)"))).element_count, 0U);
  EXPECT_EQ(Read(Npy(Dict("'<U7'", "(1,)"))).item_size, 28U);
  EXPECT_EQ(Read(Npy(Dict("'|S0'", "(1,)"))).item_size, 0U);
  EXPECT_TRUE(
      Read(Npy("{'descr': '<f8', 'fortran_order': True, 'shape': (2, 3), }")).fortran_order);
  EXPECT_EQ(Read(Npy("{\"shape\":(1,2,),'fortran_order':False,'descr':'=u2'}")).shape.size(), 2U);
}

TEST(Npy, WhatIsNotAHeaderIsRefused) {
  std::string dimensions = "(";
  for (int i = 0; i < 65; ++i) dimensions += "1, ";
  const std::string good = Npy(Dict("'<f4'", "(2, 2)"));
  for (const std::string& bytes : std::vector<std::string>{
           "x",
           "\x93NUMPX",
           "PK\3\4",
           "\x80\x04\x95",
           "\x93NUMPY\x04\0"s,
           "\x93NUMPY\x01\x01"s,
           "\x93NUMPY\0\0"s,
           "\x93NUMPY\x01\0\xff\xff"s,
           "\x93NUMPY\x02\0\xff\xff\xff\xff"s,
           Npy(""),
           Npy("{}"),
           Npy("[]"),
           Npy(Dict("'<f4'", "(2, 2)") + "x"),
           Npy(Dict("'|O'", "(1,)")),
           Npy(Dict("'|O8'", "(1,)")),
           Npy(Dict("'<f3'", "(1,)")),
           Npy(Dict("'<f0'", "(1,)")),
           Npy(Dict("'f4'", "(1,)")),
           Npy(Dict("'<M8[ns]'", "(1,)")),
           Npy(Dict("'<f4x'", "(1,)")),
           Npy(Dict("'<U99999999'", "(1,)")),
           Npy(Dict("[('a', '<f4')]", "(1,)")),
           Npy(Dict("'<f\\x34'", "(1,)")),
           Npy(Dict("'<f4'", "(1)")),
           Npy(Dict("'<f4'", "1")),
           Npy(Dict("'<f4'", "(-1,)")),
           Npy(Dict("'<f4'", "(1 1)")),
           Npy(Dict("'<f4'", "(,)")),
           Npy(Dict("'<f4'", "(1,,)")),
           Npy(Dict("'<f4'", "(1.0,)")),
           Npy(Dict("'<f4'", "(99999999999999999999,)")),
           Npy(Dict("'<f4'", "(2305843009213693952,)")),
           Npy(Dict("'<f4'", "(4294967296, 4294967296)")),
           Npy(Dict("'<f4'", dimensions + ")")),
           Npy("{'descr': '<f4', 'shape': (1,), }"),
           Npy("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,), }"),
           Npy("{'descr': '<f4', 'fortran_order': 1, 'shape': (1,), }"),
           Npy("{'descr': '<f4' 'fortran_order': False, 'shape': (1,), }"),
           Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}"),
           Npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), ,}")}) {
    const auto head = ParseNpyHead(bytes);
    ASSERT_FALSE(head.ok()) << bytes;
    EXPECT_TRUE(head.error().message.starts_with("NPY header: ")) << head.error().message;
  }
}

TEST(Npy, EveryPrefixWaits) {
  const std::string whole = Npy(Dict("'<f4'", "(2, 2)"));
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto head = ParseNpyHead(whole.substr(0, size));
    ASSERT_TRUE(head.ok()) << head.error().message;
    EXPECT_FALSE(head->has_value());
  }
  EXPECT_EQ(Read(whole + "data"), Read(whole));
}

TEST(Npy, HeadsAreNumPysToTheByte) {
  const auto as_numpy = [](const std::string& dict, size_t size) {
    std::string text = dict + std::string(size - 10 - dict.size() - 1, ' ') + "\n";
    return "\x93NUMPY\x01\0"s + static_cast<char>(text.size()) + '\0' + text;
  };
  EXPECT_EQ(MakeNpyHead("<f8", {}), as_numpy(Dict("'<f8'", "()"), 128));
  EXPECT_EQ(MakeNpyHead("<f4", std::array<uint64_t, 1>{10}), as_numpy(Dict("'<f4'", "(10,)"), 128));
  EXPECT_EQ(MakeNpyHead("|b1", std::array<uint64_t, 2>{2, 3}),
            as_numpy(Dict("'|b1'", "(2, 3)"), 128));
  // Here the room for the first size to grow costs another line of 64.
  const std::array<uint64_t, 7> wide{1, 1000000, 1000000, 10000, 10000, 10000, 100};
  EXPECT_EQ(MakeNpyHead("<f4", wide),
            as_numpy(Dict("'<f4'", "(1, 1000000, 1000000, 10000, 10000, 10000, 100)"), 192));
}

RC_GTEST_PROP(NpyProperty, WhatIsWrittenIsRead, ()) {
  auto shape = *rc::gen::container<std::vector<uint64_t>>(rc::gen::inRange<uint64_t>(0, 1000));
  if (shape.size() > 6) shape.resize(6);
  const std::string bytes = MakeNpyHead("<f4", shape);
  RC_ASSERT(bytes.size() % 64 == 0U);
  const NpyHead head = Read(bytes);
  RC_ASSERT(head.shape == shape);
  RC_ASSERT(head.dtype == "<f4");
  RC_ASSERT(!head.fortran_order);
  RC_ASSERT(head.data_offset == bytes.size());
}

RC_GTEST_PROP(NpyProperty, ShapesComeBack, (bool fortran)) {
  const auto shape = *rc::gen::container<std::vector<uint64_t>>(rc::gen::inRange<uint64_t>(0, 9));
  RC_PRE(shape.size() <= 18U);
  std::string tuple = "(";
  uint64_t count = 1;
  for (const uint64_t size : shape) {
    tuple += fmt::format("{},", size);
    count *= size;
  }
  const NpyHead head =
      Read(Npy(fmt::format("{{'descr': '<f8', 'fortran_order': {}, 'shape': {}), }}",
                           fortran ? "True" : "False", tuple)));
  RC_ASSERT(head.shape == shape);
  RC_ASSERT(head.element_count == count);
  RC_ASSERT(head.fortran_order == fortran);
}

RC_GTEST_PROP(NpyProperty, MutatedHeadersAreRefusedOrSound, ()) {
  std::string bytes = Npy(Dict("'<f4'", "(12, 345)"));
  for (int i = *rc::gen::inRange(1, 5); i > 0; --i)
    bytes[*rc::gen::inRange<size_t>(0, 80)] = *rc::gen::arbitrary<char>();
  const auto head = ParseNpyHead(bytes);
  if (!head.ok() || !head->has_value()) return;
  RC_ASSERT((*head)->data_offset <= bytes.size());
  RC_ASSERT((*head)->element_count <= UINT64_MAX / 2 / std::max<size_t>((*head)->item_size, 1));
}

}  // namespace
}  // namespace umbel::tensor
