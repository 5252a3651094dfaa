// Whom the client trusts.
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <cstdio>

#include "http/client_fixture.h"

namespace umbel::http {
namespace {

struct Certificate {
  std::shared_ptr<EVP_PKEY> key;
  std::shared_ptr<X509> x509;
};

/// `names` as OpenSSL writes subjectAltName, "" for a certificate authority. Signed by `issuer`,
/// or by itself.
Certificate Certify(const std::string& common_name, const std::string& names,
                    const Certificate* issuer, long days = 1) {
  Certificate made{{EVP_EC_gen("P-256"), EVP_PKEY_free}, {X509_new(), X509_free}};
  X509* const x = made.x509.get();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), issuer ? 2 : 1);
  X509_gmtime_adj(X509_getm_notBefore(x), -7L * 86400);
  X509_gmtime_adj(X509_getm_notAfter(x), days * 86400);
  X509_set_pubkey(x, made.key.get());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(x, X509_get_subject_name(issuer ? issuer->x509.get() : x));
  const auto extend = [x](int nid, const std::string& value) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value.c_str());
    EXPECT_NE(extension, nullptr);
    X509_add_ext(x, extension, -1);
    X509_EXTENSION_free(extension);
  };
  if (names.empty()) {
    extend(NID_basic_constraints, "critical,CA:TRUE");
  } else {
    extend(NID_subject_alt_name, names);
  }
  EXPECT_GT(X509_sign(x, issuer ? issuer->key.get() : made.key.get(), EVP_sha256()), 0);
  return made;
}

class TemporaryFolder {
 public:
  TemporaryFolder() { EXPECT_NE(::mkdtemp(name_), nullptr); }
  ~TemporaryFolder() {
    for (const std::string& file : files_) ::unlink(file.c_str());
    ::rmdir(name_);
  }
  std::string Path(const std::string& name) {
    files_.push_back(fmt::format("{}/{}", name_, name));
    return files_.back();
  }
  template <typename F>
  std::string Write(const std::string& name, F&& write) {
    const std::string path = Path(name);
    std::FILE* const file = std::fopen(path.c_str(), "w");
    EXPECT_EQ(write(file), 1);
    std::fclose(file);
    return path;
  }

 private:
  char name_[32] = "/tmp/umbel-client-XXXXXX";
  std::vector<std::string> files_;
};

