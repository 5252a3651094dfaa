#include "manager/sla.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "dataset/names.h"
#include "tensor/quote.h"

namespace umbel::manager {
namespace {

using nlohmann::json;

constexpr int64_t kRoundsMax = 10'000;
constexpr int64_t kClientsMax = 10'000;
constexpr int64_t kMemoryMax = 16'000'000;  // MB
constexpr int64_t kVcpusMax = 4096;
constexpr size_t kTextMax = 2048;
constexpr size_t kListMax = 100;

/// What a value is, for people: `"abc"`, `[1,2]`, cut where it is long.
std::string Show(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

bool HasControl(std::string_view text) {
  return std::any_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

/// The fields of one object: read by name; what nobody asks for is unknown.
class Fields {
 public:
  Fields(const json& object, std::string path) : object_(object), path_(std::move(path)) {}

  std::string At(std::string_view name) const {
    return path_.empty() ? std::string(name) : fmt::format("{}.{}", path_, name);
  }
  tl::unexpected<Error> Bad(std::string_view name, const std::string& why) const {
    return Fail(Code::kInvalidArgument, fmt::format("{}: {}", At(name), why));
  }

  const json* Find(const std::string& name) {
    asked_.insert(name);
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  Status Text(const std::string& name, std::string* out, bool required, size_t max = kTextMax) {
    const json* value = Find(name);
    if (!value) return required ? Status(Bad(name, "is missing")) : Status();
    if (!value->is_string()) return Bad(name, fmt::format("{} is not text", Show(*value)));
    *out = value->get<std::string>();
    if (out->empty() && required) return Bad(name, "is empty");
    if (out->size() > max)
      return Bad(name, fmt::format("is {} bytes long; at most {} are taken", out->size(), max));
    if (HasControl(*out)) return Bad(name, "holds a control character");
    return {};
  }

  Status Flag(const std::string& name, bool* out) {
    const json* value = Find(name);
    if (!value) return {};
    if (!value->is_boolean())
      return Bad(name, fmt::format("{} is neither true nor false", Show(*value)));
    *out = value->get<bool>();
    return {};
  }

  template <typename T>
  Status Number(const std::string& name, T* out, int64_t low, int64_t high) {
    const json* value = Find(name);
    if (!value) return {};
    const bool whole = value->is_number_integer() &&
                       !(value->is_number_unsigned() && value->get<uint64_t>() > (1ull << 62));
    if (!value->is_number()) return Bad(name, fmt::format("{} is not a number", Show(*value)));
    if (!whole || value->get<int64_t>() < low || value->get<int64_t>() > high)
      return Bad(name, fmt::format("{} is not in {} to {}", Show(*value), low, high));
    *out = static_cast<T>(value->get<int64_t>());
    return {};
  }

  Status Texts(const std::string& name, std::vector<std::string>* out, size_t each_max) {
    const json* value = Find(name);
    if (!value) return {};
    if (!value->is_array()) return Bad(name, fmt::format("{} is not a list", Show(*value)));
    if (value->size() > kListMax)
      return Bad(name,
                 fmt::format("has {} entries; at most {} are taken", value->size(), kListMax));
    out->clear();
    for (size_t i = 0; i < value->size(); ++i) {
      const json& each = (*value)[i];
      const std::string at = fmt::format("{}[{}]", name, i);
      if (!each.is_string()) return Bad(at, fmt::format("{} is not text", Show(each)));
      std::string text = each.get<std::string>();
      if (text.empty() || text.size() > each_max || HasControl(text))
        return Bad(at, fmt::format("{} is not 1 to {} printable bytes", Show(each), each_max));
      if (std::find(out->begin(), out->end(), text) == out->end()) out->push_back(std::move(text));
    }
    return {};
  }

  /// A nested object; none is an empty one.
  Result<Fields> Object(const std::string& name) {
    static const json kNone = json::object();
    const json* value = Find(name);
    if (!value) return Fields(kNone, At(name));
    if (!value->is_object()) return Bad(name, fmt::format("{} is not an object", Show(*value)));
    return Fields(*value, At(name));
  }

  void Unknown(std::vector<std::string>* out) const {
    for (const auto& [name, value] : object_.items())
      if (!asked_.contains(name) && out->size() < kListMax) out->push_back(At(name.substr(0, 100)));
  }

 private:
  const json& object_;
  std::string path_;
  std::set<std::string> asked_;
};

Status OneOf(const Fields& fields, const std::string& name, const std::string& value,
             std::initializer_list<std::string_view> choices) {
  std::string all;
  for (const std::string_view choice : choices) {
    if (value == choice) return {};
    all += (all.empty() ? "" : ", ") + std::string(choice);
  }
  return fields.Bad(name, fmt::format("{} is not one of {}", tensor::Quote(value), all));
}

Status ReadRepository(Fields& top, Sla* sla) {
  UMBEL_TRY(top.Text("ml_repo_url", &sla->repository, true));
  if (const size_t hash = sla->repository.rfind('#'); hash != std::string::npos) {
    sla->ref = sla->repository.substr(hash + 1);
    sla->repository.resize(hash);
    const bool fits = !sla->ref.empty() && sla->ref.size() <= 250 && sla->ref.front() != '-' &&
                      sla->ref.find("..") == std::string::npos &&
                      std::all_of(sla->ref.begin(), sla->ref.end(), [](char c) {
                        return std::isalnum(static_cast<unsigned char>(c)) || c == '.' ||
                               c == '_' || c == '/' || c == '-' || c == '+';
                      });
    if (!fits)
      return top.Bad("ml_repo_url", fmt::format("{} behind its '#' names no branch, tag or commit",
                                                tensor::Quote(sla->ref)));
  }
  const std::string& url = sla->repository;
  const bool scp = url.find("://") == std::string::npos && url.find('@') != std::string::npos &&
                   url.find(':') != std::string::npos;
  const auto is = [&](std::string_view scheme) {
    return url.starts_with(scheme) && url.size() > scheme.size();
  };
  if (url.find("::") != std::string::npos || url.starts_with('-') ||
      !(is("https://") || is("http://") || is("ssh://") || is("git://") || is("file:///") ||
        is("/") || scp))
    return top.Bad(
        "ml_repo_url",
        fmt::format("{} is no repository: it takes https://…, http://…, ssh://…, git://…, "
                    "user@host:path, file:///… or an absolute path",
                    tensor::Quote(url)));
  const size_t scheme = url.find("://");
  if (scheme != std::string::npos && !url.starts_with("ssh")) {
    const size_t slash = std::min(url.find('/', scheme + 3), url.size());
    const size_t at = url.find('@', scheme);
    if (at < slash && url.find(':', scheme + 3) < at)
      return top.Bad("ml_repo_url",
                     "holds a password, which logs would show: give it as ml_repo_token");
  }
  return {};
}

Status ReadTraining(Fields training, Sla* sla) {
  std::string mode = "classic";
  UMBEL_TRY(training.Text("mode", &mode, false));
  UMBEL_TRY(OneOf(training, "mode", mode, {"classic", "hierarchical"}));
  if (mode == "hierarchical")
    return training.Bad("mode", "hierarchical is not served by this version: use classic");
  UMBEL_TRY(training.Texts("data_tags", &sla->data_tags, dataset::kTagBytesMax));
  for (const std::string& tag : sla->data_tags)
    if (const Status fits = dataset::CheckTag(tag); !fits.ok())
      return training.Bad("data_tags", fits.error().message);
  UMBEL_TRY(training.Number("training_cycles", &sla->cycles, 1, kRoundsMax));
  UMBEL_TRY(training.Number("training_rounds", &sla->rounds, 1, kRoundsMax));
  UMBEL_TRY(training.Number("min_available_clients", &sla->min_available, 1, kClientsMax));
  UMBEL_TRY(training.Number("min_fit_clients", &sla->min_fit, 1, kClientsMax));
  UMBEL_TRY(training.Number("min_evaluate_clients", &sla->min_evaluate, 1, kClientsMax));
  // As many learners are deployed as are to be available: more would be waited for for ever.
  for (const auto& [name, value] : {std::pair("min_fit_clients", sla->min_fit),
                                    std::pair("min_evaluate_clients", sla->min_evaluate)})
    if (value > sla->min_available)
      return training.Bad(name, fmt::format("{} is more than min_available_clients, {}: so many "
                                            "learners will never be there",
                                            value, sla->min_available));
  training.Unknown(&sla->unknown);
  return {};
}

/// The document as an object that is not too deep.
Result<json> ParseDocument(std::string_view text) {
  if (text.size() > kSlaBytesMax)
    return Fail(Code::kInvalidArgument,
                fmt::format("an SLA of {} bytes; at most {} are taken", text.size(), kSlaBytesMax));
  json document;
  // Deep nesting would exhaust the stack of whoever destroys it.
  const auto shallow = [](int depth, json::parse_event_t, json&) {
    if (depth > 16) throw std::length_error("deep");
    return true;
  };
  try {
    document = json::parse(text, shallow, true);
  } catch (const std::length_error&) {
    return Fail(Code::kInvalidArgument, "the SLA is nested too deeply");
  } catch (const json::exception& error) {
    return Fail(Code::kInvalidArgument,
                fmt::format("the SLA is not JSON: {}", std::string(error.what()).substr(0, 200)));
  }
  if (!document.is_object())
    return Fail(Code::kInvalidArgument,
                fmt::format("the SLA is {}, not an object", Show(document)));
  return document;
}

}  // namespace

Result<Sla> ParseSla(std::string_view text) {
  UMBEL_ASSIGN(const json document, ParseDocument(text));
  Fields top(document, "");
  Sla sla;
  UMBEL_TRY(top.Text("customerID", &sla.customer, true, 100));
  UMBEL_TRY(top.Flag("verbose", &sla.verbose));
  UMBEL_TRY(ReadRepository(top, &sla));
  UMBEL_TRY(top.Text("ml_repo_token", &sla.token, false));
  UMBEL_TRY(top.Text("ml_model_flavor", &sla.flavor, true));
  UMBEL_TRY(
      OneOf(top, "ml_model_flavor", sla.flavor, {"sklearn", "pytorch", "tensorflow", "keras"}));
  UMBEL_TRY(top.Flag("use_devel_base_images", &sla.devel_images));
  UMBEL_TRY(top.Texts("supported_platforms", &sla.platforms, 64));
  if (sla.platforms.empty()) return top.Bad("supported_platforms", "is empty");
  for (const std::string& platform : sla.platforms)
    UMBEL_TRY(OneOf(top, "supported_platforms", platform, {"linux/amd64", "linux/arm64"}));
  if (sla.devel_images && sla.platforms != std::vector<std::string>{"linux/amd64"})
    return top.Bad("use_devel_base_images",
                   "goes with supported_platforms [\"linux/amd64\"] alone: leave one of them away");
  UMBEL_ASSIGN(Fields training, top.Object("training_configuration"));
  UMBEL_TRY(ReadTraining(std::move(training), &sla));
  std::vector<std::string> steps;
  UMBEL_TRY(top.Texts("post_training_steps", &steps, 64));
  for (const std::string& step : steps) {
    UMBEL_TRY(OneOf(top, "post_training_steps", step,
                    {"build_image_for_trained_model", "deploy_trained_model_image"}));
    (step.starts_with("build") ? sla.build_image : sla.serve) = true;
  }
  UMBEL_ASSIGN(Fields resources, top.Object("resource_constraints"));
  UMBEL_TRY(resources.Number("memory", &sla.memory_mb, 1, kMemoryMax));
  UMBEL_TRY(resources.Number("vcpus", &sla.vcpus, 1, kVcpusMax));
  UMBEL_TRY(resources.Number("storage", &sla.storage_mb, 0, kMemoryMax));
  resources.Unknown(&sla.unknown);
  top.Unknown(&sla.unknown);
  return sla;
}

Result<MockSla> ParseMockSla(std::string_view text) {
  UMBEL_ASSIGN(const json document, ParseDocument(text));
  Fields top(document, "");
  MockSla sla;
  UMBEL_TRY(top.Text("customerID", &sla.customer, true, 100));
  UMBEL_ASSIGN(Fields mock, top.Object("mock_data_configuration"));
  UMBEL_TRY(mock.Text("dataset_name", &sla.dataset, false));
  UMBEL_TRY(OneOf(mock, "dataset_name", sla.dataset, {"mnist", "fashion-mnist", "digits"}));
  UMBEL_TRY(mock.Number("number_of_partitions", &sla.partitions, 1, kClientsMax));
  // FLOps's default, "", is a tag that nobody can ask for.
  UMBEL_TRY(mock.Text("data_tag", &sla.tag, true, dataset::kTagBytesMax));
  if (const Status tag = dataset::CheckTag(sla.tag); !tag.ok())
    return mock.Bad("data_tag", tag.error().message);
  return sla;
}

std::string ToJson(const Sla& sla) {
  json steps = json::array();
  if (sla.build_image) steps.push_back("build_image_for_trained_model");
  if (sla.serve) steps.push_back("deploy_trained_model_image");
  const json out = {
      {"customerID", sla.customer},
      {"verbose", sla.verbose},
      {"ml_repo_url", sla.ref.empty() ? sla.repository : sla.repository + "#" + sla.ref},
      {"ml_model_flavor", sla.flavor},
      {"use_devel_base_images", sla.devel_images},
      {"supported_platforms", sla.platforms},
      {"training_configuration",
       {{"mode", "classic"},
        {"data_tags", sla.data_tags},
        {"training_cycles", sla.cycles},
        {"training_rounds", sla.rounds},
        {"min_available_clients", sla.min_available},
        {"min_fit_clients", sla.min_fit},
        {"min_evaluate_clients", sla.min_evaluate}}},
      {"post_training_steps", steps},
      {"resource_constraints",
       {{"memory", sla.memory_mb}, {"vcpus", sla.vcpus}, {"storage", sla.storage_mb}}}};
  return out.dump();
}

}  // namespace umbel::manager
