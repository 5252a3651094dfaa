#include "dataserver/tables.h"

#include <arrow/array.h>
#include <arrow/builder.h>
#include <arrow/csv/api.h>
#include <arrow/io/file.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/writer.h>
#include <arrow/util/key_value_metadata.h>
#include <openssl/evp.h>
#include <parquet/arrow/reader.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "base/ids.h"
#include "dataserver/arrow_status.h"
#include "dataset/png.h"

namespace umbel::dataserver {
namespace {

class Md5 {
 public:
  Md5() : context_(::EVP_MD_CTX_new(), ::EVP_MD_CTX_free) {
    UMBEL_CHECK(::EVP_DigestInit_ex(context_.get(), ::EVP_md5(), nullptr) == 1);
  }
  void Update(const void* data, size_t bytes) {
    UMBEL_CHECK(::EVP_DigestUpdate(context_.get(), data, bytes) == 1);
  }
  std::string Finish() {
    std::string digest(16, '\0');
    UMBEL_CHECK(::EVP_DigestFinal_ex(context_.get(), reinterpret_cast<uint8_t*>(digest.data()),
                                     nullptr) == 1);
    return HexEncode(digest);
  }

 private:
  std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> context_;
};

/// Hashes what is written to it.
class HashedStream final : public arrow::io::OutputStream {
 public:
  HashedStream() { set_mode(arrow::io::FileMode::WRITE); }
  using arrow::io::OutputStream::Write;
  arrow::Status Write(const void* data, int64_t bytes) override {
    md5_.Update(data, static_cast<size_t>(bytes));
    bytes_ += bytes;
    return arrow::Status::OK();
  }
  arrow::Status Close() override { return arrow::Status::OK(); }
  arrow::Result<int64_t> Tell() const override { return bytes_; }
  bool closed() const override { return false; }
  std::string Finish() { return md5_.Finish(); }

 private:
  Md5 md5_;
  int64_t bytes_ = 0;
};

Result<std::shared_ptr<arrow::Table>> LoadParquet(const std::string& path) {
  UMBEL_ASSIGN(auto file, From(arrow::io::ReadableFile::Open(path)));
  UMBEL_ASSIGN(const auto reader,
               From(parquet::arrow::OpenFile(std::move(file), arrow::default_memory_pool())));
  return From(reader->ReadTable());
}

Result<std::shared_ptr<arrow::Table>> LoadCsv(const std::string& path) {
  UMBEL_ASSIGN(auto file, From(arrow::io::ReadableFile::Open(path)));
  UMBEL_ASSIGN(
      const auto reader,
      From(arrow::csv::TableReader::Make(
          arrow::io::default_io_context(), std::move(file), arrow::csv::ReadOptions::Defaults(),
          arrow::csv::ParseOptions::Defaults(), arrow::csv::ConvertOptions::Defaults())));
  return From(reader->Read());
}

std::shared_ptr<arrow::DataType> ImageType() {
  return arrow::struct_(
      {arrow::field("bytes", arrow::binary()), arrow::field("path", arrow::utf8())});
}

std::shared_ptr<arrow::Schema> ImageSchema(const std::vector<std::string>& label_names) {
  const nlohmann::json features = {{"image", {{"_type", "Image"}}},
                                   {"label", {{"names", label_names}, {"_type", "ClassLabel"}}}};
  const nlohmann::json info = {{"info", {{"features", features}}}};
  return arrow::schema({arrow::field("image", ImageType()), arrow::field("label", arrow::int64())},
                       arrow::key_value_metadata({"huggingface"}, {info.dump()}));
}

}  // namespace

Result<std::shared_ptr<arrow::Table>> LoadTable(const std::string& path) {
  const bool csv = path.ends_with(".csv");
  if (!csv && !path.ends_with(".parquet"))
    return Fail(Code::kInvalidArgument,
                fmt::format("'{}' is neither a .parquet nor a .csv file", path));
  auto table = Caught([&] { return csv ? LoadCsv(path) : LoadParquet(path); });
  if (!table.ok())
    return Fail(Code::kInvalidArgument,
                fmt::format("cannot read '{}': {}", path, table.error().message));
  return table;
}

Result<std::string> DigestOfFile(const std::string& path) {
  return Caught([&]() -> Result<std::string> {
    UMBEL_ASSIGN(const auto file, From(arrow::io::ReadableFile::Open(path)));
    Md5 md5;
    std::string buffer(size_t{1} << 20, '\0');
    for (;;) {
      UMBEL_ASSIGN(const int64_t bytes,
                   From(file->Read(static_cast<int64_t>(buffer.size()), buffer.data())));
      if (bytes == 0) return md5.Finish();
      md5.Update(buffer.data(), static_cast<size_t>(bytes));
    }
  });
}

Result<std::string> DigestOf(const arrow::Table& table) {
  return Caught([&]() -> Result<std::string> {
    const auto stream = std::make_shared<HashedStream>();
    UMBEL_ASSIGN(const auto writer, From(arrow::ipc::MakeStreamWriter(stream, table.schema())));
    UMBEL_TRY(From(writer->WriteTable(table)));
    UMBEL_TRY(From(writer->Close()));
    return stream->Finish();
  });
}

Result<std::shared_ptr<arrow::Table>> ImageTable(const dataset::LabelledImages& images,
                                                 std::span<const uint32_t> rows) {
  return Caught([&]() -> Result<std::shared_ptr<arrow::Table>> {
    arrow::BinaryBuilder bytes;
    arrow::Int64Builder labels;
    for (const uint32_t row : rows) {
      UMBEL_ASSIGN(const std::string png,
                   dataset::EncodePng(images.image(row), images.width, images.height));
      UMBEL_TRY(From(bytes.Append(png)));
      UMBEL_TRY(From(labels.Append(images.labels[row])));
    }
    UMBEL_ASSIGN(const auto bytes_array, From(bytes.Finish()));
    UMBEL_ASSIGN(const auto label_array, From(labels.Finish()));
    UMBEL_ASSIGN(const auto path_array,
                 From(arrow::MakeArrayOfNull(arrow::utf8(), static_cast<int64_t>(rows.size()))));
    UMBEL_ASSIGN(const auto image_array,
                 From(arrow::StructArray::Make({bytes_array, path_array}, ImageType()->fields())));
    return arrow::Table::Make(ImageSchema(images.label_names), {image_array, label_array});
  });
}

}  // namespace umbel::dataserver
