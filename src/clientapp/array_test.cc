#include "clientapp/array.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <limits>

namespace umbel::clientapp {
namespace {

using Shape = std::vector<int64_t>;

template <Element T>
Array Make(const std::vector<T>& values, const Shape& shape) {
  auto array = Array::Of<T>(values, shape);
  if (!array.ok()) ADD_FAILURE() << array.error().message;
  return array.ok() ? *std::move(array) : Array();
}

tensor::NpyHead Head(const std::string& dtype, std::vector<uint64_t> shape, size_t item_size,
                     bool fortran_order = false) {
  tensor::NpyHead head;
  head.dtype = dtype;
  head.shape = std::move(shape);
  head.item_size = item_size;
  head.fortran_order = fortran_order;
  head.element_count = 1;
  for (const uint64_t size : head.shape) head.element_count *= size;
  return head;
}

std::string ErrorOf(const Result<Array>& array) {
  return array.ok() ? "no error" : array.error().message;
}

TEST(Array, ElementsAreSpansOfTheirOwnType) {
  Array array = Make<float>({1, 2, 3, 4, 5, 6}, {2, 3});
  EXPECT_EQ(array.dtype(), "float32");
  EXPECT_EQ(array.size(), 6U);
  EXPECT_EQ(array.bytes().size(), 24U);
  array.As<float>().value()[5] = 7;
  EXPECT_EQ(std::as_const(array).As<float>().value()[5], 7);
  EXPECT_EQ(array.As<double>().error().message, "dtype is float32, not float64");
  EXPECT_EQ(array.As<float>(Shape{3, 2}).error().message, "shape is [2, 3], not [3, 2]");
  EXPECT_TRUE(array.As<float>(Shape{2, 3}).ok());
  EXPECT_TRUE(Array::Zeros("bool", Shape{3})->As<bool>().ok());
  EXPECT_EQ(Make<int8_t>({1}, {}).dtype(), "int8");
  EXPECT_EQ(Make<uint64_t>({1}, {}).dtype(), "uint64");
  EXPECT_EQ(Array(), *Array::Zeros("float32", Shape{0}));
}

TEST(Array, WhatCannotBeIsRefused) {
  EXPECT_EQ(ErrorOf(Array::Zeros("float", Shape{1})), "dtype 'float' is unknown");
  EXPECT_EQ(ErrorOf(Array::Zeros("object", Shape{1})), "dtype 'object' is unknown");
  EXPECT_FALSE(Array::Zeros("float24", Shape{1}).ok());
  EXPECT_FALSE(Array::Zeros("float33", Shape{1}).ok());
  EXPECT_FALSE(Array::Zeros("", Shape{1}).ok());
  EXPECT_FALSE(Array::Zeros("<f4", Shape{1}).ok());
  EXPECT_FALSE(Array::Zeros("<U1', 'x': '", Shape{1}).ok());
  EXPECT_EQ(ErrorOf(Array::Zeros("float32", Shape{2, -1})), "shape [2, -1] has a negative size");
  EXPECT_FALSE(Array::Zeros("float32", Shape(65, 1)).ok());
  EXPECT_FALSE(Array::Zeros("float32", Shape{1L << 40, 1L << 40}).ok());
  EXPECT_EQ(ErrorOf(Array::Of<float>(std::vector<float>{1, 2}, Shape{3})),
            "values of 8 bytes for shape [3] of float32, which has 12 bytes");
  EXPECT_FALSE(Array::FromNpy("").ok());
  EXPECT_FALSE(Array::FromNpy("PK\3\4").ok());
  const std::string npy = Make<float>({1, 2}, {2}).ToNpy();
  EXPECT_EQ(ErrorOf(Array::FromNpy(npy.substr(0, 100))), "NPY header: it is not whole");
  EXPECT_EQ(ErrorOf(Array::FromNpy(npy.substr(0, npy.size() - 1))),
            "NPY data has 7 bytes, its shape makes 8");
  EXPECT_FALSE(Array::FromNpy(npy + "x").ok());
}

TEST(Array, EveryDtypeComesBack) {
  for (const char* dtype :
       {"bool",       "int8",       "int16",   "int32",   "int64",   "uint8",    "uint16",
        "uint32",     "uint64",     "float16", "float32", "float64", "float128", "complex64",
        "complex128", "complex256", "<U3",     "|S5",     "|V2",     "<U0",      "|S0"}) {
    for (const Shape& shape : {Shape{}, Shape{0}, Shape{3}, Shape{2, 0, 4}, Shape{2, 3}}) {
      const auto array = Array::Zeros(dtype, shape);
      ASSERT_TRUE(array.ok()) << dtype << ErrorOf(array);
      EXPECT_EQ(array->dtype(), dtype);
      EXPECT_EQ(*Array::FromNpy(array->ToNpy()), *array) << dtype;
    }
  }
}

TEST(Array, FortranOrderIsUndone) {
  // [[1, 2, 3], [4, 5, 6]], the first index running fastest.
  const auto array = Array::FromNpy(Head("|i1", {2, 3}, 1, true), {1, 4, 2, 5, 3, 6});
  ASSERT_TRUE(array.ok()) << ErrorOf(array);
  EXPECT_EQ(*array, Make<int8_t>({1, 2, 3, 4, 5, 6}, {2, 3}));
}

TEST(Array, ForeignByteOrderIsUndone) {
  EXPECT_EQ(Array::FromNpy(Head(">i2", {2}, 2), {0, 1, 2, 0}).value(),
            Make<int16_t>({1, 512}, {2}));
  const auto complex = Array::FromNpy(Head(">c8", {1}, 8), {1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_TRUE(std::ranges::equal(complex->bytes(), std::vector<char>{4, 3, 2, 1, 8, 7, 6, 5}));
  const auto text = Array::FromNpy(Head(">U2", {1}, 8), {0, 0, 0, 'a', 0, 0, 0, 'b'});
  EXPECT_TRUE(std::ranges::equal(text->bytes(), std::vector<char>{'a', 0, 0, 0, 'b', 0, 0, 0}));
  const auto bytes = Array::FromNpy(Head(">S2", {1}, 2), {'a', 'b'});
  EXPECT_TRUE(std::ranges::equal(bytes->bytes(), std::vector<char>{'a', 'b'}));
}

TEST(Array, ElementsWithoutBytesCostNoTime) {
  const uint64_t many = uint64_t{1} << 62;
  for (const char* dtype : {"|S0", ">S0", ">U0"})
    for (const bool fortran : {false, true})
      EXPECT_EQ(Array::FromNpy(Head(dtype, {many}, 0, fortran), {})->size(), many);
}

RC_GTEST_PROP(ArrayProperty, FortranOrderIsTheTransposedsCOrder, ()) {
  const auto rows = *rc::gen::inRange<size_t>(1, 6);
  const auto middle = *rc::gen::inRange<size_t>(1, 6);
  const auto columns = *rc::gen::inRange<size_t>(1, 6);
  const auto values =
      *rc::gen::container<std::vector<char>>(rows * middle * columns, rc::gen::arbitrary<char>());
  std::vector<char> fortran(values.size());
  for (size_t r = 0; r < rows; ++r)
    for (size_t m = 0; m < middle; ++m)
      for (size_t c = 0; c < columns; ++c)
        fortran[r + rows * (m + middle * c)] = values[(r * middle + m) * columns + c];
  const auto array = Array::FromNpy(Head("|u1", {rows, middle, columns}, 1, true), fortran);
  RC_ASSERT(array.ok());
  RC_ASSERT(std::ranges::equal(array->bytes(), values));
}

RC_GTEST_PROP(ArrayProperty, ValuesComeBack, (const std::vector<double>& values)) {
  const Array array = Make<double>(values, {static_cast<int64_t>(values.size())});
  RC_ASSERT(*Array::FromNpy(array.ToNpy()) == array);
  RC_ASSERT(std::ranges::equal(array.As<double>().value(), values));
}

}  // namespace
}  // namespace umbel::clientapp
