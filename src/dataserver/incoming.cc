#include "dataserver/incoming.h"

#include <arrow/io/interfaces.h>
#include <arrow/ipc/writer.h>
#include <arrow/util/byte_size.h>
#include <fcntl.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <functional>
#include <optional>

#include "base/file.h"
#include "dataserver/arrow_status.h"
#include "dataserver/shelf.h"

namespace umbel::dataserver {
namespace {

constexpr int64_t kGroupBytes = int64_t{32} << 20;
constexpr int64_t kSchemaBytesMax = int64_t{1} << 20;

}  // namespace

/// A new file whose bytes are asked for before they are written. Keeps its first error, which the
/// Parquet writer above tells in other words.
class ChargedFile final : public arrow::io::OutputStream {
 public:
  using Ask = std::function<Status(uint64_t bytes)>;

  ChargedFile(const std::string& path, Ask ask)
      : path_(path),
        ask_(std::move(ask)),
        fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
    set_mode(arrow::io::FileMode::WRITE);
    if (!fd_.valid()) error_ = SystemError("create", path);
  }

  using arrow::io::OutputStream::Write;
  arrow::Status Write(const void* data, int64_t count) override {
    if (!error_) Try(static_cast<const char*>(data), static_cast<size_t>(count));
    return error_ ? ToArrow(*error_) : arrow::Status::OK();
  }
  arrow::Status Close() override {
    fd_.Close();
    return arrow::Status::OK();
  }
  arrow::Result<int64_t> Tell() const override { return static_cast<int64_t>(bytes_); }
  bool closed() const override { return !fd_.valid(); }

  Status Sync() {
    if (::fsync(fd_.get()) != 0) return Fail(SystemError("sync", path_));
    return {};
  }

  const std::optional<Error>& error() const { return error_; }
  uint64_t bytes() const { return bytes_; }

 private:
  void Try(const char* data, size_t count) {
    if (const Status asked = ask_(count); !asked.ok()) {
      error_ = asked.error();
      return;
    }
    bytes_ += count;
    while (count > 0) {
      const ssize_t n = ::write(fd_.get(), data, count);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) {
        error_ = SystemError("write", path_);
        return;
      }
      data += n;
      count -= static_cast<size_t>(n);
    }
  }

  const std::string path_;
  const Ask ask_;
  Fd fd_;
  uint64_t bytes_ = 0;  // that were granted
  std::optional<Error> error_;
};

Incoming::Incoming(Shelf& shelf, std::string name, std::string path)
    : shelf_(shelf), name_(std::move(name)), path_(std::move(path)) {
  file_ = std::make_shared<ChargedFile>(path_, [this](uint64_t bytes) -> Status {
    const uint64_t put_max = shelf_.quotas().put_bytes_max;
    if (file_->bytes() + bytes > put_max)
      return Fail(
          Code::kResourceExhausted,
          fmt::format("file is too large: a put may have {} bytes; raise --put-bytes, or put "
                      "it in parts",
                      put_max));
    return shelf_.Charge(bytes);
  });
}

Incoming::~Incoming() {
  writer_.reset();  // may write a last time
  (void)file_->Close();
  ::unlink(path_.c_str());  // after Publish() there is none of this name
  shelf_.Refund(file_->bytes(), true);
}

uint64_t Incoming::bytes() const { return file_->bytes(); }

Status Incoming::Said(Status written) const {
  if (file_->error()) return Fail(*file_->error());
  return written;
}

Status Incoming::Open(const std::shared_ptr<arrow::Schema>& schema) {
  if (file_->error()) return Fail(*file_->error());
  return Caught([&]() -> Status {
    UMBEL_ASSIGN(const auto serialized, From(arrow::ipc::SerializeSchema(*schema)));
    if (serialized->size() > kSchemaBytesMax)
      return Fail(Code::kInvalidArgument,
                  fmt::format("the schema with its metadata has {} bytes, at most {}",
                              serialized->size(), kSchemaBytesMax));
    auto opened = From(parquet::arrow::FileWriter::Open(
        *schema, arrow::default_memory_pool(), file_,
        parquet::WriterProperties::Builder()
            .compression(parquet::Compression::SNAPPY)
            ->enable_page_checksum()
            ->build(),
        parquet::ArrowWriterProperties::Builder().store_schema()->build()));
    if (!opened.ok())
      return Said(Fail(Code::kInvalidArgument,
                       fmt::format("Parquet cannot hold this schema: {}", opened.error().message)));
    writer_ = std::move(*opened);
    return {};
  });
}

Status Incoming::Write(const arrow::RecordBatch& batch) {
  return Said(Caught([&]() -> Status {
    if (const arrow::Status valid = batch.ValidateFull(); !valid.ok())
      return Fail(Code::kInvalidArgument, fmt::format("a batch is not valid: {}", valid.message()));
    rows_ += static_cast<uint64_t>(batch.num_rows());
    if (rows_ > shelf_.quotas().put_rows_max)
      return Fail(
          Code::kResourceExhausted,
          fmt::format("file is too long: a put may have {} rows; raise --put-rows, or put it "
                      "in parts",
                      shelf_.quotas().put_rows_max));
    if (batch.num_rows() == 0) return {};
    // A row group is in memory until it ends.
    if (group_bytes_ >= kGroupBytes) {
      UMBEL_TRY(From(writer_->NewBufferedRowGroup()));
      group_bytes_ = 0;
    }
    group_bytes_ += arrow::util::TotalBufferSize(batch);
    return From(writer_->WriteRecordBatch(batch));
  }));
}

Status Incoming::Finish() {
  UMBEL_TRY(Said(Caught([&] { return From(writer_->Close()); })));
  return file_->Sync();
}

Status Incoming::Publish() {
  const std::string to = shelf_.PathOf(name_);
  if (::rename(path_.c_str(), to.c_str()) != 0) return Fail(SystemError("rename", path_));
  return SyncPath(shelf_.folder());
}

}  // namespace umbel::dataserver
