#include "aggregation/dtype.h"

#include <algorithm>
#include <array>

#include "tensor/quote.h"

namespace umbel::aggregation {
namespace {

constexpr std::string_view kLetters = "biufc";

/// Whether the order of elements in a file depends on the flag.
bool OrderShows(const std::vector<uint64_t>& shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return false;
  return std::count_if(shape.begin(), shape.end(), [](uint64_t size) { return size > 1; }) > 1;
}

std::string ShapeText(const std::vector<uint64_t>& shape) {
  return fmt::format("({})", fmt::join(shape, ", "));
}

}  // namespace

std::string ElementType::Descr() const {
  return fmt::format("{}{}{}", item_size == 1 ? '|' : '<', kLetters[static_cast<size_t>(kind)],
                     item_size);
}

Result<Dtype> ParseDtype(std::string_view descr) {
  struct Known {
    char letter;
    std::string_view sizes;
  };
  constexpr std::array kKnown{Known{'b', " 1 "}, Known{'i', " 1 2 4 8 "}, Known{'u', " 1 2 4 8 "},
                              Known{'f', " 2 4 8 "}, Known{'c', " 8 16 "}};
  const auto refused = [&] {
    return Fail(Code::kInvalidArgument,
                fmt::format("dtype {} cannot be averaged: it is not bool, int, float or complex "
                            "of at most 8 bytes a component",
                            tensor::Quote(descr)));
  };
  if (descr.size() < 3 || descr.size() > 4) return refused();
  const char order = descr[0];
  const std::string_view digits = descr.substr(2);
  for (size_t i = 0; i < kKnown.size(); ++i) {
    if (descr[1] != kKnown[i].letter) continue;
    const std::string wanted = fmt::format(" {} ", digits);
    if (digits.find(' ') != std::string_view::npos ||
        kKnown[i].sizes.find(wanted) == std::string_view::npos)
      return refused();
    const auto size = static_cast<uint8_t>(digits == "16" ? 16 : digits[0] - '0');
    const bool ordered = order == '<' || order == '>' || order == '=';
    if (!ordered && !(order == '|' && size == 1)) return refused();
    return Dtype{{static_cast<Kind>(i), size}, order == '>' && size > 1};
  }
  return refused();
}

ElementType ResultType(ElementType type) {
  if (type.kind == Kind::kFloat || type.kind == Kind::kComplex) return type;
  return {Kind::kFloat, 8};
}

Result<Layout> LayoutOf(const tensor::NpyHead& head) {
  UMBEL_ASSIGN(const Dtype dtype, ParseDtype(head.dtype));
  return Layout{dtype, head.shape, head.fortran_order, head.element_count};
}

Status CheckSame(const Layout& expected, const Layout& got) {
  if (got.dtype.type != expected.dtype.type)
    return Fail(Code::kInvalidArgument,
                fmt::format("dtype {} where {} is expected", got.dtype.type.Descr(),
                            expected.dtype.type.Descr()));
  if (got.shape != expected.shape)
    return Fail(Code::kInvalidArgument,
                fmt::format("shape {} where {} is expected", ShapeText(got.shape),
                            ShapeText(expected.shape)));
  if (got.fortran_order != expected.fortran_order && OrderShows(expected.shape))
    return Fail(Code::kInvalidArgument, fmt::format("{} order where {} order is expected",
                                                    got.fortran_order ? "Fortran" : "C",
                                                    expected.fortran_order ? "Fortran" : "C"));
  return {};
}

}  // namespace umbel::aggregation
