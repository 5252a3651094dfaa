#include "dataserver/parquet_file.h"

#include <arrow/array/builder_primitive.h>
#include <arrow/compute/api_vector.h>
#include <arrow/datum.h>
#include <arrow/io/file.h>
#include <parquet/arrow/reader.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include "base/file.h"
#include "dataserver/arrow_status.h"
#include "tensor/quote.h"

namespace umbel::dataserver {
namespace {

constexpr int64_t kBatchBytes = int64_t{1} << 20;
constexpr int64_t kBatchRowsMax = 65536;
constexpr int64_t kReadBytes = int64_t{1} << 18;

Error Damaged(const std::string& name, const Error& error) {
  return {Code::kDataLoss,
          fmt::format("file {} is not a readable Parquet file: {}", tensor::Quote(name, 200),
                      error.message),
          0};
}

Result<std::unique_ptr<parquet::arrow::FileReader>> Open(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    Error error = SystemError("open", std::filesystem::path(path).filename().native());
    return Fail(std::move(error));
  }
  return Caught([&]() -> Result<std::unique_ptr<parquet::arrow::FileReader>> {
    // Never mapped: a file that is cut while it is read would end the process.
    UMBEL_ASSIGN(auto file, From(arrow::io::ReadableFile::Open(path)));
    parquet::ReaderProperties properties;
    properties.enable_buffered_stream();
    properties.set_buffer_size(kReadBytes);
    properties.set_page_checksum_verification(true);  // of pages that have one: ours
    parquet::arrow::FileReaderBuilder builder;
    UMBEL_TRY(From(builder.Open(std::move(file), properties)));
    const auto metadata = builder.raw_reader()->metadata();
    int64_t bytes = 0;
    for (int i = 0; i < metadata->num_row_groups(); ++i)
      bytes += std::max<int64_t>(metadata->RowGroup(i)->total_byte_size(), 0);
    const int64_t rows = std::max<int64_t>(metadata->num_rows(), 1);
    parquet::ArrowReaderProperties arrow_properties;
    arrow_properties.set_batch_size(
        std::clamp<int64_t>(kBatchBytes / std::max<int64_t>(bytes / rows, 1), 1, kBatchRowsMax));
    arrow_properties.set_pre_buffer(false);
    builder.properties(arrow_properties);
    return From(builder.Build());
  });
}

/// Every step-th row from the first on, with errors that name the file.
class PieceReader final : public arrow::RecordBatchReader {
 public:
  PieceReader(std::string name, uint64_t first, uint64_t step,
              std::unique_ptr<parquet::arrow::FileReader> file,
              std::unique_ptr<arrow::RecordBatchReader> rows)
      : name_(std::move(name)),
        next_(first),
        step_(step),
        file_(std::move(file)),
        rows_(std::move(rows)) {}

  std::shared_ptr<arrow::Schema> schema() const override { return rows_->schema(); }

  arrow::Status ReadNext(std::shared_ptr<arrow::RecordBatch>* out) override {
    const Status read = Caught([&]() -> Status { return Read(out); });
    return read.ok() ? arrow::Status::OK() : ToArrow(Damaged(name_, read.error()));
  }

 private:
  Status Read(std::shared_ptr<arrow::RecordBatch>* out) {
    for (;;) {
      UMBEL_TRY(From(rows_->ReadNext(out)));
      if (*out == nullptr) return {};
      const auto rows = static_cast<uint64_t>((*out)->num_rows());
      if (step_ == 1 && next_ <= before_) {
        before_ += rows;
        return {};
      }
      arrow::UInt64Builder wanted;
      for (; next_ < before_ + rows; next_ += step_)
        UMBEL_TRY(From(wanted.Append(next_ - before_)));
      before_ += rows;
      if (wanted.length() == 0) continue;
      UMBEL_ASSIGN(const auto indices, From(wanted.Finish()));
      UMBEL_ASSIGN(const arrow::Datum taken,
                   From(arrow::compute::Take(arrow::Datum(*out), arrow::Datum(indices),
                                             arrow::compute::TakeOptions::NoBoundsCheck())));
      *out = taken.record_batch();
      return {};
    }
  }

  const std::string name_;
  uint64_t before_ = 0;  // rows that were read
  uint64_t next_;        // the row that is wanted next
  const uint64_t step_;
  std::unique_ptr<parquet::arrow::FileReader> file_;  // outlives rows_
  std::unique_ptr<arrow::RecordBatchReader> rows_;
};

}  // namespace

Result<Summary> Inspect(const std::string& path) {
  auto summary = [&]() -> Result<Summary> {
    UMBEL_ASSIGN(const auto file, Open(path));
    return Caught([&]() -> Result<Summary> {
      Summary found;
      UMBEL_TRY(From(file->GetSchema(&found.schema)));
      const int64_t rows = file->parquet_reader()->metadata()->num_rows();
      if (rows < 0) return Fail(Code::kDataLoss, fmt::format("{} rows", rows));
      found.rows = static_cast<uint64_t>(rows);
      found.bytes = std::filesystem::file_size(path);
      return found;
    });
  }();
  if (summary.ok() || summary.error().code == Code::kNotFound) return summary;
  return Fail(Damaged(std::filesystem::path(path).filename(), summary.error()));
}

Result<std::shared_ptr<arrow::RecordBatchReader>> OpenRows(const std::string& path,
                                                           const dataset::Piece& piece) {
  auto file = Open(path);
  if (!file.ok() && file.error().code == Code::kNotFound) return Fail(file.error());
  if (!file.ok()) return Fail(Damaged(piece.name, file.error()));
  auto rows = Caught([&] { return From((*file)->GetRecordBatchReader()); });
  if (!rows.ok()) return Fail(Damaged(piece.name, rows.error()));
  return std::make_shared<PieceReader>(piece.name, piece.first, piece.step, std::move(*file),
                                       std::move(*rows));
}

}  // namespace umbel::dataserver