class TlsClientTest : public ClientTest {
 protected:
  void ServeTls(const std::string& names, long days = 1) {
    const Certificate server = Certify("umbel", names, &authority_, days);
    ServerOptions options;
    options.tls.emplace();
    options.tls->certificate_file = folder_.Write(
        "server.pem", [&](std::FILE* file) { return PEM_write_X509(file, server.x509.get()); });
    options.tls->key_file = folder_.Write("server.key", [&](std::FILE* file) {
      return PEM_write_PrivateKey(file, server.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    });
    Serve(std::move(options));
  }
  void ConnectTls(const std::string& host, const std::string& roots) {
    ClientOptions options = To(server_->port());
    options.host = host;
    options.tls = true;
    options.root_certificates = roots;
    Connect(std::move(options));
  }
  std::string Refusal() {
    const Answer answer = Get("/refuse");
    if (answer.ok()) return "answered";
    EXPECT_EQ(answer.error().code, Code::kUnauthenticated) << answer.error().message;
    return answer.error().message;
  }

  TemporaryFolder folder_;
  Certificate authority_ = Certify("test authority", "", nullptr);
  std::string roots_ = folder_.Write(
      "ca.pem", [this](std::FILE* file) { return PEM_write_X509(file, authority_.x509.get()); });
};

TEST_F(TlsClientTest, NamesAndAddressesAreVerified) {
  ServeTls("DNS:localhost,IP:127.0.0.1");
  const std::string content = Pattern(3'000'001);
  const Fd file = Unnamed(content);
  for (const char* host : {"localhost", "127.0.0.1"}) {
    ConnectTls(host, roots_);
    for (const size_t size : {0U, 10U, 10'000U, 6'000'000U}) {
      ClientRequest request = Post("/echo", Pattern(size));
      request.file = {{file.get(), 1, size / 2}};
      const Answer answer = Call(request);
      ASSERT_TRUE(answer.ok()) << answer.error().message;
      EXPECT_TRUE(answer->body == Pattern(size) + content.substr(1, size / 2));
    }
  }
  EXPECT_EQ(server_->counters().connections_total, 2U);
}

TEST_F(TlsClientTest, ACertificateForAnotherHostIsRefused) {
  ServeTls("DNS:elsewhere.example,IP:127.0.0.2");
  ConnectTls("127.0.0.1", roots_);
  EXPECT_EQ(Refusal(), fmt::format("127.0.0.1:{}: its certificate is refused: IP address mismatch",
                                   server_->port()));
  ConnectTls("localhost", roots_);
  EXPECT_EQ(Refusal(), fmt::format("localhost:{}: its certificate is refused: hostname mismatch",
                                   server_->port()));
}

TEST_F(TlsClientTest, AnUnknownAuthorityIsRefused) {
  ServeTls("IP:127.0.0.1");
  ConnectTls("127.0.0.1", "");
  EXPECT_NE(Refusal().find("unable to get local issuer certificate"), std::string::npos);
}

TEST_F(TlsClientTest, AnExpiredCertificateIsRefused) {
  ServeTls("IP:127.0.0.1", -1);
  ConnectTls("127.0.0.1", roots_);
  EXPECT_NE(Refusal().find("certificate has expired"), std::string::npos);
}

TEST_F(TlsClientTest, AServerWithoutTlsIsSaid) {
  Serve();
  ConnectTls("127.0.0.1", roots_);
  const Answer answer = Get("/refuse");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  EXPECT_NE(answer.error().message.find("the TLS handshake failed: "), std::string::npos)
      << answer.error().message;
}

TEST_F(TlsClientTest, AServerWithTlsIsSaid) {
  ServeTls("IP:127.0.0.1");
  Connect(To(server_->port()));
  const Answer answer = Get("/refuse");
  EXPECT_FALSE(answer.ok());
}

TEST_F(TlsClientTest, AConnectionClosedMeanwhileIsReplaced) {
  ServeTls("IP:127.0.0.1");
  ConnectTls("127.0.0.1", roots_);
  EXPECT_TRUE(Get("/refuse").ok());
  const uint16_t port = server_->port();
  server_->Stop(std::chrono::milliseconds(0));
  server_.reset();
  const Answer answer = Get("/refuse");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(answer.error().message,
            fmt::format("127.0.0.1:{}: cannot connect: Connection refused", port));
}

TEST_F(TlsClientTest, AHandshakeThatStallsTimesOut) {
  Stage stage({[](Peer& peer) { peer.Rest(); }});
  ClientOptions options = To(stage.port());
  options.tls = true;
  options.connect_timeout = seconds(1);
  Connect(std::move(options));
  const Answer answer = Get("/");
  ASSERT_FALSE(answer.ok());
  EXPECT_EQ(
      answer.error().message,
      fmt::format("127.0.0.1:{}: the TLS handshake failed: nothing within 1 s", stage.port()));
}

TEST_F(TlsClientTest, RootCertificatesThatCannotBeReadAreNamed) {
  const std::string garbage =
      folder_.Write("garbage.pem", [](std::FILE* file) { return std::fputs("no", file) >= 0; });
  for (const std::string& path : {garbage, folder_.Path("missing.pem")}) {
    ClientOptions options;
    options.tls = true;
    options.root_certificates = path;
    const auto client = Client::Make(io_, options);
    ASSERT_FALSE(client.ok());
    EXPECT_EQ(client.error().code, Code::kInvalidArgument);
    EXPECT_NE(client.error().message.find(path), std::string::npos);
  }
}

}  // namespace
}  // namespace umbel::http
