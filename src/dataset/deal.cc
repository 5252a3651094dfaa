#include "dataset/deal.h"

#include <algorithm>

namespace umbel::dataset {
namespace {

bool ByName(const DealtFile& a, const DealtFile& b) { return a.name < b.name; }

std::vector<Share> DealFiles(std::vector<DealtFile> files, size_t learners) {
  std::stable_sort(files.begin(), files.end(),
                   [](const DealtFile& a, const DealtFile& b) { return a.rows > b.rows; });
  std::vector<Share> shares(learners);
  std::vector<uint64_t> rows(learners, 0);
  for (DealtFile& file : files) {
    const size_t to =
        static_cast<size_t>(std::min_element(rows.begin(), rows.end()) - rows.begin());
    rows[to] += file.rows;
    shares[to].push_back({std::move(file.name), 0, 1, file.rows});
  }
  for (Share& share : shares)
    std::sort(share.begin(), share.end(),
              [](const Piece& a, const Piece& b) { return a.name < b.name; });
  return shares;
}

std::vector<Share> DealRows(const std::vector<DealtFile>& files, size_t learners) {
  std::vector<Share> shares(learners);
  uint64_t before = 0;  // rows of the files so far
  for (const DealtFile& file : files) {
    for (size_t learner = 0; learner < learners; ++learner) {
      const uint64_t first = (learner + learners - before % learners) % learners;
      if (first >= file.rows) continue;
      const uint64_t rows = (file.rows - first + learners - 1) / learners;
      shares[learner].push_back({file.name, first, learners, rows});
    }
    before += file.rows;
  }
  return shares;
}

}  // namespace

Result<std::vector<Share>> Deal(std::vector<DealtFile> files, size_t learners) {
  UMBEL_CHECK(learners > 0);
  std::erase_if(files, [](const DealtFile& file) { return file.rows == 0; });
  std::sort(files.begin(), files.end(), ByName);
  uint64_t rows = 0;
  for (const DealtFile& file : files) rows += file.rows;
  if (rows < learners)
    return Fail(Code::kFailedPrecondition,
                fmt::format("{} rows cannot be shared out among {} learners", rows, learners));
  return files.size() >= learners ? DealFiles(std::move(files), learners)
                                  : DealRows(files, learners);
}

}  // namespace umbel::dataset
