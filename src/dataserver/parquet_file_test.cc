#include "dataserver/parquet_file.h"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/io/file.h>
#include <arrow/table.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>
#include <rapidcheck.h>

#include "base/file.h"
#include "base/testing.h"
#include "dataserver/arrow_status.h"

namespace umbel::dataserver {
namespace {

using umbel::testing::TempDir;

/// Rows 0, 1, … in row groups of `group`.
Status WriteRows(const std::string& path, int64_t rows, int64_t group) {
  return Caught([&]() -> Status {
    arrow::Int64Builder builder;
    for (int64_t i = 0; i < rows; ++i) UMBEL_TRY(From(builder.Append(i)));
    UMBEL_ASSIGN(const auto array, From(builder.Finish()));
    const auto table =
        arrow::Table::Make(arrow::schema({arrow::field("row", arrow::int64())}), {array});
    UMBEL_ASSIGN(const auto file, From(arrow::io::FileOutputStream::Open(path)));
    UMBEL_TRY(From(parquet::arrow::WriteTable(*table, arrow::default_memory_pool(), file, group)));
    return From(file->Close());
  });
}

Result<std::vector<int64_t>> ReadRows(const std::string& path, const dataset::Piece& piece) {
  UMBEL_ASSIGN(const auto reader, OpenRows(path, piece));
  std::vector<int64_t> rows;
  for (;;) {
    std::shared_ptr<arrow::RecordBatch> batch;
    UMBEL_TRY(From(reader->ReadNext(&batch)));
    if (!batch) return rows;
    const auto& column = dynamic_cast<const arrow::Int64Array&>(*batch->column(0));
    for (int64_t i = 0; i < column.length(); ++i) rows.push_back(column.Value(i));
  }
}

TEST(ParquetFileTest, APieceIsEveryStepthRow) {
  TempDir dir;
  const std::string path = dir.path() + "/x.parquet";
  rc::check("rows of a piece", [&path] {
    const auto rows = *rc::gen::inRange<int64_t>(0, 300);
    const auto group = *rc::gen::inRange<int64_t>(1, 50);
    const auto step = *rc::gen::inRange<uint64_t>(1, 9);
    const auto first = *rc::gen::inRange<uint64_t>(0, step);
    RC_ASSERT(WriteRows(path, rows, group).ok());
    std::vector<int64_t> wanted;
    for (auto row = static_cast<int64_t>(first); row < rows; row += static_cast<int64_t>(step))
      wanted.push_back(row);
    const auto read = ReadRows(path, {"x.parquet", first, step, wanted.size()});
    RC_ASSERT(read.ok());
    RC_ASSERT(*read == wanted);
    RC_ASSERT(Inspect(path)->rows == static_cast<uint64_t>(rows));
  });
}

TEST(ParquetFileTest, DamageIsAnErrorThatNamesTheFile) {
  TempDir dir;
  const std::string path = dir.path() + "/x.parquet";
  ASSERT_TRUE(WriteRows(path, 1000, 100).ok());
  const std::string whole = *ReadFile(path);
  for (const std::string& content :
       {std::string(), std::string("PAR1"), whole.substr(0, whole.size() / 2),
        whole.substr(0, whole.size() - 1), std::string(1000, 'x')}) {
    ASSERT_TRUE(WriteFileAtomic(path, content).ok());
    const auto summary = Inspect(path);
    ASSERT_FALSE(summary.ok());
    EXPECT_EQ(summary.error().code, Code::kDataLoss);
    EXPECT_NE(summary.error().message.find("'x.parquet' is not a readable Parquet file"),
              std::string::npos)
        << summary.error().message;
    EXPECT_EQ(OpenRows(path, {"x.parquet", 0, 1, 1}).error().code, Code::kDataLoss);
  }
  EXPECT_EQ(Inspect(dir.path() + "/none").error().code, Code::kNotFound);
}

}  // namespace
}  // namespace umbel::dataserver
