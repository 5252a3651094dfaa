// The folder of a data server: Parquet files that appear whole or not at all, within quotas. Any
// thread may call; calls wait for the disk.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/guarded.h"
#include "base/result.h"
#include "dataserver/parquet_file.h"

namespace umbel::dataserver {

struct Quotas {
  uint64_t bytes_max = uint64_t{64} << 30;  // of all files, and what is being put
  uint64_t files_max = 10'000;
  uint64_t put_bytes_max = uint64_t{16} << 30;
  uint64_t put_rows_max = 1'000'000'000;
  uint64_t puts_max = 16;  // at once
};

struct Entry {
  std::string name;
  std::string path;
  Summary summary;
};

class Incoming;

class Shelf {
 public:
  /// folder  of the files; whoever puts a Parquet file there by hand has it served.
  /// work    for files that are being put, on the same file system; swept.
  static Result<std::unique_ptr<Shelf>> Open(std::string folder, std::string work, Quotas quotas);

  /// Files with one of these tags, by name. What is no readable Parquet file is left out, and
  /// logged once.
  Result<std::vector<Entry>> List(const std::vector<std::string>& tags);
  /// Why files with one of these tags are left out: a sentence each, with the file's name.
  Result<std::vector<std::string>> Damaged(const std::vector<std::string>& tags);
  /// errors  kInvalidArgument: no file can have this name; kNotFound; kDataLoss: damaged.
  Result<Entry> Find(std::string_view name);
  /// How many readable files there are of each tag.
  Result<std::map<std::string, uint64_t>> Tags();

  /// A file that is to become `name`, in place of one of that name.
  /// errors  kInvalidArgument: the name, or a schema Parquet cannot hold; kResourceExhausted.
  Result<std::unique_ptr<Incoming>> Begin(const std::string& name,
                                          const std::shared_ptr<arrow::Schema>& schema);
  /// errors  kInvalidArgument, kNotFound.
  Status Drop(std::string_view name);

  struct Usage {
    uint64_t files = 0;
    uint64_t bytes = 0;
  };
  Result<Usage> Use() const;

  const std::string& folder() const { return folder_; }
  const Quotas& quotas() const { return quotas_; }

 private:
  friend class Incoming;

  /// A file as it was when its footer was read.
  struct Known {
    uint64_t inode = 0;
    uint64_t bytes = 0;
    int64_t changed_ns = 0;
    Result<Summary> summary;
  };
  struct Pending {
    uint64_t puts = 0;
    uint64_t bytes = 0;   // of files that are being put
    uint64_t stored = 0;  // of files on the shelf, when it was last looked at
    uint64_t number = 0;  // of the next temporary file
  };

  Shelf(std::string folder, std::string work, Quotas quotas)
      : folder_(std::move(folder)), work_(std::move(work)), quotas_(quotas) {}
  std::string PathOf(std::string_view name) const { return folder_ + "/" + std::string(name); }
  Result<std::vector<std::string>> Names() const;
  /// nullopt: it is not there, or no file.
  std::optional<Result<Summary>> Look(const std::string& name);
  Status Charge(uint64_t bytes);
  void Refund(uint64_t bytes, bool ended);

  const std::string folder_;
  const std::string work_;
  const Quotas quotas_;
  Guarded<std::map<std::string, Known>> known_;
  Guarded<Pending> pending_;
};

}  // namespace umbel::dataserver
