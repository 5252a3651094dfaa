// Tables from files of users and from images. Functions; any thread.
#pragma once

#include <arrow/table.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "dataset/images.h"

namespace umbel::dataserver {

/// A .parquet or .csv file, whole.
/// errors  kInvalidArgument: another kind of file, or one that is not what its name says.
Result<std::shared_ptr<arrow::Table>> LoadTable(const std::string& path);

/// MD5 of a file, as md5sum prints it: what FLOps' clients name files by.
Result<std::string> DigestOfFile(const std::string& path);
/// MD5 of the table's schema and rows.
Result<std::string> DigestOf(const arrow::Table& table);

/// Columns `image`, a struct of `bytes` (a PNG) and `path` (null), and `label`, int64; the schema's
/// metadata says so to Hugging Face's `datasets`, which then gives images and names of labels.
/// rows  of the images; each may stand in it as often as one likes.
Result<std::shared_ptr<arrow::Table>> ImageTable(const dataset::LabelledImages& images,
                                                 std::span<const uint32_t> rows);

}  // namespace umbel::dataserver
