#include "targets.h"

namespace umbel::fuzz {

std::span<const Target> Targets() {
  static constexpr Target kTargets[] = {
      {"object_head", ObjectHead},
      {"object_tree", ObjectTree},
      {"npy_head", NpyHead},
      {"safetensors", Safetensors},
      {"frames", Frames},
      {"fab_zip", FabZip},
      {"fab_config", FabConfig},
      {"node_auth", NodeAuth},
      {"superexec_auth", SuperExecAuth},
      {"iso_time", IsoTime},
      {"requests", Requests},
      {"http_response", HttpResponse},
      {"records", Records},
      {"worker_frame", WorkerFrame},
      {"node_key", NodeKey},
      {"trusted_entities", TrustedEntities},
      {"verification", Verification},
      {"node_config", NodeConfig},
      {"run_config", RunConfig},
      {"partial_aggregate", PartialAggregate},
      {"xgb_model", XgbModel},
      {"exact_sum", ExactSum},
      {"mlflow_answer", MlflowAnswer},
      {"data_request", DataRequest},
      {"data_images", DataImages},
  };
  return kTargets;
}

}  // namespace umbel::fuzz
