#include "flower/record_json.h"

#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "flower/record_bytes.h"
#include "tensor/quote.h"

namespace umbel::flower {
namespace {

using nlohmann::json;
using tensor::Quote;

constexpr size_t kDepthMax = 16;
// NumPy's own limit is 64 dimensions.
constexpr size_t kDimensionsMax = 64;

/// As json.dumps: everything beyond ASCII is escaped.
std::string Quoted(const std::string& text) { return json(text).dump(-1, ' ', true); }

/// Turns the parser's events into those that our two forms need: values by key of the outermost
/// object, and the items of lists there.
class Events : public nlohmann::json_sax<json> {
 public:
  explicit Events(Budget& budget) : budget_(budget) {}

  Status Parse(std::string_view text) {
    if (json::sax_parse(text.begin(), text.end(), this)) return {};
    if (!failure_.ok()) return failure_;
    return Fail(Code::kInvalidArgument, "the body is not JSON");
  }

  bool null() override { return Other("null"); }
  bool boolean(bool) override { return Other("a bool"); }
  bool number_float(double, const std::string&) override { return Other("not a 64-bit integer"); }
  bool binary(json::binary_t&) override { return Other("bytes"); }
  bool number_integer(int64_t value) override {
    if (depth_ == 2 && list_) return Keep(OnItem(value));
    return Other("an integer");
  }
  bool number_unsigned(uint64_t value) override {
    if (value > INT64_MAX) return Other("not a 64-bit integer");
    return number_integer(static_cast<int64_t>(value));
  }
  bool string(std::string& value) override {
    if (depth_ == 1) return Keep(OnText(value));
    return Other("text");
  }
  bool key(std::string& value) override {
    if (depth_ == 1) key_ = std::move(value);
    return depth_ > 1 || Keep(OnKey());
  }
  bool start_object(size_t) override {
    if (depth_ > 0 && !Other("an object")) return false;
    return Deeper();
  }
  bool start_array(size_t) override {
    if (depth_ == 0) return Keep(Bad("the body", "is a list"));
    if (depth_ == 1) {
      list_ = true;
      if (!Keep(OnList())) return false;
    } else if (!Other("a list")) {
      return false;
    }
    return Deeper();
  }
  bool end_object() override { return Shallower(); }
  bool end_array() override { return Shallower(); }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) override {
    return Keep(Fail(Code::kInvalidArgument, fmt::format("byte {} is not JSON", at)));
  }

 protected:
  static Status Bad(std::string_view what, std::string_view rule) {
    return Fail(Code::kInvalidArgument, fmt::format("{} {}", what, rule));
  }
  const std::string& current_key() const { return key_; }
  std::string Named() const { return Quote(key_); }
  Budget& budget() { return budget_; }

 private:
  virtual Status OnKey() { return {}; }
  virtual Status OnText(std::string& value) = 0;
  virtual Status OnList() = 0;
  virtual Status OnItem(int64_t value) = 0;
  /// A value of a kind that neither form has.
  virtual Status OnOther(std::string_view what) = 0;

  bool Other(std::string_view what) {
    return Keep(depth_ == 0 ? Bad("the body is", what) : OnOther(what));
  }
  bool Keep(Status status) {
    if (status.ok()) return true;
    failure_ = std::move(status);
    return false;
  }
  bool Deeper() {
    if (++depth_ <= kDepthMax) return true;
    return Keep(Bad("the body", "is nested too deep"));
  }
  bool Shallower() {
    if (--depth_ == 1) list_ = false;
    return true;
  }

  Budget& budget_;
  Status failure_;
  std::string key_;
  size_t depth_ = 0;
  bool list_ = false;
};

class NameEvents final : public Events {
 public:
  using Events::Events;
  Ordered<ObjectId> names;

 private:
  Status OnText(std::string& value) override {
    UMBEL_TRY(budget().Take(sizeof names[0] + current_key().size()));
    const auto id = Digest::FromHex(value);
    if (!id.ok()) return Bad(Named(), fmt::format("is {}, not an object id", Quote(value)));
    names.emplace_back(current_key(), *id);
    return {};
  }
  Status OnList() override { return OnOther("a list"); }
  Status OnItem(int64_t) override { return OnOther("an integer"); }
  Status OnOther(std::string_view what) override {
    return Bad(Named(), fmt::format("is {}, not an object id", what));
  }
};

class ArrayEvents final : public Events {
 public:
  using Events::Events;
  ArrayBody array;

  Status CheckAllThere() const {
    for (const Part& part : parts_)
      if (!part.seen) return Bad(Quote(part.name), "is missing");
    return {};
  }

 private:
  struct Part {
    std::string_view name;
    bool list;
    bool seen = false;
  };

  /// What other versions add is passed over.
  Status OnKey() override {
    part_ = nullptr;
    for (Part& part : parts_)
      if (part.name == current_key()) part_ = &part;
    if (part_ == nullptr) return {};
    if (std::exchange(part_->seen, true)) return Bad(Named(), "stands twice");
    return {};
  }
  Status OnText(std::string& value) override {
    if (part_ == nullptr) return {};
    if (part_->list) return OnOther("text");
    UMBEL_TRY(budget().Take(value.size()));
    (part_ == &parts_[0] ? array.dtype : array.stype) = std::move(value);
    return {};
  }
  Status OnList() override {
    return part_ == nullptr || part_->list ? Status{} : OnOther("a list");
  }
  Status OnItem(int64_t value) override {
    if (part_ == nullptr) return {};
    if (value < 0) return Bad(Named(), fmt::format("holds {}", value));
    UMBEL_TRY(budget().Take(sizeof value));
    if (part_ == &parts_[1]) {
      if (array.shape.size() == kDimensionsMax)
        return Bad(Named(), fmt::format("has more than {} dimensions", kDimensionsMax));
      array.shape.push_back(value);
    } else {
      array.chunks.push_back(static_cast<uint64_t>(value));
    }
    return {};
  }
  Status OnOther(std::string_view what) override {
    if (part_ == nullptr) return {};
    return Bad(Named(), fmt::format("is or holds {}", what));
  }

  Part parts_[4] = {{"dtype", false}, {"shape", true}, {"stype", false}, {"arraychunk_ids", true}};
  Part* part_ = nullptr;
};

}  // namespace

std::string WriteNames(const Ordered<ObjectId>& names) {
  std::string text = "{";
  for (const auto& [name, id] : names) {
    if (text.size() > 1) text += ", ";
    text += fmt::format("{}: \"{}\"", Quoted(name), id.Hex());
  }
  return text + "}";
}

std::string WriteArray(const ArrayBody& array) {
  return fmt::format(R"({{"dtype": {}, "shape": [{}], "stype": {}, "arraychunk_ids": [{}]}})",
                     Quoted(array.dtype), fmt::join(array.shape, ", "), Quoted(array.stype),
                     fmt::join(array.chunks, ", "));
}

Result<Ordered<ObjectId>> ReadNames(std::string_view json, Budget& budget) {
  NameEvents events(budget);
  UMBEL_TRY(events.Parse(json));
  UMBEL_TRY(CheckKeys(events.names));
  return std::move(events.names);
}

Result<ArrayBody> ReadArray(std::string_view json, Budget& budget) {
  ArrayEvents events(budget);
  UMBEL_TRY(events.Parse(json));
  UMBEL_TRY(events.CheckAllThere());
  return std::move(events.array);
}

}  // namespace umbel::flower
