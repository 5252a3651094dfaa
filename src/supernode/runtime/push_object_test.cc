#include "supernode/runtime/push_object.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "flwr/common.pb.h"

namespace umbel::supernode {
namespace {

std::string Serialized(const std::string& id, const std::string& content) {
  flwr::proto::PushObjectRequest request;
  request.mutable_node()->set_node_id(7);
  request.set_run_id(~uint64_t{0});
  request.set_object_id(id);
  request.set_object_content(content);
  request.set_session_id("session");
  return request.SerializeAsString();
}

RC_GTEST_PROP(PushObject, TheContentIsFoundAsSoonAsItsLengthIsHere, (const std::string& id)) {
  const std::string content(*rc::gen::inRange<size_t>(1, 300), 'x');
  const std::string bytes = Serialized(std::string(id.size(), 'i'), content);
  const size_t begin = bytes.rfind(content);  // from the front, 120 of 'x' begin with their length
  for (size_t n = 0; n <= bytes.size(); ++n) {
    const FieldStart start = FindField(std::string_view(bytes).substr(0, n), 4);
    RC_ASSERT(!start.broken);
    RC_ASSERT(start.found == (n >= begin));
    if (!start.found) continue;
    RC_ASSERT(start.begin == begin);
    RC_ASSERT(start.size == content.size());
    flwr::proto::PushObjectRequest fields;
    RC_ASSERT(fields.ParseFromString(bytes.substr(0, start.fields_end)));
    RC_ASSERT(fields.object_id().size() == id.size());
  }
}

RC_GTEST_PROP(PushObject, AnyBytesAreReadWithinTheirBounds, (const std::vector<uint8_t>& raw)) {
  const std::string bytes(raw.begin(), raw.end());
  const FieldStart start = FindField(bytes, 4);
  if (start.found) RC_ASSERT(start.begin <= bytes.size() && start.fields_end < start.begin);
}

TEST(PushObject, AGroupOrAnEndlessTagIsBroken) {
  EXPECT_TRUE(FindField("\x0b", 4).broken);
  EXPECT_TRUE(FindField(std::string(10, '\xff'), 4).broken);
  EXPECT_FALSE(FindField(std::string(9, '\xff'), 4).broken);
}

}  // namespace
}  // namespace umbel::supernode
