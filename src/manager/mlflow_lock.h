// The pinned packages of an environment with MLflow travel inside the binary. Any thread.
#pragma once

#include <string_view>

namespace umbel::manager {

/// requirements/mlflow.txt, as it was when this was built.
std::string_view MlflowLock();

}  // namespace umbel::manager
