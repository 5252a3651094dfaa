#include "flower/proto_bytes.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/message_lite.h>

#include "flwr/common.pb.h"
#include "tensor/wire.h"

namespace umbel::flower {

std::string SerializeDeterministic(const google::protobuf::MessageLite& message) {
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    message.SerializeToCodedStream(&coded);
  }
  return bytes;
}

std::string PushObjectHead(const flwr::proto::PushObjectRequest& request,
                           const StoredObject& object) {
  std::string bytes = request.SerializeAsString();
  tensor::AppendVarint(uint64_t{flwr::proto::PushObjectRequest::kObjectContentFieldNumber} << 3 |
                           static_cast<uint64_t>(tensor::WireType::kBytes),
                       bytes);
  tensor::AppendVarint(object.size(), bytes);
  bytes += object.head;
  return bytes;
}

}  // namespace umbel::flower
