// Who may act for which customer. Functions; any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "doors/accounts.h"
#include "manager/manager.h"

namespace umbel::doors {

/// A caller speaks for itself; an admin for anybody. A document that names nobody passes: the
/// manager says what is wrong with it.
/// errors  kPermissionDenied.
Status MaySubmit(std::string_view sla, const Account& who);

/// Whether the caller may ask where this customer's tracking server is, which starts one: not for
/// names that nobody has.
/// errors  kPermissionDenied; kNotFound: neither an account nor a project is of this customer.
Status MayTrack(manager::Manager& manager, const Accounts& accounts, const Account& who,
                const std::string& customer);

}  // namespace umbel::doors
