#include "manager/model.h"

#include <cmath>

namespace umbel::manager {

bool IsBetter(const Round& round, const Project& best) {
  if (!round.accuracy || std::isnan(*round.accuracy)) return false;
  if (best.best_round == 0 || *round.accuracy != best.best_accuracy)
    return best.best_round == 0 || *round.accuracy > best.best_accuracy;
  const bool measured = round.loss && !std::isnan(*round.loss);
  return measured && (std::isnan(best.best_loss) || *round.loss < best.best_loss);
}

}  // namespace umbel::manager
