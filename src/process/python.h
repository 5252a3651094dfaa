// Where a Python interpreter and its packages lie, for views that are to have it. Any thread.
#pragma once

#include <string>
#include <vector>

namespace umbel::process {

/// Files and folders without which this interpreter (a path) does not run: itself, its virtual
/// environment, and the installation that both come from. The system's own are left out.
std::vector<std::string> PythonFolders(const std::string& python);

}  // namespace umbel::process
