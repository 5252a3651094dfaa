#include "http/call.h"

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <optional>

namespace umbel::http {

Result<ClientResponse> CallOnce(ClientOptions options, const ClientRequest& request,
                                size_t body_max, std::stop_token stop) {
  boost::asio::io_context context(1);
  UMBEL_ASSIGN(const auto client, Client::Make(context, std::move(options)));
  std::optional<Result<ClientResponse>> answer;
  auto call = [&]() -> Task<void> {
    answer = co_await client->Send(request, body_max);
    client->Close();  // a connection that is kept for another call would be waited for
  };
  const std::stop_callback cancel(stop,
                                  [&] { boost::asio::post(context, [&] { client->Close(); }); });
  boost::asio::co_spawn(context, call(), boost::asio::detached);
  context.run();
  UMBEL_CHECK(answer.has_value());
  return std::move(*answer);
}

}  // namespace umbel::http
