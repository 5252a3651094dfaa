// One HTTP call for those who are no coroutines: it blocks, on a connection of its own. Any thread.
#pragma once

#include <stop_token>

#include "base/result.h"
#include "http/client.h"

namespace umbel::http {

/// body_max, errors  as Client::Send and Client::Make have them; kCancelled: `stop` was asked for.
Result<ClientResponse> CallOnce(ClientOptions options, const ClientRequest& request,
                                size_t body_max, std::stop_token stop = {});

}  // namespace umbel::http
