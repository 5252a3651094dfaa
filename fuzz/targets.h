// One function for each decoder of outside bytes. libFuzzer drives one per binary; the plain test
// runs every file of fuzz/corpus through its target. Each may be called from one thread at a time.
#pragma once

#include <span>
#include <string_view>

namespace umbel::fuzz {

void ObjectHead(std::string_view bytes);
void ObjectTree(std::string_view bytes);
void NpyHead(std::string_view bytes);
void Safetensors(std::string_view bytes);
void Frames(std::string_view bytes);
void FabZip(std::string_view bytes);
void FabConfig(std::string_view bytes);
void NodeAuth(std::string_view bytes);
void SuperExecAuth(std::string_view bytes);
void IsoTime(std::string_view bytes);
void Requests(std::string_view bytes);
void HttpResponse(std::string_view bytes);
void Records(std::string_view bytes);
void WorkerFrame(std::string_view bytes);
void NodeKey(std::string_view bytes);
void TrustedEntities(std::string_view bytes);
void Verification(std::string_view bytes);
void NodeConfig(std::string_view bytes);
void RunConfig(std::string_view bytes);
void PartialAggregate(std::string_view bytes);
void XgbModel(std::string_view bytes);
void ExactSum(std::string_view bytes);
void MlflowAnswer(std::string_view bytes);
void DataRequest(std::string_view bytes);
void DataImages(std::string_view bytes);

struct Target {
  std::string_view name;  // of the binary and of the corpus folder
  void (*run)(std::string_view bytes);
};

std::span<const Target> Targets();

}  // namespace umbel::fuzz
