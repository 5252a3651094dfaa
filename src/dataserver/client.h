// The client's side of a data server, ours or FLOps' own. Belongs to one thread; calls block.
#pragma once

#include <arrow/table.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace umbel::dataserver {

struct Target {
  std::string location;  // grpc://, grpc+tls:// or grpc+unix://
  std::string token;     // "": none is sent
  std::string ca_file;   // PEM that signs the server's certificate; "": the system's
};

struct Listed {
  std::string name;
  int64_t rows = 0;
  int64_t bytes = 0;
};

class Client {
 public:
  /// errors  kInvalidArgument: no location. Whether somebody answers there shows with the first
  /// call.
  static Result<std::unique_ptr<Client>> Connect(const Target& target);
  ~Client();

  /// The server has the table, whole and on its disk, when it returns.
  Status Put(const std::string& name, const arrow::Table& table);
  Result<std::vector<Listed>> List(const std::vector<std::string>& tags);
  /// returns the body of the first answer; "" when there is none.
  Result<std::string> Act(const std::string& type, std::string_view body);

 private:
  struct Parts;
  explicit Client(std::unique_ptr<Parts> parts);
  /// With the location in front of what went wrong.
  Error Named(const Error& error) const;

  std::unique_ptr<Parts> parts_;
};

}  // namespace umbel::dataserver
